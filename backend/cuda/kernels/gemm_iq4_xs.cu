// gemm_iq4_xs.cu: products of IQ4_XS weights with 9 to 64 tokens.
// targets: sm_80 sm_90
#include "gemm_quant.h"

GEMM_QUANTS(iq4_xs, DotIQ4_XS)

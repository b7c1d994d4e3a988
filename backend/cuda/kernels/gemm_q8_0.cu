// gemm_q8_0.cu: products of Q8_0 weights with 9 to 64 tokens.
// targets: sm_80 sm_90
#include "gemm_quant.h"

GEMM_QUANTS(q8_0, DotQ8_0)

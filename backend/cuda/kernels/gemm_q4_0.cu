// gemm_q4_0.cu: products of Q4_0 weights with 9 to 64 tokens.
// targets: sm_80 sm_90
#include "gemm_quant.h"

GEMM_QUANTS(q4_0, DotQ4_0)

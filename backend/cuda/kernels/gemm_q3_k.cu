// gemm_q3_k.cu: products of Q3_K weights with 9 to 64 tokens.
// targets: sm_80 sm_90
#include "gemm_quant.h"

GEMM_QUANTS(q3_k, DotQ3_K)

// gemm_q4_k.cu: products of Q4_K weights with 9 to 64 tokens.
// targets: sm_80 sm_90
#include "gemm_quant.h"

GEMM_QUANTS(q4_k, DotQ4_K)

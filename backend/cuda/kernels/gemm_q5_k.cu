// gemm_q5_k.cu: products of Q5_K weights with 9 to 64 tokens.
// targets: sm_80 sm_90
#include "gemm_quant.h"

GEMM_QUANTS(q5_k, DotQ5_K)

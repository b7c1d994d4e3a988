// gemm_q6_k.cu: products of Q6_K weights with 9 to 64 tokens.
// targets: sm_80 sm_90
#include "gemm_quant.h"

GEMM_QUANTS(q6_k, DotQ6_K)

// gemm_stage_q6_k.cu: products of 9 to 32 tokens with Q6_K weights.
// targets: sm_80 sm_90
#include "gemm_stage.h"

GEMM_STAGE(gemm_stage_q6_k_16, DotQ6_K, 16, 2, 2)
GEMM_STAGE(gemm_stage_q6_k_32, DotQ6_K, 32, 3, 1)

// gemm_stage_q4_k.cu: products of 9 to 32 tokens with Q4_K weights.
// targets: sm_80 sm_90
#include "gemm_stage.h"

GEMM_STAGE(gemm_stage_q4_k_16, DotQ4_K, 16, 3, 2)
GEMM_STAGE(gemm_stage_q4_k_32, DotQ4_K, 32, 2, 2)

// matvec_mma_q4_k.cu: products of few tokens with Q4_K weights, and Q6_K ones beside them, on tensor cores.
// targets: sm_80 sm_90
#include "matvec_mma.h"

MATVEC_MMA(matvec_mma_q4_k_4, 384, DotQ4_K, DotQ6_K, 4)
MATVEC_MMA(matvec_mma_q4_k_8, 384, DotQ4_K, DotQ6_K, 8)

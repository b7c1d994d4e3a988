// matvec_mma_q6_k.cu: products of few tokens with Q6_K weights on tensor cores.
// targets: sm_80 sm_90
#include "matvec_mma.h"

MATVEC_MMA(matvec_mma_q6_k_4, 384, DotQ6_K, DotQ6_K, 4)
MATVEC_MMA(matvec_mma_q6_k_8, 384, DotQ6_K, DotQ6_K, 8)

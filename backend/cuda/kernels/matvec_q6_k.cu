// matvec_q6_k.cu: products with Q6_K weights.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q6_k_1, 512, 1, DotQ6_K, DotQ6_K, 1, 2, 2)
MATVEC(matvec_q6_k_2, 384, 1, DotQ6_K, DotQ6_K, 2, 2, 2)
MATVEC(matvec_q6_k_4, 384, 1, DotQ6_K, DotQ6_K, 4, 2, 1)

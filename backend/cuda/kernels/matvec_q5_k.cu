// matvec_q5_k.cu: products with Q5_K weights, and for one token also with Q6_K ones beside them.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q5_k_1, 512, 1, DotQ5_K, DotQ6_K, 1, 2, 2)
MATVEC(matvec_q5_k_2, 384, 1, DotQ5_K, DotQ5_K, 2, 2, 2)
MATVEC(matvec_q5_k_4, 384, 1, DotQ5_K, DotQ5_K, 4, 2, 1)

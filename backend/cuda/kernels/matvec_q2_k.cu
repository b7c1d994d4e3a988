// matvec_q2_k.cu: products with Q2_K weights, and for one token also with Q3_K ones beside them.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q2_k_1, 512, 1, DotQ2_K, DotQ3_K, 1, 2, 2)
MATVEC(matvec_q2_k_2, 384, 1, DotQ2_K, DotQ2_K, 2, 2, 2)
MATVEC(matvec_q2_k_4, 384, 1, DotQ2_K, DotQ2_K, 4, 2, 1)

// matvec_q3_k.cu: products with Q3_K weights, and for one token also with Q5_K ones beside them.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q3_k_1, 512, 1, DotQ3_K, DotQ5_K, 1, 2, 2)
MATVEC(matvec_q3_k_2, 384, 1, DotQ3_K, DotQ3_K, 2, 2, 2)
MATVEC(matvec_q3_k_4, 384, 1, DotQ3_K, DotQ3_K, 4, 2, 1)

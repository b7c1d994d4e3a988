// matvec_q4_1.cu: products with Q4_1 weights.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q4_1_1, 512, 1, DotQ4_1, DotQ4_1, 1, 2, 2)
MATVEC(matvec_q4_1_2, 384, 1, DotQ4_1, DotQ4_1, 2, 2, 2)
MATVEC(matvec_q4_1_4, 384, 1, DotQ4_1, DotQ4_1, 4, 2, 1)

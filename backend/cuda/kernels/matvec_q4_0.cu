// matvec_q4_0.cu: products with Q4_0 weights.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q4_0_1, 512, 1, DotQ4_0, DotQ4_0, 1, 2, 2)
MATVEC(matvec_q4_0_2, 384, 1, DotQ4_0, DotQ4_0, 2, 2, 2)
MATVEC(matvec_q4_0_4, 384, 1, DotQ4_0, DotQ4_0, 4, 2, 1)

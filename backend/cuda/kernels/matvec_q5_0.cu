// matvec_q5_0.cu: products with Q5_0 weights, and for one token also with Q8_0 ones beside them.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q5_0_1, 512, 1, DotQ5_0, DotQ8_0, 1, 2, 2)
MATVEC(matvec_q5_0_2, 384, 1, DotQ5_0, DotQ5_0, 2, 2, 2)
MATVEC(matvec_q5_0_4, 384, 1, DotQ5_0, DotQ5_0, 4, 2, 1)

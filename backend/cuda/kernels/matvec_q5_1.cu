// matvec_q5_1.cu: products with Q5_1 weights, and for one token also with Q8_0 ones beside them.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q5_1_1, 512, 1, DotQ5_1, DotQ8_0, 1, 2, 2)
MATVEC(matvec_q5_1_2, 384, 1, DotQ5_1, DotQ5_1, 2, 2, 2)
MATVEC(matvec_q5_1_4, 384, 1, DotQ5_1, DotQ5_1, 4, 2, 1)

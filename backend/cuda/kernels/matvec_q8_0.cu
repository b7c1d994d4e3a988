// matvec_q8_0.cu: products with Q8_0 weights.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_q8_0_1, 512, 1, DotQ8_0, DotQ8_0, 1, 2, 2)
MATVEC(matvec_q8_0_2, 384, 1, DotQ8_0, DotQ8_0, 2, 2, 2)
MATVEC(matvec_q8_0_4, 384, 1, DotQ8_0, DotQ8_0, 4, 2, 1)

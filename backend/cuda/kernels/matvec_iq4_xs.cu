// matvec_iq4_xs.cu: products with IQ4_XS weights, and for one token also with Q5_K ones beside them.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_iq4_xs_1, 512, 1, DotIQ4_XS, DotQ5_K, 1, 2, 2)
MATVEC(matvec_iq4_xs_2, 384, 1, DotIQ4_XS, DotIQ4_XS, 2, 2, 2)
MATVEC(matvec_iq4_xs_4, 384, 1, DotIQ4_XS, DotIQ4_XS, 4, 2, 1)

// matvec_iq4_nl.cu: products with IQ4_NL weights.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_iq4_nl_1, 512, 1, DotIQ4_NL, DotIQ4_NL, 1, 2, 2)
MATVEC(matvec_iq4_nl_2, 384, 1, DotIQ4_NL, DotIQ4_NL, 2, 2, 2)
MATVEC(matvec_iq4_nl_4, 384, 1, DotIQ4_NL, DotIQ4_NL, 4, 2, 1)

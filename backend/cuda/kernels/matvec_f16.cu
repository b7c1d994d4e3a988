// matvec_f16.cu: products with F16 weights.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_f16_1, 512, 1, DotF16, DotF16, 1, 2, 2)
MATVEC(matvec_f16_2, 384, 1, DotF16, DotF16, 2, 2, 2)
MATVEC(matvec_f16_4, 384, 1, DotF16, DotF16, 4, 2, 1)

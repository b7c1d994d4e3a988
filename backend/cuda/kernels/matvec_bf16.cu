// matvec_bf16.cu: products with BF16 weights.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_bf16_1, 512, 1, DotBF16, DotBF16, 1, 2, 2)
MATVEC(matvec_bf16_2, 384, 1, DotBF16, DotBF16, 2, 2, 2)
MATVEC(matvec_bf16_4, 384, 1, DotBF16, DotBF16, 4, 2, 1)

// matvec_f32.cu: products with F32 weights.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC(matvec_f32_1, 512, 1, DotF32, DotF32, 1, 2, 2)
MATVEC(matvec_f32_2, 384, 1, DotF32, DotF32, 2, 2, 2)
MATVEC(matvec_f32_4, 384, 1, DotF32, DotF32, 4, 2, 1)

// matvec_tune.cu: other shapes of the product kernels, for the benchmark to try.
// targets: sm_90
#include "matvec.h"

#define TUNE(f, D)                                             \
	MATVEC(matvec_tune_##f##_r1p4, 512, 1, D, D, 1, 1, 4)      \
	MATVEC(matvec_tune_##f##_r2p2, 512, 1, D, D, 1, 2, 2)      \
	MATVEC(matvec_tune_##f##_r2p4, 512, 1, D, D, 1, 2, 4)      \
	MATVEC(matvec_tune_##f##_r4p1, 512, 1, D, D, 1, 4, 1)
TUNE(q4_k, DotQ4_K)
TUNE(q6_k, DotQ6_K)

// matvec_tune.cu: other shapes of the product kernels, for the benchmark to try.
// targets: sm_90
#include "matvec.h"

#define TUNE(f, D)                                             \
	MATVEC(matvec_tune_##f##_r1p2, 512, 1, D, D, 1, 1, 2)      \
	MATVEC(matvec_tune_##f##_r1p4, 512, 1, D, D, 1, 1, 4)      \
	MATVEC(matvec_tune_##f##_r1p6, 512, 1, D, D, 1, 1, 6)      \
	MATVEC(matvec_tune_##f##_r2p1, 512, 1, D, D, 1, 2, 1)      \
	MATVEC(matvec_tune_##f##_r2p2, 512, 1, D, D, 1, 2, 2)      \
	MATVEC(matvec_tune_##f##_r2p3, 512, 1, D, D, 1, 2, 3)      \
	MATVEC(matvec_tune_##f##_r2p4, 512, 1, D, D, 1, 2, 4)      \
	MATVEC(matvec_tune_##f##_r4p1, 512, 1, D, D, 1, 4, 1)      \
	MATVEC(matvec_tune_##f##_r4p2, 512, 1, D, D, 1, 4, 2)
TUNE(q4_k, DotQ4_K)
TUNE(q6_k, DotQ6_K)

// matvec_if.cu: products of one token with Q4_K and Q6_K weights, with conditional loads.
// targets: sm_80 sm_90
#include "matvec.h"

MATVEC_IF(matvec_if_q4_k, DotQ4_K, DotQ6_K)
MATVEC_IF(matvec_if_q6_k, DotQ6_K, DotQ6_K)

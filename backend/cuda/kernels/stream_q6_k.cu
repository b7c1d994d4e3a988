// stream_q6_k.cu: products of few tokens with Q6_K weights on tensor cores.
// targets: sm_80 sm_90
#include "stream.h"

STREAM(stream_q6_k_1, 2, DotQ6_K, DotQ6_K, 1)
STREAM(stream_q6_k_2, 2, DotQ6_K, DotQ6_K, 2)
STREAM(stream_q6_k_4, 1, DotQ6_K, DotQ6_K, 4)
STREAM(stream_q6_k_8, 1, DotQ6_K, DotQ6_K, 8)

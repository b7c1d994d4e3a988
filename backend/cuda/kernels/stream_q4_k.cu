// stream_q4_k.cu: products of few tokens with Q4_K weights, and Q6_K ones beside them.
// targets: sm_80 sm_90
#include "stream.h"

STREAM(stream_q4_k_1, 2, DotQ4_K, DotQ6_K, 1)
STREAM(stream_q4_k_2, 2, DotQ4_K, DotQ6_K, 2)
STREAM(stream_q4_k_4, 1, DotQ4_K, DotQ6_K, 4)
STREAM(stream_q4_k_8, 1, DotQ4_K, DotQ6_K, 8)

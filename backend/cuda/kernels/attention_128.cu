// attention_128.cu: attention on tensor cores for heads of 128 elements.
// targets: sm_80 sm_90
#define HEAD_DIM 128
#define STAGES 2
#define ROUND 64
#include "attention_kernels.h"

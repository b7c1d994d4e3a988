// attention_64.cu: attention on tensor cores for heads of 64 elements.
// targets: sm_80 sm_90
#define HEAD_DIM 64
#define STAGES 3
#define ROUND 64
#include "attention_kernels.h"

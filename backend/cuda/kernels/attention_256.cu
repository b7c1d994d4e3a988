// attention_256.cu: attention on tensor cores for heads of 256 elements.
// targets: sm_80 sm_90
#define HEAD_DIM 256
#define STAGES 2
#define ROUND 32
#include "attention_kernels.h"

// attention_96.cu: attention on tensor cores for heads of 96 elements.
// targets: sm_80 sm_90
#define HEAD_DIM 96
#define STAGES 2
#define ROUND 64
#include "attention_kernels.h"

#define MIXLAB_ISA avx512
#define MIXLAB_VECTOR_BYTES 64
#define MIXLAB_ROWS 6
#include "kernel.inc.cpp"

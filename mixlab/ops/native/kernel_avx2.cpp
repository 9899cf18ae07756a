#define MIXLAB_ISA avx2
#define MIXLAB_VECTOR_BYTES 32
#define MIXLAB_ROWS 3
#include "kernel.inc.cpp"

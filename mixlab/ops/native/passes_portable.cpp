#define MIXLAB_ISA portable
#define MIXLAB_VECTOR_BYTES 16
#define MIXLAB_ROWS 1
#include "passes.inc.cpp"

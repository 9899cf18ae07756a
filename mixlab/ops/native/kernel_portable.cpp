// SSE2 on x86-64, NEON on aarch64, scalars elsewhere: what the compiler has without flags. NEON has 32 registers.
#define MIXLAB_ISA portable
#define MIXLAB_VECTOR_BYTES 16
#ifdef __aarch64__
#define MIXLAB_ROWS 4
#else
#define MIXLAB_ROWS 2
#endif
#include "kernel.inc.cpp"

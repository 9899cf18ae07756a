// One instruction set's kernels. Compiled several times with different flags; MIXLAB_ISA names the copy.
//
// How it works. A task is one head of a few images whose rows stand side by side as one virtual row of columns, which
// fills the vectors (two rows of 56 columns are 7 vectors of 16). Rows of keys and values are copied once into a ring
// of padded rows, whatever the tensors' strides are; queries are taken a few rows (kRows) and a vector of columns at
// a time. Scores start from a mask a (dx, column) plus a bias an offset, so borders, images' seams and biases cost
// one addition a score. Lanes that are masked have weight exactly 0.
//
// Everything below has internal linkage: a weak symbol compiled for AVX-512 could end up running elsewhere.
#include <cstddef>
#include <cstdint>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "abi.h"

namespace mixlab {
namespace {
#include "vector.inc.h"
#include "products.inc.h"
#include "rows.inc.h"
#include "work.inc.h"
#include "extra.inc.h"
#include "forward.inc.h"
#include "backward.inc.h"

template <class T>
size_t scratch_bytes(const Problem* p, const Task* t, int backward) {
    return Work<T>(*p, *t, backward, nullptr).bytes;
}
}  // namespace

#define MIXLAB_JOIN2(a, b) a##b
#define MIXLAB_JOIN(a, b) MIXLAB_JOIN2(a, b)
#define MIXLAB_STRING2(a) #a
#define MIXLAB_STRING(a) MIXLAB_STRING2(a)
extern const Kernels MIXLAB_JOIN(kernels_, MIXLAB_ISA);
const Kernels MIXLAB_JOIN(kernels_, MIXLAB_ISA) = {
    MIXLAB_STRING(MIXLAB_ISA), MIXLAB_VECTOR_BYTES, {forward_task<float>, forward_task<double>},
    {backward_task<float>, backward_task<double>}, {scratch_bytes<float>, scratch_bytes<double>},
};
}  // namespace mixlab

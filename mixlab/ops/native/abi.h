// What Python, the dispatcher and the kernels of each instruction set share: plain structs, no functions.
//
// Nothing here may hold inline functions or templates: a function compiled for AVX-512 with weak linkage could be the
// one the linker keeps for a machine without it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mixlab {

// A tensor with its strides in elements: batch, head, channel, z, y, x, and the extra key or window offset. No data: absent.
struct View {
    void* data;
    int64_t s[7];
};

// One call; mirrored by ctypes in mixlab/ops/local_attention_native.py. Axes are (z, y, x), missing ones of size 1.
struct Problem {
    int64_t dtype;  // 0 float32, 1 float64
    int64_t batch, heads, d;
    int64_t size[3], kernel[3], dilation[3];
    int64_t shift;    // border rule: 0 clip, 1 shift
    int64_t extra;    // E, the number of extra keys
    int64_t shared;   // 1: extra keys are the same for all queries of an image
    int64_t threads;
    int64_t poison;   // 1: fill scratch memory with NaN before every task (a test of initialisation)
    double scale;
    double softcap;   // 0: none
    View q, k, v, out, lse, bias, ek, ev, eb;              // forward; bias is (heads, offsets), contiguous
    View dout, dlse, dq, dk, dv, dbias, dek, dev, deb;     // backward
    View w, dw;                                            // aggregate: weights and their gradient, s[6] over offsets
};

// A run of columns of a virtual row: one image's columns x = rx + dilation * i.
struct Segment {
    int32_t batch, rx, column, length;
};

// The unit of parallel work: rows of one head for a few images side by side. Dilation is gone: every residue class of
// positions is a grid of its own with wider strides.
struct Task {
    int64_t head, rz, ry;        // residues of z and y
    int64_t depth, height;       // of this residue's grid
    int64_t first, last;         // rows (planes when depth > 1) that this task owns; others only feed the gradients
    int64_t columns, vectors;    // of the virtual row: used ones, and the vectors that cover them
    int64_t reach;               // largest |dx|
    int64_t segments;
    const Segment* segment;
    double *part_bias, *part_ek, *part_ev;  // partial gradients of this task: (offsets), (segments, E, d) each
};

// Returns 1 if something was not finite. `alike`: the scratch memory is as a task of the same shape left it.
using TaskFn = int (*)(const Problem*, const Task*, bool alike, void* scratch);
using ScratchFn = size_t (*)(const Problem*, const Task*, int backward);

struct Kernels {
    const char* name;
    int vector_bytes;
    TaskFn forward[2], backward[2];
    ScratchFn scratch[2];
};

}  // namespace mixlab

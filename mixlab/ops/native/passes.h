// What Python, the dispatcher and each instruction set share about passes over maps: plain structs, no functions.
#pragma once
#include <cstddef>
#include <cstdint>

namespace mixlab {

enum Kind { kPool, kNorm, kNormBackward, kResidual, kResidualBackward, kGelu, kGeluBackward, kKinds };

// One call. Maps are (batch, positions, channels) without gaps, channels innermost; vectors have a value a channel.
//
//                     in                                   out
// pool                x (gradient if backward)             y
// norm                x, weight, bias                      y, (batch, 2): mean and inverse deviation
// norm backward       x, weight, (batch, 2), dy            dx, dweight, dbias
// residual            x, y, scale, keep                    x + keep scale y
// residual backward   y, scale, keep, dx                   dy, dscale
// gelu                x, bias                              gelu(x + bias)
// gelu backward       x, bias, dy                          dx, dbias, gelu(x + bias)
//
// Absent: bias, keep (a value an image), the last two results of the backward passes.
struct Pass {
    int64_t kind, dtype;  // dtype: 0 float32, 1 float64
    int64_t batch, positions, channels, threads;
    int64_t size[3], kernel[3], subtract, backward;  // pooling: axes (z, y, x)
    double eps;
    void* in[4];
    void* out[3];
};

// What tasks found, to be added up in an order that does not depend on threads. A task is a run of positions of an image.
struct Parts {
    int64_t rows, tasks;  // positions of a task, tasks of an image
    double* moments;      // (batch, tasks, 2): mean, sum of squared differences
    double* image;        // (batch, 2): mean and inverse deviation, or the two means of a norm's gradient
    void* sums;           // (batch, tasks, 2, channels) of the pass' type
};

using StepFn = void (*)(const Pass*, const Parts*, int64_t image, int64_t task, void* scratch);

struct Passes {
    const char* name;
    StepFn first[kKinds][2], second[kKinds][2];  // second: after the sums were added up
};

}  // namespace mixlab

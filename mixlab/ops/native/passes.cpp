// Passes over maps: threads, and the sums over tasks. The instruction set is the one that dispatch.cpp chose.
#include "passes.h"

#include "threads.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

extern "C" const char* mixlab_isa();

namespace mixlab {
extern const Passes passes_portable;
#ifdef MIXLAB_X86
extern const Passes passes_avx2, passes_avx512;
#endif
namespace {

const Passes& chosen() {
#ifdef MIXLAB_X86
    const char* name = mixlab_isa();
    if (!strcmp(name, "avx512")) return passes_avx512;
    if (!strcmp(name, "avx2")) return passes_avx2;
#endif
    return passes_portable;
}

constexpr int64_t kRun = 4096;     // elements of a task: they stay in the first-level cache between two readings
constexpr int64_t kSumRows = 64;   // positions of a task that adds up channels: the sums are few beside them
constexpr int64_t kGrain = 32768;  // elements that are worth a thread

size_t item(const Pass& p) { return p.dtype == 1 ? 8 : 4; }
bool adds_up(const Pass& p) { return p.kind == kNormBackward || p.kind == kResidualBackward || p.kind == kGeluBackward; }

int64_t scratch_bytes(const Pass& p) {  // of a thread: see pool()
    if (p.kind != kPool) return 0;
    const int64_t row = (p.size[2] + p.kernel[2] - 1) * p.channels, lines = p.kernel[0] * p.kernel[1];
    return ((row + lines) * item(p) + lines * sizeof(void*) + 63) / 64 * 64;
}

void each(const Pass& p, const Parts& parts, StepFn step) {
    const int64_t n = p.batch * parts.tasks, work = p.batch * p.positions * p.channels / kGrain;
    const int threads = int(std::max<int64_t>(1, std::min({p.threads, n, work})));
    const int64_t bytes = scratch_bytes(p);
    std::vector<char> scratch(bytes * threads);
    on_threads(threads, [&](int me, int all) {
        for (int64_t i = n * me / all; i < n * (me + 1) / all; i++)
            step(&p, &parts, i / parts.tasks, i % parts.tasks, scratch.data() + me * bytes);
    });
}

// Means and inverse deviations from those of all tasks (Chan et al., 1979).
template <class T>
void add_moments(const Pass& p, const Parts& parts) {
    for (int64_t b = 0; b < p.batch; b++) {
        double n = 0, mean = 0, squares = 0;
        for (int64_t t = 0; t < parts.tasks; t++) {
            const double* m = parts.moments + (b * parts.tasks + t) * 2;
            const double more = double(std::min(parts.rows, p.positions - t * parts.rows) * p.channels);
            const double apart = m[0] - mean;
            mean += apart * more / (n + more);
            squares += m[1] + apart * apart * n * more / (n + more);
            n += more;
        }
        parts.image[2 * b] = mean, parts.image[2 * b + 1] = 1.0 / std::sqrt(squares / n + p.eps);
        for (int i = 0; i < 2; i++) ((T*)p.out[1])[2 * b + i] = T(parts.image[2 * b + i]);
    }
}

// Gradients of a pass' vectors from those of its tasks; for a norm, what the gradient of its map needs as well.
template <class T>
void add_sums(const Pass& p, const Parts& parts) {
    const int64_t C = p.channels, sums = p.kind == kNormBackward ? 2 : 1;
    std::vector<double> total(2 * C), image(2 * C);
    for (int64_t b = 0; b < p.batch; b++) {
        std::fill(image.begin(), image.end(), 0.0);
        for (int64_t t = 0; t < parts.tasks; t++) {
            const T* from = (const T*)parts.sums + (b * parts.tasks + t) * 2 * C;
            for (int64_t c = 0; c < sums * C; c++) image[c] += from[c];
        }
        for (int64_t c = 0; c < sums * C; c++) total[c] += image[c];
        if (p.kind != kNormBackward) continue;
        double slope = 0, level = 0;
        for (int64_t c = 0; c < C; c++) slope += image[c] * ((T*)p.in[1])[c], level += image[C + c] * ((T*)p.in[1])[c];
        const double n = double(p.positions * C);
        parts.image[2 * b] = slope / n, parts.image[2 * b + 1] = level / n;
    }
    for (int64_t i = 0; i < sums; i++)
        for (int64_t c = 0; c < C && p.out[1 + i]; c++) ((T*)p.out[1 + i])[c] = T(total[i * C + c]);
}

void run(const Pass& p) {
    const Passes& passes = chosen();
    const int type = p.dtype == 1;
    Parts parts{};
    const int64_t rows = adds_up(p) ? kSumRows : std::max<int64_t>(1, kRun / p.channels);
    parts.rows = p.kind == kPool ? p.size[2] : std::min(rows, p.positions);
    parts.tasks = (p.positions + parts.rows - 1) / parts.rows;
    std::vector<double> moments(p.kind == kNorm ? p.batch * parts.tasks * 2 : 0), image(2 * p.batch);
    std::vector<char> sums(adds_up(p) ? p.batch * parts.tasks * 2 * p.channels * item(p) : 0);
    parts.moments = moments.data(), parts.image = image.data(), parts.sums = sums.data();
    each(p, parts, passes.first[p.kind][type]);
    if (p.kind == kNorm) type ? add_moments<double>(p, parts) : add_moments<float>(p, parts);
    if (adds_up(p)) type ? add_sums<double>(p, parts) : add_sums<float>(p, parts);
    if (passes.second[p.kind][type]) each(p, parts, passes.second[p.kind][type]);
}
}  // namespace
}  // namespace mixlab

#define MIXLAB_API extern "C" __attribute__((visibility("default")))
MIXLAB_API int64_t mixlab_pass_bytes() { return sizeof(mixlab::Pass); }
MIXLAB_API int mixlab_pass(const mixlab::Pass* p) {  // 1: out of memory
    try {
        mixlab::run(*p);
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

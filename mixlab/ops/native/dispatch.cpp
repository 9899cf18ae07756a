// The library's C interface: chooses an instruction set, runs tasks on threads, adds up their partial gradients.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "abi.h"
#include "plan.h"
#include "threads.h"

#define MIXLAB_API extern "C" __attribute__((visibility("default")))

namespace mixlab {
extern const Kernels kernels_portable;
#ifdef MIXLAB_X86
extern const Kernels kernels_avx2, kernels_avx512;
#endif
namespace {

const Kernels* usable(const char* name) {  // nullptr: this machine has it not
#ifdef MIXLAB_X86
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    if (avx512 && !strcmp(name, "avx512")) return &kernels_avx512;
    if (avx2 && !strcmp(name, "avx2")) return &kernels_avx2;
#endif
    return strcmp(name, "portable") ? nullptr : &kernels_portable;
}

const Kernels* choose() {
    const char* wanted = getenv("MIXLAB_NATIVE_ISA");
    if (wanted && usable(wanted)) return usable(wanted);
    for (const char* name : {"avx512", "avx2"})
        if (usable(name)) return usable(name);
    return &kernels_portable;
}

const Kernels*& chosen() {
    static const Kernels* kernels = choose();
    return kernels;
}

// Scratch memory that a thread keeps between calls, unless it is large.
struct Scratch {
    void* data = nullptr;
    size_t size = 0;
    void* need(size_t bytes) {
        if (bytes <= size) return data;
        free(data);
        size = (bytes + 4095) / 4096 * 4096;
        data = aligned_alloc(4096, size);
        if (!data) size = 0;
        return data;
    }
    void trim() {
        if (size > (size_t(4) << 20)) free(data), data = nullptr, size = 0;
    }
    ~Scratch() { free(data); }
};
thread_local Scratch scratch;

// Images side by side share masked lanes, and 0 * inf is not 0. So where anything is not finite, each image goes again
// alone: no image's numbers depend on another's.
// Returns whether the scratch memory is as a task of this shape leaves it.
bool run_task(const Problem& p, const Task& t, TaskFn task, size_t each, bool alike, void* memory) {
    if (!task(&p, &t, alike, memory) || t.segments == 1) return true;
    if (t.part_bias) memset(t.part_bias, 0, sizeof(double) * each);
    const int64_t extra = p.extra * p.d;
    for (int64_t i = 0; i < t.segments; i++) {
        Segment s = t.segment[i];
        s.column = 0;
        Task one = t;
        one.segment = &s, one.segments = 1, one.columns = s.length;  // as many vectors: scratch was sized for them
        if (t.part_ek) one.part_ek = t.part_ek + i * extra, one.part_ev = t.part_ev + i * extra;
        task(&p, &one, false, memory);
    }
    return false;
}

// Whether two tasks differ in nothing but where their rows are.
bool same_shape(const Task& a, const Task& b) {
    if (a.depth != b.depth || a.height != b.height || a.columns != b.columns || a.segments != b.segments) return false;
    for (int64_t i = 0; i < a.segments; i++)
        if (a.segment[i].column != b.segment[i].column || a.segment[i].length != b.segment[i].length) return false;
    return a.reach == b.reach;
}

template <class T>
void add_partials(const Plan& plan) {
    const Problem& p = plan.problem;
    const int64_t extra = plan.extra_part();
    std::vector<double> bias(p.heads * plan.bias_part()), k(p.batch * p.heads * extra), v(k.size());
    for (const Task& t : plan.tasks) {
        for (int64_t o = 0; o < plan.bias_part(); o++) bias[t.head * plan.offsets + o] += t.part_bias[o];
        for (int64_t i = 0; i < t.segments && extra; i++)
            for (int64_t j = 0; j < extra; j++) {
                const int64_t at = (t.segment[i].batch * p.heads + t.head) * extra + j;
                k[at] += t.part_ek[i * extra + j], v[at] += t.part_ev[i * extra + j];
            }
    }
    for (size_t i = 0; i < bias.size(); i++) ((T*)p.dbias.data)[i] = T(bias[i]);
    for (size_t i = 0; i < k.size(); i++) ((T*)p.dek.data)[i] = T(k[i]), ((T*)p.dev.data)[i] = T(v[i]);
}

int run(const Problem& given, bool backward) {
    const Kernels& kernels = *chosen();
    const int type = given.dtype == 1, item = type ? 8 : 4;
    const Plan plan(given, kernels.vector_bytes / item, backward);
    const Problem& p = plan.problem;
    const int64_t n = plan.tasks.size();
    size_t bytes = 0;
    for (const Task& t : plan.tasks) bytes = std::max(bytes, kernels.scratch[type](&p, &t, backward));
    const TaskFn task = backward ? kernels.backward[type] : kernels.forward[type];
    std::atomic<int64_t> next{0};
    on_threads(int(std::min(p.threads, n)), [&](int, int) {
        void* memory = n ? scratch.need(bytes) : nullptr;
        const Task* before = nullptr;
        for (int64_t i; memory && (i = next++) < n;) {
            const Task& t = plan.tasks[i];
            const bool alike = before && same_shape(*before, t);
            before = run_task(p, t, task, plan.bias_part(), alike, memory) ? &t : nullptr;
        }
        scratch.trim();
    });
    if (next < n) return 1;  // no thread had memory; where one had, it did the work of all
    if (backward) type ? add_partials<double>(plan) : add_partials<float>(plan);
    return 0;
}

int guarded(const Problem* p, bool backward) {
    try {
        return run(*p, backward);
    } catch (const std::bad_alloc&) {
        return 1;
    }
}
}  // namespace
}  // namespace mixlab

MIXLAB_API int64_t mixlab_problem_bytes() { return sizeof(mixlab::Problem); }
MIXLAB_API const char* mixlab_isa() { return mixlab::chosen()->name; }
MIXLAB_API int mixlab_set_isa(const char* name) {  // 1: not on this machine
    const mixlab::Kernels* kernels = mixlab::usable(name);
    if (kernels) mixlab::chosen() = kernels;
    return !kernels;
}
MIXLAB_API int mixlab_forward(const mixlab::Problem* p) { return mixlab::guarded(p, false); }  // 1: out of memory
MIXLAB_API int mixlab_backward(const mixlab::Problem* p) { return mixlab::guarded(p, true); }
MIXLAB_API int64_t mixlab_scratch_bytes(const mixlab::Problem* p, int backward) {  // a thread
    const mixlab::Kernels& kernels = *mixlab::chosen();
    const int type = p->dtype == 1;
    const mixlab::Plan plan(*p, kernels.vector_bytes / (type ? 8 : 4), backward);
    size_t bytes = 0;
    for (const auto& t : plan.tasks) bytes = std::max(bytes, kernels.scratch[type](&plan.problem, &t, backward));
    return bytes;
}

// Threads: OpenMP's where the compiler has it, PyTorch's own pool then; otherwise the standard library's, as on macOS,
// where a second OpenMP beside PyTorch's ends the process.
#pragma once
#ifdef _OPENMP
#include <omp.h>
#else
#include <thread>
#include <vector>
#endif

namespace mixlab {

// body(me, all) on each of `all` threads, at most n.
template <class Body>
void on_threads(int n, const Body& body) {
    if (n <= 1) return body(0, 1);
#ifdef _OPENMP
#pragma omp parallel num_threads(n)
    body(omp_get_thread_num(), omp_get_num_threads());
#else
    std::vector<std::thread> others;
    others.reserve(n - 1);
    int me = 1;
    try {
        for (; me < n; me++) others.emplace_back([&body, me, n] { body(me, n); });
    } catch (...) {  // no more threads, or no memory for them: their work is done here
    }
    for (; me < n; me++) body(me, n);
    body(0, n);
    for (std::thread& one : others) one.join();
#endif
}

}  // namespace mixlab

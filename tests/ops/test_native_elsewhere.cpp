// One call of the native library for another process, perhaps on another kind of machine: a problem and its tensors from
// standard input, the tensors back to standard output. See test_native_elsewhere.py.
#include <cstdio>
#include <vector>

#include "abi.h"

extern "C" int mixlab_forward(const mixlab::Problem*);
extern "C" int mixlab_backward(const mixlab::Problem*);

static bool get(void* to, size_t bytes) { return fread(to, 1, bytes, stdin) == bytes; }
static bool put(const void* from, size_t bytes) { return fwrite(from, 1, bytes, stdout) == bytes; }

int main() {
    int64_t backward, count;
    mixlab::Problem problem;
    if (!get(&backward, 8) || !get(&problem, sizeof problem) || !get(&count, 8)) return 1;
    std::vector<std::vector<char>> tensors(count);
    for (auto& tensor : tensors) {
        int64_t place, bytes;
        if (!get(&place, 8) || !get(&bytes, 8)) return 1;
        tensor.resize(bytes);
        if (!get(tensor.data(), bytes)) return 1;
        (&problem.q)[place].data = tensor.data();
    }
    if (backward ? mixlab_backward(&problem) : mixlab_forward(&problem)) return 1;
    for (const auto& tensor : tensors)
        if (!put(tensor.data(), tensor.size())) return 1;
    return 0;
}

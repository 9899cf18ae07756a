// One instruction set's passes over maps: pooling, norm, residual, GELU. Compiled several times; MIXLAB_ISA names the copy.
//
// Each reads its map once or twice, where a chain of tensor operations makes three to six passes. Everything below has
// internal linkage, as in kernel.inc.cpp.
#include <cstddef>
#include <cstdint>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include "passes.h"

namespace mixlab {
namespace {
#include "vector.inc.h"

#define LAMBDA __attribute__((always_inline))

// n elements of a vector, the others 0.
template <class T>
INLINE Vec<T> get(const T* p, int64_t n = kLanes<T>) {
    if (n >= kLanes<T>) return load(p);
    Vec<T> v = {};
    __builtin_memcpy(&v, p, n * sizeof(T));
    return v;
}
template <class T>
INLINE void put(T* p, Vec<T> v, int64_t n = kLanes<T>) {
    if (n >= kLanes<T>) store(p, v);
    else __builtin_memcpy(p, &v, n * sizeof(T));
}

// f(i, n) for vectors of n elements from i on; only the last may be shorter than the others.
template <class T, class F>
INLINE void vectors(int64_t length, F f) {
    constexpr int L = kLanes<T>;
    int64_t i = 0;
    for (; i + L <= length; i += L) f(i, int64_t(L));
    if (i < length) f(i, length - i);
}

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// A task's part of a map and of its vectors.
template <class T>
struct Run {
    const Pass& p;
    int64_t channels, rows, at;
    T* sums;
    Run(const Pass& pass, const Parts& parts, int64_t image, int64_t task) : p(pass), channels(pass.channels) {
        const int64_t first = task * parts.rows;
        rows = least(parts.rows, p.positions - first), at = (image * p.positions + first) * channels;
        sums = (T*)parts.sums + (image * parts.tasks + task) * 2 * channels;
    }
    const T* map(int i) const { return (const T*)p.in[i] + at; }
    const T* vector(int i) const { return (const T*)p.in[i]; }
    T* to(int i) const { return p.out[i] ? (T*)p.out[i] + at : nullptr; }
};

// --- Pooling: the mean over the window's positions inside the image, minus the position itself. A task is a row.

INLINE int64_t neighbours(int64_t i, int64_t n, int64_t k) {  // of i along an axis
    return least(n, i + k / 2 + 1) - (i > k / 2 ? i - k / 2 : 0);
}

// From the sums over the window's rows, with half a window of zeros at both ends, to one row of results.
template <class T, int K>
INLINE void pool_row(const Pass& p, const T* sum, const T* x, T* y, T rows) {
    const int64_t C = p.channels, W = p.size[2], k = K ? K : p.kernel[2];
    const T minus = p.subtract ? T(1) : T(0);
    for (int64_t i = 0; i < W; i++, sum += C, x += C, y += C) {
        const T f = p.backward ? T(1) : T(1) / (rows * T(neighbours(i, W, k)));
        vectors<T>(C, [&](int64_t c, int64_t n) LAMBDA {
            Vec<T> a = get(sum + c, n);
            for (int64_t j = 1; j < k; j++) a += get(sum + j * C + c, n);
            put(y + c, a * f - get(x + c, n) * minus, n);
        });
    }
}

// The gradient is the same sum over gradients that were divided by their own windows' sizes.
template <class T>
static void pool(const Pass* pass, const Parts*, int64_t image, int64_t task, void* scratch) {
    const Pass& p = *pass;
    const int64_t C = p.channels, D = p.size[0], H = p.size[1], W = p.size[2], row = W * C, edge = p.kernel[2] / 2 * C;
    const int64_t z = task / H, y = task % H, rz = p.kernel[0] / 2, ry = p.kernel[1] / 2;
    const int64_t z0 = z > rz ? z - rz : 0, z1 = least(D, z + rz + 1), y0 = y > ry ? y - ry : 0, y1 = least(H, y + ry + 1);
    const int64_t first = image * p.positions * C, at = first + task * row, lines = (z1 - z0) * (y1 - y0);
    const T* x = (const T*)p.in[0];
    const T** line = (const T**)scratch;
    T *weight = (T*)(line + lines), *sum = weight + lines;
    int64_t i = 0;
    for (int64_t v = z0; v < z1; v++)
        for (int64_t u = y0; u < y1; u++, i++) {
            line[i] = x + first + (v * H + u) * row;
            weight[i] = p.backward ? T(1) / T(neighbours(v, D, p.kernel[0]) * neighbours(u, H, p.kernel[1])) : T(1);
        }
    __builtin_memset(sum, 0, edge * sizeof(T));
    __builtin_memset(sum + edge + row, 0, edge * sizeof(T));
    vectors<T>(row, [&](int64_t c, int64_t n) LAMBDA {
        Vec<T> a = get(line[0] + c, n) * weight[0];
        for (int64_t j = 1; j < lines; j++) a += get(line[j] + c, n) * weight[j];
        put(sum + edge + c, a, n);
    });
    for (i = 0; p.backward && i < W; i++) {
        T* s = sum + edge + i * C;
        const T f = T(1) / T(neighbours(i, W, p.kernel[2]));
        vectors<T>(C, [&](int64_t c, int64_t n) LAMBDA { put(s + c, get(s + c, n) * f, n); });
    }
    T* to = (T*)p.out[0] + at;
    if (p.kernel[2] == 3) pool_row<T, 3>(p, sum, x + at, to, T(lines));
    else pool_row<T, 0>(p, sum, x + at, to, T(lines));
}

// --- GroupNorm with one group.

// Mean and sum of squared differences of a run: two readings, the second from the first-level cache; no cancellation.
template <class T>
static void moments(const Pass* p, const Parts* parts, int64_t image, int64_t task, void*) {
    constexpr int L = kLanes<T>;
    const Run<T> r(*p, *parts, image, task);
    const int64_t n = r.rows * r.channels;
    const T* x = r.map(0);
    const auto total = [&](T shift, bool square) LAMBDA {
        Vec<T> a[4] = {};
        const auto term = [&](Vec<T> v) LAMBDA { return square ? (v - shift) * (v - shift) : v; };
        int64_t i = 0;
        for (; i + 4 * L <= n; i += 4 * L)
            for (int j = 0; j < 4; j++) a[j] += term(load(x + i + j * L));
        for (; i + L <= n; i += L) a[0] += term(load(x + i));
        a[0] = (a[0] + a[1]) + (a[2] + a[3]);
        double s = 0;
        for (int j = 0; j < L; j++) s += a[0][j];
        for (; i < n; i++) s += square ? (x[i] - shift) * (x[i] - shift) : x[i];
        return s;
    };
    const double mean = total(T(0), false) / double(n);
    const T near = T(mean);
    const double off = mean - near;
    double* m = parts->moments + (image * parts->tasks + task) * 2;
    m[0] = mean, m[1] = total(near, true) - n * off * off;
}

template <class T>
static void normalise(const Pass* p, const Parts* parts, int64_t image, int64_t task, void*) {
    const Run<T> r(*p, *parts, image, task);
    const T mean = T(parts->image[2 * image]), f = T(parts->image[2 * image + 1]);
    const T *w = r.vector(1), *b = r.vector(2), *x = r.map(0);
    T* y = r.to(0);
    for (int64_t i = 0; i < r.rows; i++, x += r.channels, y += r.channels)
        vectors<T>(r.channels, [&](int64_t c, int64_t n) LAMBDA {
            const Vec<T> v = (get(x + c, n) - mean) * f * get(w + c, n);
            put(y + c, b ? v + get(b + c, n) : v, n);
        });
}

// Two sums over a run's positions for every channel: each(i, c, n, a, b) adds element i of channel c to them. They lie in
// the first-level cache; the map is read in its order, as hardware foresees.
template <class T, class F>
INLINE void column_sums(const Run<T>& r, F each) {
    for (int64_t i = 0; i < r.rows; i++)
        vectors<T>(r.channels, [&](int64_t c, int64_t n) LAMBDA {
            Vec<T> a = get(r.sums + c, n), b = get(r.sums + r.channels + c, n);
            each(i * r.channels + c, c, n, a, b);
            put(r.sums + c, a, n), put(r.sums + r.channels + c, b, n);
        });
}

template <class T>
static void norm_sums(const Pass* p, const Parts* parts, int64_t image, int64_t task, void*) {
    const Run<T> r(*p, *parts, image, task);
    const T mean = r.vector(2)[2 * image], f = r.vector(2)[2 * image + 1];
    const T *x = r.map(0), *g = r.map(3);
    column_sums(r, [&](int64_t i, int64_t, int64_t n, Vec<T>& a, Vec<T>& b) LAMBDA {
        const Vec<T> d = get(g + i, n);
        a += d * ((get(x + i, n) - mean) * f), b += d;
    });
}

template <class T>
static void norm_gradient(const Pass* p, const Parts* parts, int64_t image, int64_t task, void*) {
    const Run<T> r(*p, *parts, image, task);
    const T mean = r.vector(2)[2 * image], f = r.vector(2)[2 * image + 1];
    const T slope = T(parts->image[2 * image]) * f, level = T(parts->image[2 * image + 1]);
    const T *w = r.vector(1), *x = r.map(0), *g = r.map(3);
    T* d = r.to(0);
    for (int64_t i = 0; i < r.rows; i++, x += r.channels, g += r.channels, d += r.channels)
        vectors<T>(r.channels, [&](int64_t c, int64_t n) LAMBDA {
            put(d + c, (get(g + c, n) * get(w + c, n) - (get(x + c, n) - mean) * slope - level) * f, n);
        });
}

// --- Residual: x + keep scale y, keep a factor an image.

template <class T>
static void residual(const Pass* p, const Parts* parts, int64_t image, int64_t task, void*) {
    const Run<T> r(*p, *parts, image, task);
    const T keep = p->in[3] ? r.vector(3)[image] : T(1);
    const T *s = r.vector(2), *x = r.map(0), *y = r.map(1);
    T* z = r.to(0);
    for (int64_t i = 0; i < r.rows; i++, x += r.channels, y += r.channels, z += r.channels)
        vectors<T>(r.channels, [&](int64_t c, int64_t n) LAMBDA {
            put(z + c, get(x + c, n) + get(y + c, n) * (get(s + c, n) * keep), n);
        });
}

template <class T>
static void residual_gradient(const Pass* p, const Parts* parts, int64_t image, int64_t task, void*) {
    const Run<T> r(*p, *parts, image, task);
    const T keep = p->in[2] ? r.vector(2)[image] : T(1);
    const T *y = r.map(0), *s = r.vector(1), *g = r.map(3);
    T* d = r.to(0);
    column_sums(r, [&](int64_t i, int64_t c, int64_t n, Vec<T>& a, Vec<T>&) LAMBDA {
        const Vec<T> v = get(g + i, n) * keep;
        a += v * get(y + i, n);
        put(d + i, v * get(s + c, n), n);
    });
}

// --- GELU of x + bias: (x + bias) times the normal distribution function.

// The distribution function with error 1.5e-7: 1/2 + x p(x²) to |x| = 5.2, a polynomial in 2 (x / 5.2)² - 1 fitted to the
// least maximum of its error.
INLINE Vec<float> normal(Vec<float> x) {
    constexpr float c[14] = {1.359499930e-01f,  -6.774366748e-02f, 5.002452135e-02f,  -3.992981956e-02f, 3.198995929e-02f,
                             -2.472362960e-02f, 1.795478687e-02f,  -1.250512092e-02f, 8.559967785e-03f,  -4.789039134e-03f,
                             1.800122663e-03f,  -1.221493545e-03f, 1.268511028e-03f,  -4.812771799e-04f};
    constexpr float edge = 5.2f;
    Vec<float> u = x > edge ? all(edge) : x;
    u = u < -edge ? all(-edge) : u;
    const Vec<float> s = u * u * (2.0f / (edge * edge)) - 1.0f;
    Vec<float> q = all(c[13]);
    for (int i = 12; i >= 0; i--) q = q * s + c[i];
    q = u * q + 0.5f;
    return x < -edge ? Vec<float>{} : q;  // exactly 0: it meets factors of any size
}

template <class T>
static void gelu(const Pass* p, const Parts* parts, int64_t image, int64_t task, void*) {
    const Run<T> r(*p, *parts, image, task);
    const T *b = r.vector(1), *x = r.map(0);
    T* y = r.to(0);
    for (int64_t i = 0; i < r.rows; i++, x += r.channels, y += r.channels)
        vectors<T>(r.channels, [&](int64_t c, int64_t n) LAMBDA {
            const Vec<T> v = b ? get(x + c, n) + get(b + c, n) : get(x + c, n);
            put(y + c, v * normal(v), n);
        });
}

template <class T>
static void gelu_gradient(const Pass* p, const Parts* parts, int64_t image, int64_t task, void*) {
    constexpr float kLog2e = 1.44269504088896341f, kDensity = 0.398942280401432678f;  // 1 / sqrt(2 pi)
    const Run<T> r(*p, *parts, image, task);
    const T *b = r.vector(1), *x = r.map(0), *g = r.map(2);
    T *d = r.to(0), *y = r.to(2);
    column_sums(r, [&](int64_t i, int64_t c, int64_t n, Vec<T>& a, Vec<T>&) LAMBDA {
        const Vec<T> v = b ? get(x + i, n) + get(b + c, n) : get(x + i, n), q = normal(v);
        const Vec<T> h = get(g + i, n) * (q + v * (exp2v<T>(v * v * (-0.5f * kLog2e)) * kDensity));
        put(d + i, h, n);
        if (y) put(y + i, v * q, n);
        a += h;
    });
}
}  // namespace

#define MIXLAB_JOIN2(a, b) a##b
#define MIXLAB_JOIN(a, b) MIXLAB_JOIN2(a, b)
#define MIXLAB_STRING2(a) #a
#define MIXLAB_STRING(a) MIXLAB_STRING2(a)
#define BOTH(f) {f<float>, f<double>}
extern const Passes MIXLAB_JOIN(passes_, MIXLAB_ISA);
const Passes MIXLAB_JOIN(passes_, MIXLAB_ISA) = {
    MIXLAB_STRING(MIXLAB_ISA),
    {BOTH(pool), BOTH(moments), BOTH(norm_sums), BOTH(residual), BOTH(residual_gradient), {gelu<float>, nullptr},
     {gelu_gradient<float>, nullptr}},
    {{}, BOTH(normalise), BOTH(norm_gradient), {}, {}, {}, {}},
};
}  // namespace mixlab

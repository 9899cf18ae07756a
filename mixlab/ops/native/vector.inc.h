// Vectors through the compiler's extensions. The includer sets MIXLAB_VECTOR_BYTES, MIXLAB_ROWS and MIXLAB_ISA, and includes
// immintrin.h before, outside its namespace.
//
// -ffast-math is forbidden here: it deletes the rounding by a magic number in exp2v.

template <class T>
struct Types;
template <>
struct Types<float> {
    typedef float V __attribute__((vector_size(MIXLAB_VECTOR_BYTES)));
    typedef float U __attribute__((vector_size(MIXLAB_VECTOR_BYTES), aligned(4), may_alias));
    typedef int32_t I __attribute__((vector_size(MIXLAB_VECTOR_BYTES)));
};
template <>
struct Types<double> {
    typedef double V __attribute__((vector_size(MIXLAB_VECTOR_BYTES)));
    typedef double U __attribute__((vector_size(MIXLAB_VECTOR_BYTES), aligned(8), may_alias));
    typedef int64_t I __attribute__((vector_size(MIXLAB_VECTOR_BYTES)));
};

template <class T>
using Vec = typename Types<T>::V;
template <class T>
constexpr int kLanes = MIXLAB_VECTOR_BYTES / int(sizeof(T));
constexpr int kRows = MIXLAB_ROWS;  // query rows that share every load of a key
#define INLINE static inline __attribute__((always_inline))

template <class T>
INLINE Vec<T> load(const T* p) {
    return *(const typename Types<T>::U*)p;
}
template <class T>
INLINE void store(T* p, Vec<T> v) {
    *(typename Types<T>::U*)p = v;
}
#ifdef __AVX512F__
INLINE Vec<float> load_some(const float* p, uint32_t lanes) { return _mm512_maskz_loadu_ps(__mmask16(lanes), p); }
INLINE Vec<double> load_some(const double* p, uint32_t lanes) { return _mm512_maskz_loadu_pd(__mmask8(lanes), p); }
INLINE void store_some(float* p, Vec<float> v, uint32_t lanes) { _mm512_mask_storeu_ps(p, __mmask16(lanes), v); }
INLINE void store_some(double* p, Vec<double> v, uint32_t lanes) { _mm512_mask_storeu_pd(p, __mmask8(lanes), v); }
#endif
template <class T>
INLINE Vec<T> all(T x) {
    return x - Vec<T>{};
}
// Keeps a loaded vector in its register: GCC would rather load it again in every multiplication that uses it, and a load
// across cache lines is twice as slow as the multiplication.
#if defined(__x86_64__)
#define PIN(v) asm("" : "+v"(v))
#elif defined(__aarch64__)
#define PIN(v) asm("" : "+w"(v))
#else
#define PIN(v) (void)0
#endif
template <class T>
INLINE Vec<T> maxv(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}

// 2^f on [-1/2, 1/2] with relative error 9.2e-8. It is exactly 1 at 0, as exp2v needs for its exact zeros: anything
// else gives denormal weights, and with them a kernel ten times slower.
INLINE Vec<float> poly(Vec<float> f) {
    Vec<float> p = all(0.00132647271236f);
    p = p * f + 0.00967151264483f;
    p = p * f + 0.055507337435f;
    p = p * f + 0.240222420853f;
    p = p * f + 0.693146977599f;
    return p * f + 1.0f;
}
INLINE Vec<double> poly(Vec<double> f) {  // relative error 3e-18
    const double c[12] = {1.0, 0.69314718055994533, 0.240226506959101562, 0.0555041086648199216, 0.00961812910758833524,
                          0.00133335581467899217, 0.000154035304625144321, 0.0000152527334899885256,
                          1.32154330896763992e-6, 1.01781980216719308e-7, 7.0741056135081428e-9, 4.43528270695727715e-10};
    Vec<double> p = all(c[11]);
    for (int i = 10; i >= 0; i--) p = p * f + c[i];
    return p;
}

template <class T>
struct Bits;
template <>
struct Bits<float> {
    static constexpr float magic = 12582912.0f, lowest = -127.0f;
    static constexpr int mantissa = 23, bias = 127;
};
template <>
struct Bits<double> {
    static constexpr double magic = 6755399441055744.0, lowest = -1023.0;
    static constexpr int mantissa = 52, bias = 1023;
};

// 2^x for x <= 0, exactly 0 where x is below the smallest exponent (a masked key).
template <class T>
INLINE Vec<T> exp2v(Vec<T> x) {
#ifdef __AVX512DQ__
    if constexpr (sizeof(T) == 4) {
        const __m512 f = _mm512_maskz_reduce_ps(0xffff, x, 0x08);  // minus the nearest integer, without exceptions
        return _mm512_maskz_scalef_ps(0xffff, poly(f), _mm512_sub_ps(x, f));
    } else {
        const __m512d f = _mm512_maskz_reduce_pd(0xff, x, 0x08);
        return _mm512_maskz_scalef_pd(0xff, poly(f), _mm512_sub_pd(x, f));
    }
#endif
    typedef typename Types<T>::I I;
    x = x < Bits<T>::lowest ? all(Bits<T>::lowest) : x;
    const Vec<T> t = x + Bits<T>::magic;  // the integer part is now in the low bits
    const Vec<T> f = x - (t - Bits<T>::magic);
    const I n = (I)t << Bits<T>::mantissa;
    return (Vec<T>)((I)poly(f) + n);
}

// log2(x) for normal x.
template <class T>
INLINE Vec<T> log2v(Vec<T> x) {
    typedef typename Types<T>::I I;
    I bits = (I)x;
    I e = (bits >> Bits<T>::mantissa) - Bits<T>::bias;
    Vec<T> m = (Vec<T>)(bits - (e << Bits<T>::mantissa));  // [1, 2)
    const I big = m > all(T(1.41421356237309505));
    e -= big;  // true is -1
    m = big ? m * T(0.5) : m;
    const Vec<T> t = (m - T(1)) / (m + T(1)), t2 = t * t;
    Vec<T> s = all(T(1) / T(sizeof(T) == 4 ? 11 : 25));
    for (int n = sizeof(T) == 4 ? 9 : 23; n >= 1; n -= 2) s = s * t2 + T(1) / T(n);
    return __builtin_convertvector(e, Vec<T>) + s * t * T(2 * 1.44269504088896341);
}

// tanh(x); what is lost for small x is below the last digit of 1.
template <class T>
INLINE Vec<T> tanhv(Vec<T> x) {
    const Vec<T> e = exp2v<T>((x < T(0) ? x : -x) * T(2 * 1.44269504088896341));
    const Vec<T> y = (T(1) - e) / (T(1) + e);
    return x < T(0) ? -y : y;
}

// Between tensors of any strides and virtual rows [channel][column]: the only code that knows a layout.

// Element offset of the first column of a segment's row (z, y) of this task's grid.
INLINE ptrdiff_t row_offset(const Problem& p, const Task& t, const View& v, const Segment& s, int64_t z, int64_t y) {
    return s.batch * v.s[0] + t.head * v.s[1] + (t.rz + z * p.dilation[0]) * v.s[3] +
           (t.ry + y * p.dilation[1]) * v.s[4] + s.rx * v.s[5];
}

// Lines of a row's single positions, far apart, which hardware does not foresee: asked for at once, just before they are
// turned, they are waited for together. Asking rows ahead is slower than not at all.
template <class T>
INLINE void fetch(const T* p, int64_t n, bool write) {
    constexpr int line = 64 / int(sizeof(T));
    if (write) for (int64_t x = 0; x < n; x += line) __builtin_prefetch(p + x, 1, 3);
    else for (int64_t x = 0; x < n; x += line) __builtin_prefetch(p + x, 0, 3);
}

// The lines of a run that will be written. A store to memory reads its line first, and waits for it at last: asked for
// two channels ahead, it is there by then.
constexpr int64_t kWritesAhead = 2;
template <class T>
INLINE void fetch_run(const T* p, int64_t n) {
    for (int64_t x = 0; x < n; x += 64 / int(sizeof(T))) __builtin_prefetch(p + x, 1, 3);
}

// Four by four elements, rows `from` apart, turned to rows `to` apart. Returns 0 times their sum.
template <class T>
INLINE void turn(const T* src, ptrdiff_t from, T* dst, ptrdiff_t to, T f, T* odd) {
    typedef T Q __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));
    const Q a = *(const Q*)src * f, b = *(const Q*)(src + from) * f;
    const Q c = *(const Q*)(src + 2 * from) * f, d = *(const Q*)(src + 3 * from) * f;
    const Q ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), AB = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const Q cd = __builtin_shufflevector(c, d, 0, 4, 1, 5), CD = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(Q*)dst = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(Q*)(dst + to) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    *(Q*)(dst + 2 * to) = __builtin_shufflevector(AB, CD, 0, 1, 4, 5);
    *(Q*)(dst + 3 * to) = __builtin_shufflevector(AB, CD, 2, 3, 6, 7);
    *(Q*)odd += ((a + b) + (c + d)) * T(0);
}

// The same for eight by eight.
template <class T>
INLINE void turn8(const T* src, ptrdiff_t from, T* dst, ptrdiff_t to, T f, T* odd) {
    typedef T Q __attribute__((vector_size(8 * sizeof(T)), aligned(sizeof(T)), may_alias));
    Q a[8], b[8], sum = {};
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) a[i] = *(const Q*)(src + i * from) * f, sum += a[i];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {  // pairs of rows, element by element
        b[i] = __builtin_shufflevector(a[i], a[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
        b[i + 1] = __builtin_shufflevector(a[i], a[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {  // pairs of pairs
        const int i = j / 2 * 4 + j % 2;
        a[i / 4 * 4 + j % 2 * 2] = __builtin_shufflevector(b[i], b[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        a[i / 4 * 4 + j % 2 * 2 + 1] = __builtin_shufflevector(b[i], b[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {  // halves
        *(Q*)(dst + i * to) = __builtin_shufflevector(a[i], a[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
        *(Q*)(dst + (i + 4) * to) = __builtin_shufflevector(a[i], a[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
    *(Q*)odd += sum * T(0);
}

// dst[c * dc + x * dx] = f src[c * sc + x * sx], for the layouts that are not rows on both sides; returns 0 times the sum.
template <class T>
static T transpose(const T* src, ptrdiff_t sc, ptrdiff_t sx, T* dst, ptrdiff_t dc, ptrdiff_t dx, int64_t d, int64_t n, T f) {
    T odd[8] = {};
    int64_t done = 0;
    const bool in = sc == 1 && dx == 1, out = sx == 1 && dc == 1;
    const auto squares = [&](int64_t side, auto turned) {
        if ((!in && !out) || n < side) return;
        for (; done + side <= d; done += side)
            for (int64_t x = 0; x < n; x += side) {
                if (x + side > n) x = n - side;
                const T* from = src + done * sc + x * sx;
                if (in) turned(from, sx, dst + done * dc + x, dc);
                else turned(from, sc, dst + done + x * dx, dx);
            }
    };
    squares(8, [&](const T* from, ptrdiff_t apart, T* to, ptrdiff_t stride) { turn8(from, apart, to, stride, f, odd); });
    squares(4, [&](const T* from, ptrdiff_t apart, T* to, ptrdiff_t stride) { turn(from, apart, to, stride, f, odd); });
    for (; done < d; done++)
        for (int64_t x = 0; x < n; x++) odd[0] += T(0) * (dst[done * dc + x * dx] = src[done * sc + x * sx] * f);
    T sum = 0;
    for (T one : odd) sum += one;
    return sum;
}

// n elements times f to another place; adds 0 times them to `odd`, which stays 0 unless any is not finite. No loop of
// single elements for rows of 56, 28 and 14: the last ones go through a mask, or in overlapping vectors.
template <class T, int BYTES>
INLINE void copy_run(const T* from, T* to, int64_t n, T f, Vec<T>& odd) {
#ifdef __AVX512F__
    const int64_t whole = n / kLanes<T> * kLanes<T>;
    const uint32_t rest = (1u << (n - whole)) - 1;
    for (int64_t i = 0; i < whole; i += kLanes<T>) {
        const Vec<T> v = load(from + i) * f;
        odd += v * T(0);
        store(to + i, v);
    }
    if (!rest) return;
    const Vec<T> v = load_some(from + whole, rest) * f;
    odd += v * T(0);
    store_some(to + whole, v, rest);
#else
    typedef T H __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
    constexpr int L = BYTES / int(sizeof(T));
    if (n >= L) {
        for (int64_t x = 0; x < n; x += L) {
            if (x + L > n) x = n - L;
            const H v = *(const H*)(from + x) * f;
            *(H*)&odd += v * T(0);
            *(H*)(to + x) = v;
        }
        return;
    }
    if constexpr (BYTES / 2 >= 16) return copy_run<T, BYTES / 2>(from, to, n, f, odd);
    for (int64_t x = 0; x < n; x++) odd[0] += T(0) * (to[x] = from[x] * f);
#endif
}

// `rows` rows of a tensor from (z, y) on, `channels` with stride v.s[axis], to dst[row][channel * dc + column]. Rows of
// a planar map are short runs, one channel far from the next: as many rows as possible at a time make the runs long
// enough for hardware to foresee.
template <class T>
static void read_rows(const Problem& p, const Task& t, const View& v, int axis, int64_t channels, int64_t z, int64_t y,
                      int rows, T* const* dst, ptrdiff_t dc, T f, ptrdiff_t extra = 0) {
    const ptrdiff_t sc = v.s[axis], sx = p.dilation[2] * v.s[5], sy = p.dilation[1] * v.s[4];
    Vec<T> odd = {};
    for (int64_t i = 0; i < t.segments; i++) {
        const Segment& s = t.segment[i];
        const T* src = (const T*)v.data + row_offset(p, t, v, s, z, y) + extra;
        if (sx == 1) {
            for (int64_t c = 0; c < channels; c++)
                for (int r = 0; r < rows; r++)
                    copy_run<T, MIXLAB_VECTOR_BYTES>(src + c * sc + r * sy, dst[r] + c * dc + s.column, s.length, f, odd);
            continue;
        }
        for (int r = 0; r < rows; r++) {
            const T* from = src + r * sy;
            if (sc == 1)
                for (int64_t x = 0; x < s.length; x++) fetch(from + x * sx, channels, false);
            transpose<T>(from, sc, sx, dst[r] + s.column, dc, 1, channels, s.length, f);
        }
    }
}

// The reverse; true if any value is not finite.
template <class T>
static bool write_rows(const Problem& p, const Task& t, const View& v, int axis, int64_t channels, int64_t z, int64_t y,
                       int rows, const T* const* src, ptrdiff_t sc, T f, ptrdiff_t extra = 0) {
    const ptrdiff_t dc = v.s[axis], dx = p.dilation[2] * v.s[5], dy = p.dilation[1] * v.s[4];
    Vec<T> odd = {};
    T sum = 0;
    for (int64_t i = 0; i < t.segments; i++) {
        const Segment& s = t.segment[i];
        T* dst = (T*)v.data + row_offset(p, t, v, s, z, y) + extra;
        if (dx == 1) {
            for (int64_t c = 0; c < channels; c++) {
                for (int r = 0; r < rows && c + kWritesAhead < channels; r++)
                    fetch_run(dst + (c + kWritesAhead) * dc + r * dy, s.length);
                for (int r = 0; r < rows; r++)
                    copy_run<T, MIXLAB_VECTOR_BYTES>(src[r] + c * sc + s.column, dst + c * dc + r * dy, s.length, f, odd);
            }
            continue;
        }
        for (int r = 0; r < rows; r++) {
            T* to = dst + r * dy;
            if (dc == 1)
                for (int64_t x = 0; x < s.length; x++) fetch(to + x * dx, channels, true);
            sum += transpose<T>(src[r] + s.column, sc, 1, to, dc, dx, channels, s.length, f);
        }
    }
    for (int i = 0; i < kLanes<T>; i++) sum += odd[i];
    return !(sum == 0);
}

// One row.
template <class T>
static void read_row(const Problem& p, const Task& t, const View& v, int axis, int64_t channels, int64_t z, int64_t y,
                     T* dst, ptrdiff_t dc, T f, ptrdiff_t extra = 0) {
    read_rows<T>(p, t, v, axis, channels, z, y, 1, &dst, dc, f, extra);
}
template <class T>
static bool write_row(const Problem& p, const Task& t, const View& v, int axis, int64_t channels, int64_t z, int64_t y,
                      const T* src, ptrdiff_t sc, T f, ptrdiff_t extra = 0) {
    return write_rows<T>(p, t, v, axis, channels, z, y, 1, &src, sc, f, extra);
}

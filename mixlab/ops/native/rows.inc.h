// Between tensors of any strides and virtual rows [channel][column]: the only code that knows a layout.


// Element offset of the first column of a segment's row (z, y) of this task's grid.
INLINE ptrdiff_t row_offset(const Problem& p, const Task& t, const View& v, const Segment& s, int64_t z, int64_t y) {
    return s.batch * v.s[0] + t.head * v.s[1] + (t.rz + z * p.dilation[0]) * v.s[3] +
           (t.ry + y * p.dilation[1]) * v.s[4] + s.rx * v.s[5];
}

// Channels innermost: dst[c * dc + x] = f src[x * sx + c * sc].
template <class T>
static void transpose_in(const T* src, ptrdiff_t sc, ptrdiff_t sx, T* dst, ptrdiff_t dc, int64_t d, int64_t n, T f) {
    int64_t c = 0;
    for (; c + 4 <= d; c += 4)
        for (int64_t x = 0; x < n; x++) {
            const T* from = src + x * sx + c * sc;
            T* to = dst + c * dc + x;
            to[0] = from[0] * f, to[dc] = from[sc] * f, to[2 * dc] = from[2 * sc] * f, to[3 * dc] = from[3 * sc] * f;
        }
    for (; c < d; c++)
        for (int64_t x = 0; x < n; x++) dst[c * dc + x] = src[x * sx + c * sc] * f;
}

template <class T>
static T transpose_out(const T* src, ptrdiff_t sc, T* dst, ptrdiff_t dc, ptrdiff_t dx, int64_t d, int64_t n, T f) {
    T odd = 0;
    int64_t c = 0;
    for (; c + 4 <= d; c += 4)
        for (int64_t x = 0; x < n; x++) {
            const T* from = src + c * sc + x;
            T* to = dst + x * dx + c * dc;
            const T v0 = from[0] * f, v1 = from[sc] * f, v2 = from[2 * sc] * f, v3 = from[3 * sc] * f;
            to[0] = v0, to[dc] = v1, to[2 * dc] = v2, to[3 * dc] = v3;
            odd += ((v0 + v1) + (v2 + v3)) * T(0);
        }
    for (; c < d; c++)
        for (int64_t x = 0; x < n; x++) odd += T(0) * (dst[x * dx + c * dc] = src[c * sc + x] * f);
    return odd;
}

// n elements times f to another place, the last ones in overlapping vectors: rows of 56, 28 and 14 have no loop of
// single elements. Returns 0 times their sum, which is not 0 if any is not finite.
template <class T, int BYTES>
INLINE T copy_run(const T* from, T* to, int64_t n, T f) {
    typedef T H __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
    constexpr int L = BYTES / int(sizeof(T));
    if (n >= L) {
        H odd = {};
        for (int64_t x = 0; x < n; x += L) {
            if (x + L > n) x = n - L;
            const H v = *(const H*)(from + x) * f;
            odd += v * T(0);
            *(H*)(to + x) = v;
        }
        T sum = 0;
        for (int i = 0; i < L; i++) sum += odd[i];
        return sum;
    }
    if constexpr (BYTES / 2 >= 16) return copy_run<T, BYTES / 2>(from, to, n, f);
    T sum = 0;
    for (int64_t x = 0; x < n; x++) sum += T(0) * (to[x] = from[x] * f);
    return sum;
}

// Rows of a planar map are short runs far apart, which hardware does not foresee: copies took half of the time until
// they went several rows at a time and fetched the next ones ahead.
template <class T>
INLINE void fetch(const T* p, int64_t n, bool write) {
    constexpr int line = 64 / int(sizeof(T));
    if (write) for (int64_t x = 0; x < n; x += line) __builtin_prefetch(p + x, 1, 2);
    else for (int64_t x = 0; x < n; x += line) __builtin_prefetch(p + x, 0, 2);
}

// `rows` rows of a tensor from (z, y) on, `channels` with stride v.s[axis], to dst[row][channel * dc + column].
template <class T>
static void read_rows(const Problem& p, const Task& t, const View& v, int axis, int64_t channels, int64_t z, int64_t y,
                      int rows, T* const* dst, ptrdiff_t dc, T f, ptrdiff_t extra = 0) {
    const ptrdiff_t sc = v.s[axis], sx = p.dilation[2] * v.s[5], sy = p.dilation[1] * v.s[4];
    for (int64_t i = 0; i < t.segments; i++) {
        const Segment& s = t.segment[i];
        const T* src = (const T*)v.data + row_offset(p, t, v, s, z, y) + extra;
        if (sx == 1) {
            for (int64_t c = 0; c < channels; c++)
                for (int r = 0; r < rows; r++) {
                    const T* from = src + c * sc + r * sy;
                    fetch(from + kRows * sy, s.length, false);
                    copy_run<T, MIXLAB_VECTOR_BYTES>(from, dst[r] + c * dc + s.column, s.length, f);
                }
            continue;
        }
        for (int r = 0; r < rows; r++) transpose_in(src + r * sy, sc, sx, dst[r] + s.column, dc, channels, s.length, f);
    }
}

// The reverse; true if any value is not finite.
template <class T>
static bool write_rows(const Problem& p, const Task& t, const View& v, int axis, int64_t channels, int64_t z, int64_t y,
                       int rows, const T* const* src, ptrdiff_t sc, T f, ptrdiff_t extra = 0) {
    const ptrdiff_t dc = v.s[axis], dx = p.dilation[2] * v.s[5], dy = p.dilation[1] * v.s[4];
    T odd = 0;
    for (int64_t i = 0; i < t.segments; i++) {
        const Segment& s = t.segment[i];
        T* dst = (T*)v.data + row_offset(p, t, v, s, z, y) + extra;
        if (dx == 1) {
            for (int64_t c = 0; c < channels; c++)
                for (int r = 0; r < rows; r++) {
                    T* to = dst + c * dc + r * dy;
                    fetch(to + kRows * dy, s.length, true);
                    odd += copy_run<T, MIXLAB_VECTOR_BYTES>(src[r] + c * sc + s.column, to, s.length, f);
                }
            continue;
        }
        for (int r = 0; r < rows; r++)
            odd += transpose_out(src[r] + s.column, sc, dst + r * dy, dc, dx, channels, s.length, f);
    }
    return !(odd == 0);
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

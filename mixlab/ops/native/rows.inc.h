// Between tensors of any strides and virtual rows [channel][column]: the only code that knows a layout.


// Element offset of the first column of a segment's row (z, y) of this task's grid.
INLINE ptrdiff_t row_offset(const Problem& p, const Task& t, const View& v, const Segment& s, int64_t z, int64_t y) {
    return s.batch * v.s[0] + t.head * v.s[1] + (t.rz + z * p.dilation[0]) * v.s[3] +
           (t.ry + y * p.dilation[1]) * v.s[4] + s.rx * v.s[5];
}

template <class T>
static void copy_in(T* dst, ptrdiff_t dc, const T* src, ptrdiff_t sc, ptrdiff_t sx, int64_t d, int64_t n, T f) {
    if (sx == 1) {
        for (int64_t c = 0; c < d; c++) {
            T* to = dst + c * dc;
            const T* from = src + c * sc;
            int64_t x = 0;
            for (; x + kLanes<T> <= n; x += kLanes<T>) store(to + x, load(from + x) * f);
            for (; x < n; x++) to[x] = from[x] * f;
        }
        return;
    }
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

// The reverse; returns something not finite if any value is.
template <class T>
static T copy_out(const T* src, ptrdiff_t sc, T* dst, ptrdiff_t dc, ptrdiff_t dx, int64_t d, int64_t n, T f) {
    Vec<T> odd = {};
    T tail = 0;
    if (dx == 1) {
        for (int64_t c = 0; c < d; c++) {
            T* to = dst + c * dc;
            const T* from = src + c * sc;
            int64_t x = 0;
            for (; x + kLanes<T> <= n; x += kLanes<T>) {
                const Vec<T> v = load(from + x) * f;
                odd += v * T(0);
                store(to + x, v);
            }
            for (; x < n; x++) tail += T(0) * (to[x] = from[x] * f);
        }
        for (int i = 0; i < kLanes<T>; i++) tail += odd[i];
        return tail;
    }
    int64_t c = 0;
    for (; c + 4 <= d; c += 4)
        for (int64_t x = 0; x < n; x++) {
            const T* from = src + c * sc + x;
            T* to = dst + x * dx + c * dc;
            const T v0 = from[0] * f, v1 = from[sc] * f, v2 = from[2 * sc] * f, v3 = from[3 * sc] * f;
            to[0] = v0, to[dc] = v1, to[2 * dc] = v2, to[3 * dc] = v3;
            tail += ((v0 + v1) + (v2 + v3)) * T(0);
        }
    for (; c < d; c++)
        for (int64_t x = 0; x < n; x++) tail += T(0) * (dst[x * dx + c * dc] = src[c * sc + x] * f);
    return tail;
}

// Row (z, y) of a tensor, `channels` with stride `v.s[axis]`, to dst[channel * dc + column].
template <class T>
static void read_row(const Problem& p, const Task& t, const View& v, int axis, int64_t channels, int64_t z, int64_t y, T* dst,
                     ptrdiff_t dc, T f, ptrdiff_t extra = 0) {
    for (int64_t i = 0; i < t.segments; i++) {
        const Segment& s = t.segment[i];
        copy_in(dst + s.column, dc, (const T*)v.data + row_offset(p, t, v, s, z, y) + extra, v.s[axis],
                p.dilation[2] * v.s[5], channels, s.length, f);
    }
}

template <class T>
static bool write_row(const Problem& p, const Task& t, const View& v, int axis, int64_t channels, int64_t z, int64_t y,
                      const T* src, ptrdiff_t sc, T f, ptrdiff_t extra = 0) {
    T odd = 0;
    for (int64_t i = 0; i < t.segments; i++) {
        const Segment& s = t.segment[i];
        odd += copy_out(src + s.column, sc, (T*)v.data + row_offset(p, t, v, s, z, y) + extra, v.s[axis],
                        p.dilation[2] * v.s[5], channels, s.length, f);
    }
    return !(odd == 0);
}

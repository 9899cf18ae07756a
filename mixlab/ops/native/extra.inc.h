// Extra keys: behind the window's entries in the same softmax. Shared keys of one image are broadcast from scalars;
// otherwise they are rows over columns like queries, `each` elements apart for the rows of a block.

template <class T, bool BROADCAST>
INLINE Vec<T> extra_at(const T* p) {
    if constexpr (BROADCAST) return all(*p);
    else return load(p);
}

// out[r][e][lane] = bias[r][e][lane] + sum_c q[r][c][lane] k[r][e][c][lane]
template <class T, bool BROADCAST>
static void extra_scores(const T* q, ptrdiff_t qr, ptrdiff_t stride, int64_t d, const T* k, ptrdiff_t each,
                         ptrdiff_t es, int64_t E, const T* bias, T* const* out, ptrdiff_t oe, int rows) {
    for (int r = 0; r < rows; r++) {
        int64_t e = 0;
        const T* qq = q + r * qr;
        for (; e + 4 <= E; e += 4) {
            const T* kk = k + r * each + e * d * es;
            Vec<T> a = {}, b = {}, c4 = {}, f = {};
            for (int64_t c = 0; c < d; c++) {
                const Vec<T> x = load(qq + c * stride);
                a += x * extra_at<T, BROADCAST>(kk + c * es), b += x * extra_at<T, BROADCAST>(kk + (d + c) * es);
                c4 += x * extra_at<T, BROADCAST>(kk + (2 * d + c) * es);
                f += x * extra_at<T, BROADCAST>(kk + (3 * d + c) * es);
            }
            const Vec<T> s[4] = {a, b, c4, f};
            for (int i = 0; i < 4; i++)
                store(out[r] + (e + i) * oe, bias ? s[i] + load(bias + (r * E + e + i) * stride) * T(kLog2e) : s[i]);
        }
        for (; e < E; e++) {
            const T* kk = k + r * each + e * d * es;
            Vec<T> a = {}, b = {};
            int64_t c = 0;
            for (; c + 2 <= d; c += 2) {
                a += load(qq + c * stride) * extra_at<T, BROADCAST>(kk + c * es);
                b += load(qq + (c + 1) * stride) * extra_at<T, BROADCAST>(kk + (c + 1) * es);
            }
            if (c < d) a += load(qq + c * stride) * extra_at<T, BROADCAST>(kk + c * es);
            a += b;
            store(out[r] + e * oe, bias ? a + load(bias + (r * E + e) * stride) * T(kLog2e) : a);
        }
    }
}

// out[r][c][lane] = sum_e p[r][e][lane] v[r][e][c][lane]
template <class T, bool BROADCAST>
static void extra_sum(T* const* p, ptrdiff_t pe, const T* v, ptrdiff_t each, ptrdiff_t es, int64_t E, int64_t d, T* out, ptrdiff_t orow,
                      ptrdiff_t stride, int rows) {
    for (int r = 0; r < rows; r++)
        for (int64_t c = 0; c < d; c++) {
            const T* vv = v + r * each + c * es;
            Vec<T> a = {};
            for (int64_t e = 0; e < E; e++) a += load(p[r] + e * pe) * extra_at<T, BROADCAST>(vv + e * d * es);
            store(out + r * orow + c * stride, a);
        }
}

// Gradient of extra keys: g[e][c] += sum_r s[r][e] x[r][c] when shared, g[r][e][c] = s[r][e] x[r][c] when not.
template <class T>
static void extra_gradient(T* const* s, ptrdiff_t se, const T* x, ptrdiff_t xr, ptrdiff_t stride, int64_t d, int64_t E, T* g,
                           ptrdiff_t gs, bool shared, int rows) {
    for (int64_t e = 0; e < E; e++)
        for (int64_t c = 0; c < d; c++) {
            Vec<T> a = {};
            for (int r = 0; r < rows; r++) {
                const Vec<T> one = load(s[r] + e * se) * load(x + r * xr + c * stride);
                if (shared) a += one;
                else store(g + ((r * E + e) * d + c) * gs, one);
            }
            if (shared) store(g + (e * d + c) * gs, load(g + (e * d + c) * gs) + a);
        }
}

// Shared keys of this task's images into scratch, once a task.
template <class T>
static void read_shared(const Problem& p, const Task& t, const View& v, const Work<T>& w, T* dst) {
    for (int64_t i = 0; i < t.segments; i++) {
        const Segment& s = t.segment[i];
        const T* src = (const T*)v.data + s.batch * v.s[0] + t.head * v.s[1];
        for (int64_t e = 0; e < w.E; e++)
            for (int64_t c = 0; c < w.d; c++) {
                const T x = src[e * v.s[6] + c * v.s[2]];
                T* to = dst + (e * w.d + c) * w.estride;
                if (w.broadcast) *to = x;
                else for (int64_t j = 0; j < s.length; j++) to[s.column + j] = x;
            }
    }
}

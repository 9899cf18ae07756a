// The two inner loops. Everything else is bookkeeping around them.
//
// Both vectorise over adjacent columns, so no sum runs across a vector, and both hold a block of results in registers:
// a load of keys at x + dx straddles two cache lines, so it has to serve several query rows at once.

// Scores of `nr` query rows against one row of keys, `NX` adjacent offsets dx:
// out[r][j][lane] = mask[j][lane] + bias[r][j] + sum_c q[r][c][lane] k[c][lane + j]
// D: the number of channels, 0 if it is not known before.
template <class T, int NR, int NX, int D, bool MASK>
INLINE void scores_block(const T* k, ptrdiff_t kc, const T* q, ptrdiff_t qr, ptrdiff_t qc, int d, const T* mask,
                         ptrdiff_t mj, const T* const* bias, T* const* out, ptrdiff_t oj, int j0) {
    Vec<T> acc[NR][NX];
#pragma GCC unroll 8
    for (int j = 0; j < NX; j++)
#pragma GCC unroll 8
        for (int r = 0; r < NR; r++) acc[r][j] = MASK ? load(mask + (j0 + j) * mj) + bias[r][j0 + j] : Vec<T>{};
    k += j0;
#pragma GCC unroll 2
    for (int c = 0; c < (D ? D : d); c++, k += kc, q += qc) {
        Vec<T> qv[NR];
#pragma GCC unroll 8
        for (int r = 0; r < NR; r++) qv[r] = load(q + r * qr);
#pragma GCC unroll 8
        for (int j = 0; j < NX; j++) {
            Vec<T> kv = load(k + j);
            PIN(kv);
#pragma GCC unroll 8
            for (int r = 0; r < NR; r++) acc[r][j] += qv[r] * kv;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < NR; r++)
#pragma GCC unroll 8
        for (int j = 0; j < NX; j++) store(out[r] + (j0 + j) * oj, acc[r][j]);
}

// Offsets or channels a block for NR rows: their sums, the rows and one vector more stay in registers.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif
template <int NR>
constexpr int kFit = (kRegisters - 1 - NR) / NR < 7 ? (kRegisters - 1 - NR) / NR : 7;
static_assert(kRows <= 6 && kFit<kRows> >= 1 && kFit<kRows> <= 6, "cases below");

template <class T, int NR, int D, bool MASK>
INLINE void scores_rows(const T* k, ptrdiff_t kc, const T* q, ptrdiff_t qr, ptrdiff_t qc, int d, const T* mask,
                        ptrdiff_t mj, const T* const* bias, T* const* out, ptrdiff_t oj, int nx) {
    constexpr int most = kFit<NR>;
    const int blocks = (nx + most - 1) / most;
    for (int b = 0, j = 0; b < blocks; b++) {
        const int n = (nx - j + blocks - b - 1) / (blocks - b);  // even parts: 7 is 4 + 3
        switch (n) {
#define MIXLAB_CASE(N)                                                                                             \
    case N:                                                                                                        \
        if constexpr (N <= most) scores_block<T, NR, N, D, MASK>(k, kc, q, qr, qc, d, mask, mj, bias, out, oj, j); \
        break;
            MIXLAB_CASE(1) MIXLAB_CASE(2) MIXLAB_CASE(3) MIXLAB_CASE(4) MIXLAB_CASE(5) MIXLAB_CASE(6) MIXLAB_CASE(7)
#undef MIXLAB_CASE
        }
        j += n;
    }
}

template <class T, int D, bool MASK>
INLINE void scores(int nr, const T* k, ptrdiff_t kc, const T* q, ptrdiff_t qr, ptrdiff_t qc, int d, const T* mask,
                   ptrdiff_t mj, const T* const* bias, T* const* out, ptrdiff_t oj, int nx) {
    switch (nr) {
#define MIXLAB_CASE(N)                                                                                             \
    case N:                                                                                                        \
        if constexpr (N <= kRows) scores_rows<T, N, D, MASK>(k, kc, q, qr, qc, d, mask, mj, bias, out, oj, nx); \
        break;
        MIXLAB_CASE(1) MIXLAB_CASE(2) MIXLAB_CASE(3) MIXLAB_CASE(4) MIXLAB_CASE(5) MIXLAB_CASE(6)
#undef MIXLAB_CASE
    }
}

// One source row of a weighted sum: rows first .. first + count - 1 of the block take part.
template <class T>
struct Source {
    const T* v;
    const T* p[kRows];
    int first, count;
};

template <class T, int R0, int NR, int NC>
INLINE void add_source(Vec<T> (&acc)[kRows][NC], const Source<T>& s, const T* v, int nx, ptrdiff_t pj, ptrdiff_t vj,
                       ptrdiff_t vc) {
    for (int j = 0; j < nx; j++) {
        Vec<T> p[NR];
#pragma GCC unroll 8
        for (int r = 0; r < NR; r++) p[r] = load(s.p[R0 + r] + j * pj);
#pragma GCC unroll 8
        for (int c = 0; c < NC; c++) {
            Vec<T> x = load(v + c * vc + j * vj);
            PIN(x);
#pragma GCC unroll 8
            for (int r = 0; r < NR; r++) acc[R0 + r][c] += p[r] * x;
        }
    }
}

// out[r][c][lane] = factor[r] (out[r][c][lane] + sum over sources s and j of p[s][r][j][lane] v[s][c][lane + j]), NC
// channels at a time. Without ADD what was in `out` does not count; without factors they are 1.
template <class T, int NC, bool ADD>
static void weighted_block(const Source<T>* list, int sources, int nx, ptrdiff_t pj, ptrdiff_t vj, ptrdiff_t vc, int c0,
                           T* const* out, ptrdiff_t oc, int rows, const Vec<T>* factor) {
    Vec<T> acc[kRows][NC];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
#pragma GCC unroll 8
        for (int c = 0; c < NC; c++) acc[r][c] = ADD && r < rows ? load(out[r] + (c0 + c) * oc) : Vec<T>{};
    for (int i = 0; i < sources; i++) {
        const Source<T>& s = list[i];
        const T* v = s.v + c0 * vc;
        switch (s.first * 8 + s.count) {
#define MIXLAB_CASE(A, N)                                                                  \
    case A * 8 + N:                                                                        \
        if constexpr (A + N <= kRows) add_source<T, A, N, NC>(acc, s, v, nx, pj, vj, vc); \
        break;
#define MIXLAB_CASES(A) \
    MIXLAB_CASE(A, 1) MIXLAB_CASE(A, 2) MIXLAB_CASE(A, 3) MIXLAB_CASE(A, 4) MIXLAB_CASE(A, 5) MIXLAB_CASE(A, 6)
            MIXLAB_CASES(0) MIXLAB_CASES(1) MIXLAB_CASES(2) MIXLAB_CASES(3) MIXLAB_CASES(4) MIXLAB_CASES(5)
#undef MIXLAB_CASES
#undef MIXLAB_CASE
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++)
        if (r < rows)
#pragma GCC unroll 8
            for (int c = 0; c < NC; c++) store(out[r] + (c0 + c) * oc, factor ? acc[r][c] * factor[r] : acc[r][c]);
}

template <class T, bool ADD>
static void weighted(const Source<T>* list, int sources, int nx, ptrdiff_t pj, ptrdiff_t vj, ptrdiff_t vc, int d,
                     T* const* out, ptrdiff_t oc, int rows, const Vec<T>* factor = nullptr) {
    constexpr int most = kFit<kRows>;
    const int blocks = (d + most - 1) / most;
    for (int b = 0, c = 0; b < blocks; b++) {
        const int n = (d - c + blocks - b - 1) / (blocks - b);  // even parts
        switch (n) {
#define MIXLAB_CASE(N)                                                                                        \
    case N:                                                                                                   \
        if constexpr (N <= most)                                                                              \
            weighted_block<T, N, ADD>(list, sources, nx, pj, vj, vc, c, out, oc, rows, factor);               \
        break;
            MIXLAB_CASE(1) MIXLAB_CASE(2) MIXLAB_CASE(3) MIXLAB_CASE(4) MIXLAB_CASE(5) MIXLAB_CASE(6)
#undef MIXLAB_CASE
        }
        c += n;
    }
}

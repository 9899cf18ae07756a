// Forward: scores of a column block in L1, softmax there, weighted sum; log-sum-exp beside the output.

// Turns n entries into exp2(s - max); returns the maximum and the sum a lane.
template <class T>
INLINE void softmax_block(T* s, int64_t n, Vec<T>& m, Vec<T>& sum) {
    constexpr int L = kLanes<T>;
    Vec<T> m0 = load(s), m1 = m0;
    int64_t i = 1;
    for (; i + 2 <= n; i += 2) m0 = maxv<T>(m0, load(s + i * L)), m1 = maxv<T>(m1, load(s + (i + 1) * L));
    if (i < n) m0 = maxv<T>(m0, load(s + i * L));
    m = maxv<T>(m0, m1);
    Vec<T> a = {}, b = {};
    i = 0;
    for (; i + 2 <= n; i += 2) {
        const Vec<T> p = exp2v<T>(load(s + i * L) - m), q = exp2v<T>(load(s + (i + 1) * L) - m);
        store(s + i * L, p), store(s + (i + 1) * L, q);
        a += p, b += q;
    }
    if (i < n) {
        const Vec<T> p = exp2v<T>(load(s + i * L) - m);
        store(s + i * L, p);
        a += p;
    }
    sum = a + b;
}

// Bounds n scores by cap tanh(score / cap), all but masked ones. Scores and cap are in units of log2.
template <class T>
static void cap_scores(T* s, int64_t apart, int64_t n, T cap) {
    for (int64_t i = 0; i < n; i++) {
        const Vec<T> x = load(s + i * apart);
        store(s + i * apart, x < T(kMasked / 10) ? x : cap * tanhv<T>(x / cap));
    }
}

// The window's entries of block b from the weights of an aggregation, or back to their gradient.
template <class T, bool BACK>
static void move_weights(const Problem& p, const Task& t, Work<T>& w, int keyrows, int b, int rows) {
    constexpr int L = kLanes<T>;
    const int lo = w.lo[b], n = w.hi[b] - lo + 1;
    for (int i = 0; i < keyrows; i++) {
        const KeyRow& k = w.rows[i];
        for (int r = k.first; r < k.first + k.count; r++)
            for (int j = 0; j < n; j++) {
                T* entry = w.at(BACK ? w.DP : w.S, r, k.index[r] * n + j, b);
                const T* mask = w.mask + (lo + j) * w.stride + b * L;
                T* row = (BACK ? w.DW : w.W) + r * w.offsets * w.stride + b * L;
                if (!p.shift) {  // the offset is the same for every lane
                    T* at = row + (k.bias[r] + lo + j) * w.stride;
                    const Vec<T> x = load(mask) < T(0) ? Vec<T>{} : load(BACK ? entry : at);
                    store(BACK ? at : entry, x);
                    continue;
                }
                for (int l = 0; l < L; l++) {
                    const bool in = mask[l] == 0;
                    T* at = row + (k.bias[r] + (in ? lo + j - t.reach + w.shift[b * L + l] : 0)) * w.stride + l;
                    if (!BACK) entry[l] = in ? *at : T(0);
                    else if (in) *at = entry[l];
                }
            }
    }
}

template <class T, int D, bool MASK>
static void score_keys(const Task& t, const Work<T>& w, const T* ring, const T* q, const T* bias, int keyrows, int b, T* s) {
    constexpr int L = kLanes<T>;
    const int lo = w.lo[b], n = w.hi[b] - lo + 1;
    const int64_t row = w.d * w.stride;
    for (int i = 0; i < keyrows; i++) {
        const KeyRow& k = w.rows[i];
        T* out[kRows];
        const T* biases[kRows];
        for (int r = 0; r < k.count; r++) {
            out[r] = w.at(s, k.first + r, k.index[k.first + r] * n, b);
            biases[r] = bias ? bias + k.bias[k.first + r] + lo : w.zeros;
        }
        scores<T, D, MASK>(k.count, ring + k.slot * row + b * L + lo - t.reach, w.stride, q + k.first * row + b * L, row,
                           w.stride, int(w.d), w.mask + lo * w.stride + b * L, w.stride, biases, out, w.apart, n);
    }
}

// Scores of block b against all rows of keys that it sees. The usual head sizes are known to the compiler.
template <class T>
static void score_block(const Task& t, const Work<T>& w, const T* ring, const T* q, bool masked, const T* bias, int keyrows,
                        int b, T* s) {
    const bool plain = !bias && (!masked || w.clear[b]);
    const auto score = w.d == 16   ? (plain ? score_keys<T, 16, false> : score_keys<T, 16, true>)
                       : w.d == 32 ? (plain ? score_keys<T, 32, false> : score_keys<T, 32, true>)
                                   : (plain ? score_keys<T, 0, false> : score_keys<T, 0, true>);
    score(t, w, ring, q, bias, keyrows, b, s);
}

// out[r][c] = factor[r] (sum of entries times a ring's rows), for block b; what the extra keys gave is there before.
template <class T>
static void sum_block(const Task& t, const Work<T>& w, const T* ring, T* s, int keyrows, int b, T* out, int rows,
                      const Vec<T>* factor = nullptr) {
    constexpr int L = kLanes<T>;
    const int lo = w.lo[b], n = w.hi[b] - lo + 1;
    const int64_t row = w.d * w.stride;
    for (int i = 0; i < keyrows; i++) {
        const KeyRow& k = w.rows[i];
        Source<T>& one = w.list[i];
        one.v = ring + k.slot * row + b * L + lo - t.reach, one.first = k.first, one.count = k.count;
        for (int r = k.first; r < k.first + k.count; r++) one.p[r] = w.at(s, r, k.index[r] * n, b);
    }
    T* to[kRows];
    for (int r = 0; r < rows; r++) to[r] = out + r * row + b * L;
    if (w.E) weighted<T, true>(w.list, keyrows, n, w.apart, 1, w.stride, int(w.d), to, w.stride, rows, factor);
    else weighted<T, false>(w.list, keyrows, n, w.apart, 1, w.stride, int(w.d), to, w.stride, rows, factor);
}

// Rows of keys and values into their rings, at least up to row `until`, at most up to row `end`.
template <class T>
static void fill(const Problem& p, const Task& t, Work<T>& w, int64_t& filled, int64_t until, int64_t end) {
    while (filled < until) {
        const int64_t z = filled / t.height, y = filled % t.height;
        const int rows = int(least(least(w.chunk, t.height - y), end - filled));
        T *k[kChunk], *v[kChunk];
        for (int r = 0; r < rows; r++) {
            const int64_t slot = (filled + r) % w.slots;
            k[r] = w.ring_row(w.K, slot), v[r] = w.ring_row(w.V, slot);
            if (w.backward) w.fresh[slot] = 1;
        }
        if (!w.aggregate) read_rows(p, t, p.k, 2, w.d, z, y, rows, k, w.stride, T(1));
        read_rows(p, t, p.v, 2, w.d, z, y, rows, v, w.stride, T(1));
        filled += rows;
    }
}
INLINE int64_t first_key(const Problem& p, const Task& t, int64_t z, int64_t y) {
    const int64_t plane = window(z, t.depth, p.kernel[0], p.shift).lo * t.height;
    return t.depth > 1 ? plane : plane + window(y, t.height, p.kernel[1], p.shift).lo;
}
INLINE int64_t last_key(const Problem& p, const Task& t, int64_t z, int64_t y) {
    const int64_t planes = window(z, t.depth, p.kernel[0], p.shift).hi;
    return t.depth > 1 ? planes * t.height : window(y, t.height, p.kernel[1], p.shift).hi;
}

// Per-query extra keys and their biases of a row.
template <class T>
static void read_extra(const Problem& p, const Task& t, Work<T>& w, int64_t z, int64_t y, int r) {
    for (int64_t e = 0; e < w.E; e++) {
        if (!p.shared) {
            read_row(p, t, p.ek, 2, w.d, z, y, w.EK + r * w.tile + e * w.d * w.stride, w.stride, T(1), e * p.ek.s[6]);
            read_row(p, t, p.ev, 2, w.d, z, y, w.EV + r * w.tile + e * w.d * w.stride, w.stride, T(1), e * p.ev.s[6]);
        }
        if (p.eb.data) read_row(p, t, p.eb, 2, 1, z, y, w.EB + (r * w.E + e) * w.stride, w.stride, T(1), e * p.eb.s[6]);
    }
}

template <class T>
static void score_extra(const Problem& p, const Work<T>& w, const T* q, const T* k, bool bias, int b, T* const* out,
                        int rows) {
    constexpr int L = kLanes<T>;
    const T* bb = bias && p.eb.data ? w.EB + b * L : nullptr;
    const int64_t row = w.d * w.stride, each = p.shared ? 0 : w.tile;
    if (w.broadcast) extra_scores<T, true>(q + b * L, row, w.stride, w.d, k, each, 1, w.E, bb, out, w.apart, rows);
    else extra_scores<T, false>(q + b * L, row, w.stride, w.d, k + b * L, each, w.stride, w.E, bb, out, w.apart, rows);
}
template <class T>
static void sum_extra(const Problem& p, const Work<T>& w, T* const* s, const T* v, int b, T* out, int rows) {
    constexpr int L = kLanes<T>;
    const int64_t row = w.d * w.stride, each = p.shared ? 0 : w.tile;
    if (w.broadcast) extra_sum<T, true>(s, w.apart, v, each, 1, w.E, w.d, out + b * L, row, w.stride, rows);
    else extra_sum<T, false>(s, w.apart, v + b * L, each, w.stride, w.E, w.d, out + b * L, row, w.stride, rows);
}

// Output and log-sum-exp of a block of query rows of plane z.
template <class T>
static void forward_block(const Problem& p, const Task& t, Work<T>& w, int64_t z, int64_t y0, int rows, const T* q, T* o,
                          T* lse) {
    constexpr int L = kLanes<T>;
    int64_t counts[kRows];
    const int keyrows = w.see(p, t, z, y0, rows, counts);
    for (int r = 0; r < rows; r++) {
        if (!w.aggregate) read_extra(p, t, w, z, y0 + r, r);
        else read_row(p, t, p.w, 6, w.offsets, z, y0 + r, w.W + r * w.offsets * w.stride, w.stride, T(1));
    }
    for (int b = 0; b < t.vectors; b++) {
        const int n = w.hi[b] - w.lo[b] + 1;
        if (w.aggregate) {
            move_weights<T, false>(p, t, w, keyrows, b, rows);
            sum_block(t, w, w.V, w.S, keyrows, b, o, rows);
            continue;
        }
        score_block(t, w, w.K, q, true, p.bias.data ? w.bias : nullptr, keyrows, b, w.S);
        T* extra[kRows];
        for (int r = 0; r < rows; r++) extra[r] = w.at(w.S, r, counts[r] * n, b);
        if (w.E) score_extra(p, w, q, w.EK, true, b, extra, rows);
        Vec<T> factor[kRows];
        for (int r = 0; r < rows; r++) {
            Vec<T> m, sum;
            if (p.softcap) cap_scores(w.S + r * w.entries * L, L, counts[r] * n + w.E, T(p.softcap * kLog2e));
            softmax_block(w.S + r * w.entries * L, counts[r] * n + w.E, m, sum);
            store(lse + r * w.stride + b * L, (m + log2v<T>(sum)) * T(1 / kLog2e));
            factor[r] = T(1) / sum;
        }
        if (w.E) sum_extra(p, w, extra, w.EV, b, o, rows);
        sum_block(t, w, w.V, w.S, keyrows, b, o, rows, factor);
    }
}

template <class T>
static int forward_task(const Problem* problem, const Task* task, bool alike, void* memory) {
    const Problem& p = *problem;
    const Task& t = *task;
    Work<T> w(p, t, false, memory, alike);
    w.prepare(p, t, alike);
    if (w.E && p.shared) read_shared(p, t, p.ek, w, w.EK), read_shared(p, t, p.ev, w, w.EV);
    const bool deep = t.depth > 1;
    const Range planes = deep ? Range{t.first, t.last} : Range{0, 1};
    const Range lines = deep ? Range{0, t.height} : Range{t.first, t.last};
    const int64_t row = w.d * w.stride;
    int64_t filled = first_key(p, t, planes.lo, lines.lo);
    bool odd = false;
    for (int64_t z = planes.lo; z < planes.hi; z++) {
        const int64_t end = last_key(p, t, z, lines.hi - 1);
        for (int64_t y = lines.lo; y < lines.hi; y += w.chunk) {
            const int n = int(least(w.chunk, lines.hi - y));
            T *q[kChunk], *o[kChunk], *lse[kChunk];
            for (int r = 0; r < n; r++) q[r] = w.Q + r * row, o[r] = w.O + r * row, lse[r] = w.lse + r * w.stride;
            if (!w.aggregate) read_rows(p, t, p.q, 2, w.d, z, y, n, q, w.stride, T(p.scale * kLog2e));
            for (int r = 0; r < n; r += kRows) {
                const int rows = int(least(kRows, n - r));
                fill(p, t, w, filled, last_key(p, t, z, y + r + rows - 1), end);
                forward_block(p, t, w, z, y + r, rows, q[r], o[r], lse[r]);
            }
            odd |= write_rows(p, t, p.out, 2, w.d, z, y, n, o, w.stride, T(1));
            if (!w.aggregate) write_rows(p, t, p.lse, 2, 1, z, y, n, lse, w.stride, T(1));
        }
    }
    return odd;
}

// Backward: probabilities again from the log-sum-exp, then every gradient in one pass over the query rows.
//
// The gradients of keys and values are sums over the queries around a key. A task walks its query rows in order and
// adds to a ring of key rows that only it owns, so there are no atomics and one order of summation. P and dS are kept
// for one block of query rows.

// Entries of row r: S becomes p, DP becomes dS = p (dp - sum p dp + dlse), and through the cap of scores if there is one.
template <class T>
INLINE void softmax_gradient(T* s, T* dp, int64_t apart, int64_t n, Vec<T> lse, Vec<T> dlse, T cap) {
    Vec<T> a = {}, b = {};
    int64_t i = 0;
    for (; i + 2 <= n; i += 2) {
        const int64_t x = i * apart, y = x + apart;
        const Vec<T> p = exp2v<T>(load(s + x) - lse), q = exp2v<T>(load(s + y) - lse);
        store(s + x, p), store(s + y, q);
        a += p * load(dp + x), b += q * load(dp + y);
    }
    if (i < n) {
        const Vec<T> p = exp2v<T>(load(s + i * apart) - lse);
        store(s + i * apart, p);
        a += p * load(dp + i * apart);
    }
    const Vec<T> delta = a + b - dlse;
    for (i = 0; i < n; i++) store(dp + i * apart, load(s + i * apart) * (load(dp + i * apart) - delta));
    for (i = 0; cap && i < n; i++) {
        const Vec<T> y = (log2v<T>(load(s + i * apart)) + lse) / cap;  // the score again; where p is 0 so is dS
        store(dp + i * apart, load(dp + i * apart) * (T(1) - y * y));
    }
}

// The sums for the bias: dS of block b.
template <class T>
static void sum_bias(Work<T>& w, int keyrows, int b) {
    for (int i = 0; i < keyrows; i++) {
        const KeyRow& k = w.rows[i];
        for (int r = k.first; r < k.first + k.count; r++)
            for (int j = 0; j < w.nx; j++) {
                T* sum = w.dbias + (k.bias[r] + j) * kLanes<T>;
                store(sum, load(sum) + load(w.at(w.DP, r, k.index[r] * w.nx + j, b)));
            }
    }
}

// ring rows += sum over the block's query rows of m (P or dS) times x (dout or q); what fresh rows hold does not count.
template <class T>
static void spread(const Task& t, Work<T>& w, T* m, const T* x, T* ring, int keyrows, int rows) {
    constexpr int L = kLanes<T>;
    const int64_t row = w.d * w.stride;
    for (int i0 = 0, n; i0 < keyrows; i0 += n) {
        const bool fresh = w.fresh[w.rows[i0].slot];
        const auto alike = [&](const KeyRow& k) { return k.z == w.rows[i0].z && w.fresh[k.slot] == fresh; };
        for (n = 1; n < kRows && i0 + n < keyrows && alike(w.rows[i0 + n]);) n++;
        for (int b = 0; b < t.vectors; b++) {
            T* out[kRows];
            for (int i = 0; i < n; i++) out[i] = ring + w.rows[i0 + i].slot * row + b * L;
            int sources = 0;
            for (int r = 0; r < rows; r++) {
                Source<T>& s = w.list[sources];
                s.first = n, s.count = 0;
                for (int i = 0; i < n; i++) {
                    const KeyRow& k = w.rows[i0 + i];
                    if (r < k.first || r >= k.first + k.count) continue;
                    if (s.first == n) s.first = i;
                    s.count++;
                    s.p[i] = w.at(m, r, k.index[r] * w.nx + w.klo[b], b) + t.reach - w.klo[b];
                }
                s.v = x + r * row + b * L + t.reach - w.klo[b];
                if (s.count) sources++;
            }
            const auto sum = fresh ? weighted<T, false> : weighted<T, true>;
            sum(w.list, sources, w.khi[b] - w.klo[b] + 1, w.stride - 1, -1, w.stride, int(w.d), out, w.stride, n, nullptr);
        }
    }
}

// Finished key rows out of the rings.
template <class T>
static bool flush(const Problem& p, const Task& t, Work<T>& w, int64_t& flushed, int64_t until) {
    bool odd = false;
    while (flushed < until) {
        const int64_t z = flushed / t.height, y = flushed % t.height, at = t.depth > 1 ? z : y;
        if (at < t.first || at >= t.last) {
            flushed++;
            continue;
        }
        const int64_t here = t.depth > 1 ? t.height - y : least(t.height, t.last) - y;
        const int rows = int(least(least(w.chunk, here), until - flushed));
        const T *k[kChunk], *v[kChunk];
        for (int r = 0; r < rows; r++) {
            const int64_t slot = (flushed + r) % w.slots;
            k[r] = w.ring_row(w.DK, slot), v[r] = w.ring_row(w.DV, slot);
        }
        if (!w.aggregate) odd |= write_rows(p, t, p.dk, 2, w.d, z, y, rows, k, w.stride, T(1 / kLog2e));
        odd |= write_rows(p, t, p.dv, 2, w.d, z, y, rows, v, w.stride, T(1));
        flushed += rows;
    }
    return odd;
}

// Sums over lanes and rows into this task's partial gradients.
template <class T>
static void reduce(const Problem& p, const Task& t, const Work<T>& w) {
    constexpr int L = kLanes<T>;
    if (t.part_bias)
        for (int64_t o = 0; o < w.offsets; o++)
            for (int l = 0; l < L; l++) t.part_bias[o] += w.dbias[o * L + l];
    if (!w.E || !p.shared) return;
    for (int64_t i = 0; i < t.segments; i++)
        for (int64_t ec = 0; ec < w.E * w.d; ec++) {
            double k = 0, v = 0;
            const int64_t from = w.broadcast ? 0 : t.segment[i].column, n = w.broadcast ? L : t.segment[i].length;
            const int64_t gs = w.broadcast ? L : w.stride;
            for (int64_t x = from; x < from + n; x++) k += w.DEK[ec * gs + x], v += w.DEV[ec * gs + x];
            t.part_ek[i * w.E * w.d + ec] = k / kLog2e, t.part_ev[i * w.E * w.d + ec] = v;
        }
}

template <class T>
static bool write_extra(const Problem& p, const Task& t, const Work<T>& w, int64_t z, int64_t y, int r) {
    bool odd = false;
    const int64_t tile = w.E * w.d * w.stride;
    for (int64_t e = 0; e < w.E; e++) {
        if (!p.shared) {
            const int64_t at = r * tile + e * w.d * w.stride;
            odd |= write_row(p, t, p.dek, 2, w.d, z, y, w.DEK + at, w.stride, T(1 / kLog2e), e * p.dek.s[6]);
            odd |= write_row(p, t, p.dev, 2, w.d, z, y, w.DEV + at, w.stride, T(1), e * p.dev.s[6]);
        }
        if (p.deb.data) write_row(p, t, p.deb, 2, 1, z, y, w.DEB + (r * w.E + e) * w.stride, w.stride, T(1), e * p.deb.s[6]);
    }
    return odd;
}

// One block of query rows of plane z: its own gradients (if `own`) and its part of the keys' and values'.
template <class T>
static bool backward_block(const Problem& p, const Task& t, Work<T>& w, int64_t z, int64_t y0, int rows, bool own,
                           const T* q, const T* g, T* dq, const T* lse, const T* dlse) {
    constexpr int L = kLanes<T>;
    const int64_t row = w.d * w.stride;
    int64_t counts[kRows];
    const int keyrows = w.see(p, t, z, y0, rows, counts);
    for (int r = 0; r < rows; r++) {
        if (!w.aggregate) read_extra(p, t, w, z, y0 + r, r);
        else read_row(p, t, p.w, 6, w.offsets, z, y0 + r, w.W + r * w.offsets * w.stride, w.stride, T(1));
    }
    if (w.aggregate) __builtin_memset(w.DW, 0, kRows * w.offsets * w.stride * sizeof(T));
    for (int b = 0; b < t.vectors; b++) {
        const int n = w.hi[b] - w.lo[b] + 1;
        score_block<T>(t, w, w.V, g, false, nullptr, keyrows, b, w.DP);
        if (w.aggregate) {
            move_weights<T, false>(p, t, w, keyrows, b, rows);
            if (own) move_weights<T, true>(p, t, w, keyrows, b, rows);
            continue;
        }
        score_block<T>(t, w, w.K, q, true, p.bias.data ? w.bias : nullptr, keyrows, b, w.S);
        T *s[kRows], *dp[kRows];
        for (int r = 0; r < rows; r++) {
            s[r] = w.at(w.S, r, counts[r] * n, b), dp[r] = w.at(w.DP, r, counts[r] * n, b);
        }
        if (w.E) score_extra(p, w, q, w.EK, true, b, s, rows), score_extra(p, w, g, w.EV, false, b, dp, rows);
        const T cap = T(p.softcap * kLog2e);
        for (int r = 0; r < rows; r++) {
            if (cap) cap_scores(w.at(w.S, r, 0, b), w.apart, counts[r] * n + w.E, cap);
            softmax_gradient(w.at(w.S, r, 0, b), w.at(w.DP, r, 0, b), w.apart, counts[r] * n + w.E,
                             load(lse + r * w.stride + b * L), load(dlse + r * w.stride + b * L), cap);
        }
        if (!own) continue;
        if (p.dbias.data) sum_bias(w, keyrows, b);
        if (w.E) sum_extra(p, w, dp, w.EK, b, dq, rows);
        sum_block(t, w, w.K, w.DP, keyrows, b, dq, rows);
        if (!w.E) continue;
        const int64_t gs = w.broadcast ? L : w.stride, at = w.broadcast ? 0 : b * L;
        extra_gradient(dp, w.apart, q + b * L, row, w.stride, w.d, w.E, w.DEK + at, gs, p.shared, rows);
        extra_gradient(s, w.apart, g + b * L, row, w.stride, w.d, w.E, w.DEV + at, gs, p.shared, rows);
        for (int r = 0; r < rows; r++)
            for (int64_t e = 0; e < w.E; e++) store(w.DEB + (r * w.E + e) * w.stride + b * L, load(dp[r] + e * w.apart));
    }
    bool odd = false;
    for (int r = 0; own && r < rows; r++) {
        if (w.aggregate) {
            odd |= write_row(p, t, p.dw, 6, w.offsets, z, y0 + r, w.DW + r * w.offsets * w.stride, w.stride, T(1));
            continue;
        }
        odd |= write_extra(p, t, w, z, y0 + r, r);
    }
    spread(t, w, w.S, g, w.DV, keyrows, rows);
    if (!w.aggregate) spread(t, w, w.DP, q, w.DK, keyrows, rows);
    for (int i = 0; i < keyrows; i++) w.fresh[w.rows[i].slot] = 0;
    return odd;
}

// Query rows whose windows reach rows [first, last).
INLINE Range reaching(int64_t first, int64_t last, int64_t n, int64_t k, bool shift) {
    Range q = {first, last};
    while (q.lo > 0 && window(q.lo - 1, n, k, shift).hi > first) q.lo--;
    while (q.hi < n && window(q.hi, n, k, shift).lo < last) q.hi++;
    return q;
}

template <class T>
static int backward_task(const Problem* problem, const Task* task, bool alike, void* memory) {
    const Problem& p = *problem;
    const Task& t = *task;
    Work<T> w(p, t, true, memory, alike);
    w.prepare(p, t, alike);
    if (w.E && p.shared) read_shared(p, t, p.ek, w, w.EK), read_shared(p, t, p.ev, w, w.EV);
    const bool deep = t.depth > 1;
    const Range around = reaching(t.first, t.last, deep ? t.depth : t.height, p.kernel[deep ? 0 : 1], p.shift);
    const Range planes = deep ? around : Range{0, 1}, lines = deep ? Range{0, t.height} : around;
    const int64_t row = w.d * w.stride;
    int64_t filled = first_key(p, t, planes.lo, lines.lo), flushed = filled;
    bool odd = false;
    for (int64_t z = planes.lo; z < planes.hi; z++) {
        const int64_t end = last_key(p, t, z, lines.hi - 1);
        for (int64_t y = lines.lo, next; y < lines.hi; y = next) {
            const int64_t at = deep ? z : y;
            const bool own = at >= t.first && at < t.last;
            next = least(y + w.chunk, lines.hi);
            if (!deep && at < t.first) next = least(next, t.first);
            else if (!deep && own) next = least(next, t.last);
            const int n = int(next - y);
            T *q[kChunk], *g[kChunk], *dq[kChunk], *lse[kChunk], *dlse[kChunk];
            for (int r = 0; r < n; r++) {
                q[r] = w.Q + r * row, g[r] = w.DO + r * row, dq[r] = w.O + r * row;
                lse[r] = w.lse + r * w.stride, dlse[r] = w.dlse + r * w.stride;
            }
            read_rows(p, t, p.dout, 2, w.d, z, y, n, g, w.stride, T(1));
            if (!w.aggregate) {
                read_rows(p, t, p.q, 2, w.d, z, y, n, q, w.stride, T(p.scale * kLog2e));
                read_rows(p, t, p.lse, 2, 1, z, y, n, lse, w.stride, T(kLog2e));
                if (p.dlse.data) read_rows(p, t, p.dlse, 2, 1, z, y, n, dlse, w.stride, T(1));
            }
            for (int r = 0; r < n; r += kRows) {
                const int rows = int(least(kRows, n - r));
                const int64_t until = last_key(p, t, z, y + r + rows - 1);
                if (filled < until) odd |= flush(p, t, w, flushed, first_key(p, t, z, y + r));
                fill(p, t, w, filled, until, end);
                odd |= backward_block(p, t, w, z, y + r, rows, own, q[r], g[r], dq[r], lse[r], dlse[r]);
            }
            if (own && !w.aggregate) odd |= write_rows(p, t, p.dq, 2, w.d, z, y, n, dq, w.stride, T(p.scale));
        }
    }
    odd |= flush(p, t, w, flushed, filled);
    reduce(p, t, w);
    return odd;
}

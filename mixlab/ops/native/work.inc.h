// Scratch memory of a task, and which key rows a block of query rows sees.

constexpr double kLog2e = 1.4426950408889634;
constexpr double kMasked = -1e30;  // finite: no infinity minus infinity, and exp2v turns it into exactly 0

#ifdef __SANITIZE_ADDRESS__
extern "C" void __asan_poison_memory_region(void const volatile*, size_t);
extern "C" void __asan_unpoison_memory_region(void const volatile*, size_t);
constexpr size_t kRedZone = 192;  // between the pieces of scratch memory, so that running over one is noticed
#else
constexpr size_t kRedZone = 0;
#endif

struct Arena {
    char* base;
    size_t used = 0;
    template <class T>
    T* take(size_t n) {
        T* at = (T*)(base + used);
        used += (n * sizeof(T) + 63) / 64 * 64;
#ifdef __SANITIZE_ADDRESS__
        if (base) __asan_poison_memory_region(base + used, kRedZone);
#endif
        used += kRedZone;
        return at;
    }
};

INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// Rows that are copied at a time, so that runs in memory are long, but what is copied stays near: at most this many, and
// no more than fit the bytes.
constexpr int64_t kChunk = kRows > 4 ? kRows : 8, kChunkBytes = 160 << 10;

struct Range {
    int64_t lo, hi;
};
INLINE Range window(int64_t i, int64_t n, int64_t k, bool shift) {
    if (!shift) return {most(0, i - k / 2), least(n, i + k / 2 + 1)};
    if (k >= n) return {0, n};
    const int64_t lo = least(most(0, i - k / 2), n - k);
    return {lo, lo + k};
}

struct KeyRow {
    int64_t slot, z, y;
    int first, count;       // rows of the block that see it
    int64_t index[kRows];   // its number among the key rows of each of them
    int64_t bias[kRows];    // where its biases begin
};

template <class T>
struct Work {
    int64_t d, E, slots, chunk, nx, seen, stride, lead, width, keyrows, entries, apart, offsets, tile, estride;
    bool broadcast, backward, aggregate;
    T *K, *V, *DK, *DV, *Q, *DO, *O, *mask, *zeros, *bias, *lse, *dlse;
    T *S, *DP, *dbias;
    T *EK, *EV, *EB, *DEK, *DEV, *DEB, *W, *DW;
    int *lo, *hi, *klo, *khi, *shift;
    char* clear;  // vectors of columns without a masked key
    char* fresh;  // slots of DK and DV that hold nothing yet
    KeyRow* rows;
    Source<T>* list;
    size_t bytes;

    Work(const Problem& p, const Task& t, bool back, void* memory, bool alike = false) {
#ifdef __SANITIZE_ADDRESS__
        if (memory) __asan_unpoison_memory_region(memory, Work(p, t, back, nullptr).bytes - 64);
#endif
        if (memory && p.poison && !alike) __builtin_memset(memory, 0xff, Work(p, t, back, nullptr).bytes - 64);
        Arena a{(char*)memory};
        constexpr int L = kLanes<T>;
        d = p.d, E = p.extra, backward = back, aggregate = p.w.data != nullptr;
        const int64_t depth = least(p.kernel[0], t.depth), height = least(p.kernel[1], t.height);
        nx = 2 * t.reach + 1;
        lead = round_up(t.reach, L);
        width = t.vectors * L;
        stride = width + round_up(most(t.reach, 1), L);  // the pad right of a channel is the pad left of the next
        if (stride / L % 2 == 0) stride += L;            // an even number of lines would crowd few cache sets
        const int64_t row = d * stride;
        chunk = least(most(kRows, least(kChunk, kChunkBytes / (row * sizeof(T))) / kRows * kRows), round_up(t.height, kRows));
        slots = t.depth > 1 ? depth * t.height : least(t.height, p.kernel[1] + kRows + chunk);
        keyrows = depth * least(height + kRows, t.height);
        seen = depth * height;  // key rows of one query, at most
        entries = seen * nx + E;
        offsets = 1;
        for (int i = 0; i < 3; i++) offsets *= p.shift && !aggregate ? 2 * p.kernel[i] - 1 : p.kernel[i];
        broadcast = p.shared && t.segments == 1;
        estride = broadcast ? 1 : stride;
        const int64_t tile_rows = chunk * row + 2 * lead;
        const int64_t each = p.shared ? 1 : kRows;  // copies of the extra keys
        tile = E * d * estride;
        const auto ring = [&](bool wanted, int64_t by) { return wanted ? a.take<T>(slots * row + 2 * lead + by) + lead + by : nullptr; };
        const int64_t by = t.reach % L;  // a block's first load of keys is a whole line, so that all its loads touch two
        K = ring(!aggregate, by), V = ring(true, by), DK = ring(back && !aggregate, 0), DV = ring(back, 0);
        Q = a.take<T>(aggregate ? 0 : tile_rows) + lead;
        DO = a.take<T>(back ? tile_rows : 0) + lead;
        O = a.take<T>(tile_rows) + lead;
        mask = a.take<T>(nx * stride);
        zeros = a.take<T>(nx + 2 * L);
        bias = a.take<T>(p.bias.data ? offsets : 0);
        lse = a.take<T>(chunk * stride), dlse = a.take<T>(chunk * stride);
        // Forward, one block's entries in L1. Backward, rows of them, because the sums for keys cross blocks.
        apart = back ? stride : L;
        S = a.take<T>(kRows * entries * apart + 2 * lead) + lead;
        DP = a.take<T>(back ? kRows * entries * apart + 2 * lead : 0) + lead;
        dbias = a.take<T>(p.dbias.data ? offsets * L : 0);
        EK = a.take<T>(each * tile), EV = a.take<T>(each * tile), EB = a.take<T>(kRows * E * stride);
        const int64_t gradient = back ? (p.shared ? E * d * (broadcast ? L : stride) : kRows * E * d * stride) : 0;
        DEK = a.take<T>(gradient), DEV = a.take<T>(gradient), DEB = a.take<T>(back ? kRows * E * stride : 0);
        W = a.take<T>(aggregate ? kRows * offsets * stride : 0);
        DW = a.take<T>(aggregate && back ? kRows * offsets * stride : 0);
        lo = a.take<int>(t.vectors), hi = a.take<int>(t.vectors);
        klo = a.take<int>(t.vectors), khi = a.take<int>(t.vectors), shift = a.take<int>(stride);
        clear = a.take<char>(t.vectors), fresh = a.take<char>(back ? slots : 0);
        rows = a.take<KeyRow>(keyrows), list = a.take<Source<T>>(most(keyrows, kRows));
        bytes = a.used + 64;
    }

    // Entry i of row r in block b, of S or DP.
    T* at(T* base, int64_t r, int64_t i, int64_t b) const {
        return base + (r * entries + i) * apart + (backward ? b * kLanes<T> : 0);
    }
    T* ring_row(T* ring, int64_t slot) const { return ring + slot * d * stride; }

    // Zeros between channels, and before and after all rows: what is beside a row counts nothing, and is a number.
    void clear_pads(const Task& t, T* rows_of, int64_t n) {
        constexpr int L = kLanes<T>;
        __builtin_memset(rows_of - t.reach, 0, t.reach * sizeof(T));
        for (int64_t i = 0; i < n * d; i++) {  // a pad is at least a vector wide
            T* row = rows_of + i * stride;
            for (int64_t x = t.columns; x < stride - L; x += L) store(row + x, Vec<T>{});
            store(row + stride - L, Vec<T>{});
        }
        __builtin_memset(rows_of + n * d * stride, 0, lead * sizeof(T));
    }

    // What this task's head and sums need. The rest of the memory is as the task before left it, if that was alike.
    void prepare(const Problem& p, const Task& t, bool alike) {
        if (!alike) lay_out(p, t);
        if (backward && p.shared) {
            const size_t n = E * d * (broadcast ? kLanes<T> : stride) * sizeof(T);
            __builtin_memset(DEK, 0, n), __builtin_memset(DEV, 0, n);
        }
        if (p.bias.data)
            for (int64_t o = 0; o < offsets; o++) bias[o] = ((const T*)p.bias.data)[t.head * offsets + o] * T(kLog2e);
        if (p.dbias.data) __builtin_memset(dbias, 0, offsets * kLanes<T> * sizeof(T));
    }

    // Masks per (dx, column), the dx that any lane of a vector needs, and zeros where no row will ever be written.
    void lay_out(const Problem& p, const Task& t) {
        constexpr int L = kLanes<T>;
        T* const rings[] = {K, V};
        for (T* ring : rings)
            if (ring) clear_pads(t, ring, slots);
        T* const blocks[] = {aggregate ? nullptr : Q, backward ? DO : nullptr};
        for (T* rows_of : blocks)
            if (rows_of) clear_pads(t, rows_of, chunk);
        __builtin_memset(lse, 0, chunk * stride * sizeof(T));
        __builtin_memset(dlse, 0, chunk * stride * sizeof(T));
        __builtin_memset(zeros, 0, (nx + 2 * L) * sizeof(T));
        __builtin_memset(EB, 0, kRows * E * stride * sizeof(T));
        if (W) __builtin_memset(W, 0, (aggregate ? kRows * offsets * stride : 0) * sizeof(T));
        if (!broadcast) {
            __builtin_memset(EK, 0, (p.shared ? 1 : kRows) * tile * sizeof(T));
            __builtin_memset(EV, 0, (p.shared ? 1 : kRows) * tile * sizeof(T));
        }
        for (int64_t i = 0; i < nx * stride; i++) mask[i] = T(kMasked);
        for (int64_t b = 0; b < t.vectors; b++) lo[b] = klo[b] = int(t.reach), hi[b] = khi[b] = int(t.reach);
        for (int64_t i = 0; i < stride; i++) shift[i] = 0;
        for (int64_t i = 0; i < t.segments; i++) {
            const Segment& s = t.segment[i];
            for (int64_t x = 0; x < s.length; x++) {
                const Range w = window(x, s.length, p.kernel[2], p.shift);
                shift[s.column + x] = int(x - w.lo);
                const int64_t at = (s.column + x) / L;
                for (int64_t y = w.lo; y < w.hi; y++) {
                    const int j = int(y - x + t.reach);
                    const int64_t key = (s.column + y) / L;
                    mask[j * stride + s.column + x] = 0;
                    if (j < lo[at]) lo[at] = j;
                    if (j > hi[at]) hi[at] = j;
                    if (j < klo[key]) klo[key] = j;
                    if (j > khi[key]) khi[key] = j;
                }
            }
        }
        for (int64_t b = 0; b < t.vectors; b++) {
            clear[b] = 1;
            for (int64_t j = backward ? 0 : lo[b]; j <= (backward ? nx - 1 : hi[b]); j++)
                for (int64_t l = 0; l < L; l++) clear[b] &= mask[j * stride + b * L + l] == 0;
        }
        if (!backward) return;
        for (int64_t b = 0; b < t.vectors; b++) lo[b] = 0, hi[b] = int(nx) - 1;  // so that every entry is written
        T* const sides[] = {S, DP};
        for (T* m : sides) {  // sums for keys read past both ends
            for (int64_t x = -lead; x < 0; x++) m[x] = 0;
            for (int64_t i = 0; i < kRows * entries; i++)
                for (int64_t x = width; x < stride; x++) m[i * stride + x] = 0;
        }
    }

    // The key rows that query rows y0 .. y0 + n - 1 of plane z see; returns how many.
    int see(const Problem& p, const Task& t, int64_t z, int64_t y0, int n, int64_t* counts) {
        const Range planes = window(z, t.depth, p.kernel[0], p.shift);
        Range of[kRows];
        for (int r = 0; r < n; r++) of[r] = window(y0 + r, t.height, p.kernel[1], p.shift);
        for (int r = 0; r < n; r++) counts[r] = (planes.hi - planes.lo) * (of[r].hi - of[r].lo);
        const bool wide = p.shift && !aggregate;  // biases of shifted windows go by relative position
        const int64_t zb = wide ? p.kernel[0] - 1 : p.kernel[0] / 2, yb = wide ? p.kernel[1] - 1 : p.kernel[1] / 2;
        const int64_t xb = wide ? p.kernel[2] - 1 : p.kernel[2] / 2;
        const int64_t ny = wide ? 2 * p.kernel[1] - 1 : p.kernel[1], nb = wide ? 2 * p.kernel[2] - 1 : p.kernel[2];
        int found = 0;
        for (int64_t kz = planes.lo; kz < planes.hi; kz++)
            for (int64_t ky = of[0].lo; ky < of[n - 1].hi; ky++) {
                KeyRow& k = rows[found++];
                k.slot = (kz * t.height + ky) % slots, k.z = kz, k.y = ky, k.first = n, k.count = 0;
                for (int r = 0; r < n; r++) {
                    if (ky < of[r].lo || ky >= of[r].hi) continue;
                    if (k.first == n) k.first = r;
                    k.count++;
                    k.index[r] = (kz - planes.lo) * (of[r].hi - of[r].lo) + ky - of[r].lo;
                    if (p.shift && aggregate)
                        k.bias[r] = ((kz - planes.lo) * p.kernel[1] + ky - of[r].lo) * p.kernel[2];
                    else
                        k.bias[r] = ((kz - z + zb) * ny + ky - (y0 + r) + yb) * nb + xb - t.reach;
                }
            }
        return found;
    }
};

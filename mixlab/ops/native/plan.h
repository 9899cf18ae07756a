// Splits a problem into tasks. The split depends on the problem and the vector's width, never on the number of
// threads, so neither does any result.
#pragma once
#include <algorithm>
#include <vector>

#include "abi.h"

namespace mixlab {

struct Plan {
    Problem problem;  // with dilation of unit windows set so that planes are independent
    std::vector<Segment> segments;
    std::vector<Task> tasks;
    std::vector<double> parts;
    int64_t offsets = 1;

    static constexpr int64_t kColumns = 128;      // of a virtual row: its probabilities stay in L2
    static constexpr int64_t kEnoughTasks = 16;   // below, rows are split too
    static constexpr int64_t kPackedTasks = 8;    // images are not put side by side if fewer tasks would remain
    static constexpr int64_t kLaneExtra = 4;      // more shared extra keys than this are broadcast, one image a task

    Plan(const Problem& given, int lanes, bool backward) : problem(given) {
        Problem& p = problem;
        if (p.kernel[0] == 1) p.dilation[0] = std::max<int64_t>(p.size[0], 1);
        for (int i = 0; i < 3; i++) offsets *= p.shift ? 2 * p.kernel[i] - 1 : p.kernel[i];
        const int64_t rz = std::min(p.dilation[0], p.size[0]), ry = std::min(p.dilation[1], p.size[1]);
        const int64_t rx = std::min(p.dilation[2], p.size[2]);
        if (p.batch * p.heads * rz * ry * rx == 0) return;
        for (int64_t b = 0; b < p.batch; b++)
            for (int64_t x = 0; x < rx; x++) segments.push_back({int32_t(b), int32_t(x), 0, int32_t(grid(2, x))});
        const int64_t side_by_side = pack(lanes, rx, p.heads * rz * ry);
        const int64_t total = segments.size(), groups = (total + side_by_side - 1) / side_by_side;
        const int64_t base = groups * p.heads * rz * ry;
        for (int64_t first = 0; first < total; first += side_by_side) {
            const int64_t last = std::min(first + side_by_side, total);
            int64_t columns = 0;
            for (int64_t i = first; i < last; i++) segments[i].column = int32_t(columns), columns += segments[i].length;
            for (int64_t h = 0; h < p.heads; h++)
                for (int64_t z = 0; z < rz; z++)
                    for (int64_t y = 0; y < ry; y++) {
                        Task t{};
                        t.head = h, t.rz = z, t.ry = y, t.depth = grid(0, z), t.height = grid(1, y);
                        t.columns = columns, t.vectors = (columns + lanes - 1) / lanes;
                        t.segments = last - first, t.segment = &segments[first];
                        const int64_t longest = segments[first].length;  // residues shrink, but images restart
                        int64_t widest = longest;
                        for (int64_t i = first; i < last; i++) widest = std::max<int64_t>(widest, segments[i].length);
                        t.reach = std::min(p.shift ? p.kernel[2] - 1 : p.kernel[2] / 2, widest - 1);
                        const int axis = t.depth > 1 ? 0 : 1;
                        const int64_t n = axis ? t.height : t.depth, small = std::max<int64_t>(8, 2 * p.kernel[axis]);
                        const int64_t want = (kEnoughTasks + base - 1) / base;
                        const int64_t chunks = std::max<int64_t>(1, std::min(want, n / small));
                        const int64_t step = ((n + chunks - 1) / chunks + 3) / 4 * 4;
                        for (int64_t a = 0; a < n; a += axis ? step : (n + chunks - 1) / chunks) {
                            t.first = a, t.last = std::min(n, a + (axis ? step : (n + chunks - 1) / chunks));
                            tasks.push_back(t);
                        }
                    }
        }
        if (backward) partials();
    }

    int64_t bias_part() const { return problem.dbias.data ? offsets : 0; }
    int64_t extra_part() const { return problem.shared ? problem.extra * problem.d : 0; }

   private:
    int64_t grid(int axis, int64_t residue) const {
        const Problem& p = problem;
        return (p.size[axis] - residue + p.dilation[axis] - 1) / p.dilation[axis];
    }

    // How many segments side by side waste the fewest lanes.
    int64_t pack(int lanes, int64_t rx, int64_t others) const {
        const Problem& p = problem;
        const int64_t length = grid(2, 0), total = p.batch * rx;
        if (p.shared && p.extra > kLaneExtra) return 1;
        const auto padded = [&](int64_t n) { return (n * length + lanes - 1) / lanes * lanes; };
        int64_t best = 1, least = total * padded(1);
        for (int64_t g = 2; g <= total && g * length <= kColumns; g++) {
            const int64_t groups = (total + g - 1) / g;
            if (groups * others < std::min(kPackedTasks, total * others)) break;
            const int64_t cost = total / g * padded(g) + (total % g ? padded(total % g) : 0);
            if (cost < least) best = g, least = cost;
        }
        return best;
    }

    void partials() {
        int64_t n = 0;
        for (Task& t : tasks) n += bias_part() + 2 * t.segments * extra_part();
        parts.assign(n, 0.0);
        double* at = parts.data();
        for (Task& t : tasks) {
            if (bias_part()) t.part_bias = at, at += bias_part();
            if (extra_part()) t.part_ek = at, at += t.segments * extra_part();
            if (extra_part()) t.part_ev = at, at += t.segments * extra_part();
        }
    }
};

}  // namespace mixlab

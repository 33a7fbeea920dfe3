// Plain loops, for any machine; the compiler makes of them what it can.
#include "tile.h"

namespace stream_cluster {
namespace {

// Adds the products of `count` groups. A row's four codes times the query's four.
void add_groups(int32_t* dots, const uint8_t* rows, const int32_t* words, int stride, uint32_t count) {
    for (; count; --count, rows += kGroupBytes, words += stride) {
        int16_t query[4];
        for (int d = 0; d < 4; ++d) query[d] = int8_t(uint32_t(*words) >> (8 * d));
        for (int r = 0; r < kBlockRows; ++r) {
            int32_t sum = 0;
            for (int d = 0; d < 4; ++d) sum += int16_t(rows[4 * r + d] - 128) * query[d];
            dots[r] += sum;
        }
    }
}

bool any_exceeds(const int32_t* dots, const float* norms, float bound) {
    bool any = false;
    for (int r = 0; r < kBlockRows; ++r) any |= float(dots[r]) * norms[r] > bound;
    return any;
}

Outcome one_query(const Tile& tile, TileResult& result, int query, int stride) {
    int32_t* dots = result.dots[query];
    for (int r = 0; r < kBlockRows; ++r) dots[r] = 0;
    result.candidates[query] = 0;
    const uint32_t head = tile.head_groups;
    if (head) {
        add_groups(dots, tile.rows, tile.queries + query, stride, head);
        if (!any_exceeds(dots, tile.row_norms, tile.head_bound[query])) return Outcome::kPruned;
    }
    add_groups(dots, tile.rows + size_t(head) * kGroupBytes, tile.queries + query + size_t(head) * stride, stride,
               tile.groups - head);
    if (!any_exceeds(dots, tile.row_norms, tile.bound[query])) return Outcome::kNothing;
    uint64_t bits = 0;
    for (int r = 0; r < kBlockRows; ++r) {
        bits |= uint64_t(float(dots[r]) * tile.row_norms[r] > tile.bound[query]) << r;
    }
    result.candidates[query] = bits;
    return Outcome::kCandidates;
}

template <int M>
Outcome tile_of(const Tile& tile, TileResult& result) {
    Outcome outcome = Outcome::kPruned;
    for (int query = 0; query < M; ++query) {
        const Outcome part = one_query(tile, result, query, M);
        if (part > outcome) outcome = part;
    }
    return outcome;
}

} // namespace

extern const TileKernel kPortable = {
    "portable", {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>}};

} // namespace stream_cluster

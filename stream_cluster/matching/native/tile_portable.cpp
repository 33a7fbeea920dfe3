// Plain loops, for any machine; the compiler makes of them what it can.
#define PROJECT_BYTES 16
#include "project.h"
#include "tile.h"

namespace stream_cluster {
namespace {

// Adds the products of `count` groups. A row's four codes times the query's four.
template <int Rows>
void add_groups(int32_t* dots, const uint8_t* rows, const int32_t* words, int stride, uint32_t count) {
    for (; count; --count, rows += kGroupBytes, words += stride) {
        int16_t query[4];
        for (int d = 0; d < 4; ++d) query[d] = int8_t(uint32_t(*words) >> (8 * d));
        for (int r = 0; r < Rows; ++r) {
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

// Can one of the rows still be a hit of the query?
bool any_alive(const Tile& tile, const int32_t* dots, int query) {
    bool any = false;
    for (int r = 0; r < kBlockRows; ++r) {
        const float rest = float(tile.row_rests[r]) * tile.head_slope[query];
        any |= float(dots[r]) * tile.row_norms[r] + rest > tile.head_base[query];
    }
    return any;
}

// False when the head excluded every hit.
bool one_query(const Tile& tile, TileResult& result, int query, int stride) {
    int32_t* dots = result.dots[query];
    for (int r = 0; r < kBlockRows; ++r) dots[r] = 0;
    const uint32_t head = tile.head_groups;
    if (head) {
        add_groups<kBlockRows>(dots, tile.rows, tile.queries + query, stride, head);
        if (!any_alive(tile, dots, query)) return false;
    }
    add_groups<kBlockRows>(dots, tile.rows + size_t(head) * kGroupBytes, tile.queries + query + size_t(head) * stride, stride,
               tile.groups - head);
    if (!any_exceeds(dots, tile.row_norms, tile.bound[query])) return true;
    uint64_t bits = 0;
    for (int r = 0; r < kBlockRows; ++r) {
        bits |= uint64_t(float(dots[r]) * tile.row_norms[r] > tile.bound[query]) << r;
    }
    result.candidates[query] = bits;
    return true;
}

template <int M>
Outcome tile_of(const Tile& tile, TileResult& result) {
    bool any = false;
    int tails = 0;
    for (int query = 0; query < M; ++query) {
        result.candidates[query] = 0;
        tails += one_query(tile, result, query, M);
        any |= result.candidates[query] != 0;
    }
    result.tail_share = float(tails) / M;
    return any ? Outcome::kCandidates : Outcome::kNothing;
}

template <int M>
bool sketch_of(const SketchTile& tile, uint64_t* alive) {
    uint64_t any = 0;
    for (int query = 0; query < M; ++query) {
        int32_t sums[kBlockRows];
        for (int r = 0; r < kBlockRows; ++r) sums[r] = tile.errors[r] + tile.offset[query];
        add_groups<kBlockRows>(sums, tile.rests, tile.rest_queries + query, M, 1);
        add_groups<kBlockRows>(sums, tile.rows, tile.queries + query, M, tile.groups);
        uint64_t bits = 0;
        for (int r = 0; r < kBlockRows; ++r) bits |= uint64_t(sums[r] >= 0) << r;
        alive[query] = bits;
        any |= bits;
    }
    return any != 0;
}

void cell(const Tile& tile, int query, int stride, int first, int32_t* dots) {
    for (int r = 0; r < kCellRows; ++r) dots[r] = 0;
    add_groups<kCellRows>(dots, tile.rows + 4 * first, tile.queries + query, stride, tile.groups);
}

} // namespace

extern const TileKernel kPortable = {
    "portable",
    {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>},
    {sketch_of<1>, sketch_of<2>, sketch_of<3>, sketch_of<4>, sketch_of<5>, sketch_of<6>},
    cell,
    project};

} // namespace stream_cluster

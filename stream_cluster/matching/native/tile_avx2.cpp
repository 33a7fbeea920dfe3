// AVX2: `vpmaddubsw` of a query's magnitudes with rows that took the query's signs.
//
// Codes are within +-127, so a sum of two products is at most 2 * 127 * 127 = 32258: no 16-bit lane saturates.
#include <immintrin.h>

#define PROJECT_BYTES 32
#include "project.h"
#include "tile.h"

namespace stream_cluster {
namespace {

// What came of a slice; in this order. `kPruned`: the head excluded every hit.
enum class Part { kPruned, kNothing, kCandidates };

inline unsigned exceeds(__m256i dots, const float* row_norms, __m256 bound) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dots), _mm256_load_ps(row_norms));
    return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(scaled, bound, _CMP_GT_OQ)));
}

inline __m256i multiply(__m256i sum, __m256i rows, __m256i query, __m256i magnitudes) {
    const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(rows, query));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

// Up to three queries by 16 rows: what fits into 16 registers.
template <int M>
struct Slice {
    static_assert(M <= 3);
    __m256i a00, a01, a10, a11, a20, a21;

    void groups(const uint8_t* rows, const int32_t* queries, int stride, uint32_t count) {
        const __m256i offset = _mm256_set1_epi8(-128);
        for (; count; --count, rows += kGroupBytes, queries += stride) {
            const __m256i r0 = _mm256_xor_si256(load(rows), offset);
            const __m256i r1 = _mm256_xor_si256(load(rows + 32), offset);
            step(a00, a01, r0, r1, queries[0]);
            if constexpr (M > 1) step(a10, a11, r0, r1, queries[1]);
            if constexpr (M > 2) step(a20, a21, r0, r1, queries[2]);
        }
    }

    static __m256i load(const uint8_t* rows) {
        return _mm256_load_si256(reinterpret_cast<const __m256i*>(rows));
    }

    static void step(__m256i& low, __m256i& high, __m256i r0, __m256i r1, int32_t word) {
        const __m256i query = _mm256_set1_epi32(word);
        const __m256i magnitudes = _mm256_abs_epi8(query);
        low = multiply(low, r0, query, magnitudes);
        high = multiply(high, r1, query, magnitudes);
    }
};

// Can one of eight rows still be a hit of the query?
inline bool head_exceeds(__m256i dots, const float* row_norms, const uint8_t* row_rests, float slope, float base) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row_rests));
    const __m256 rests = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dots), _mm256_load_ps(row_norms));
    const __m256 most = _mm256_add_ps(scaled, _mm256_mul_ps(rests, _mm256_set1_ps(slope)));
    return _mm256_movemask_ps(_mm256_cmp_ps(most, _mm256_set1_ps(base), _CMP_GT_OQ)) != 0;
}

inline bool any_alive(__m256i low, __m256i high, const Tile& tile, int query, int first) {
    const float slope = tile.head_slope[query], base = tile.head_base[query];
    return head_exceeds(low, tile.row_norms + first, tile.row_rests + first, slope, base) ||
           head_exceeds(high, tile.row_norms + first + 8, tile.row_rests + first + 8, slope, base);
}

inline bool note(TileResult& result, int query, int first, __m256i low, __m256i high, const float* norms,
                 float bound) {
    const __m256 limit = _mm256_set1_ps(bound);
    const uint64_t bits = exceeds(low, norms, limit) | exceeds(high, norms + 8, limit) << 8;
    if (!bits) return false;
    result.candidates[query] |= bits << first;
    int32_t* dots = result.dots[query] + first;
    _mm256_store_si256(reinterpret_cast<__m256i*>(dots), low);
    _mm256_store_si256(reinterpret_cast<__m256i*>(dots + 8), high);
    return true;
}

// Queries `from` to `from + M - 1` of a tile of `stride` queries, and the 16 rows from `first` on.
template <int M>
Part slice_of(const Tile& tile, TileResult& result, int from, int stride, int first) {
    const uint8_t* rows = tile.rows + 4 * first;
    const float* norms = tile.row_norms + first;
    const __m256i zero = _mm256_setzero_si256();
    Slice<M> s{zero, zero, zero, zero, zero, zero};
    const uint32_t head = tile.head_groups;
    if (head) {
        s.groups(rows, tile.queries + from, stride, head);
        bool any = any_alive(s.a00, s.a01, tile, from, first);
        if constexpr (M > 1) any |= any_alive(s.a10, s.a11, tile, from + 1, first);
        if constexpr (M > 2) any |= any_alive(s.a20, s.a21, tile, from + 2, first);
        if (!any) return Part::kPruned;
    }
    s.groups(rows + size_t(head) * kGroupBytes, tile.queries + from + size_t(head) * stride, stride,
             tile.groups - head);
    bool any = note(result, from, first, s.a00, s.a01, norms, tile.bound[from]);
    if constexpr (M > 1) any |= note(result, from + 1, first, s.a10, s.a11, norms, tile.bound[from + 1]);
    if constexpr (M > 2) any |= note(result, from + 2, first, s.a20, s.a21, norms, tile.bound[from + 2]);
    return any ? Part::kCandidates : Part::kNothing;
}

template <int M>
Outcome tile_of(const Tile& tile, TileResult& result) {
    constexpr int kHalf = (M + 1) / 2;
    for (int i = 0; i < M; ++i) result.candidates[i] = 0;
    bool any = false;
    int slices = 0, tails = 0;
    const auto note_part = [&](Part part) {
        ++slices;
        tails += part != Part::kPruned;
        any |= part == Part::kCandidates;
    };
    for (int first = 0; first < kBlockRows; first += 16) {
        note_part(slice_of<kHalf>(tile, result, 0, M, first));
        if constexpr (M > 1) note_part(slice_of<M - kHalf>(tile, result, kHalf, M, first));
    }
    result.tail_share = float(tails) / float(slices);
    return any ? Outcome::kCandidates : Outcome::kNothing;
}

// Starts a sum of a sketch.
inline __m256i begin(const SketchTile& tile, int query, int first) {
    const __m256i errors = _mm256_load_si256(reinterpret_cast<const __m256i*>(tile.errors + first));
    return _mm256_add_epi32(errors, _mm256_set1_epi32(tile.offset[query]));
}

// Bit r: sum r is not negative.
inline uint64_t not_negative(__m256i low, __m256i high) {
    const int negative = _mm256_movemask_ps(_mm256_castsi256_ps(low)) |
                         _mm256_movemask_ps(_mm256_castsi256_ps(high)) << 8;
    return uint64_t(~negative & 0xffff);
}

// `slice_of` for sketches; adds to `alive`, and is true if any is.
template <int M>
bool sketch_slice_of(const SketchTile& tile, uint64_t* alive, int from, int stride, int first) {
    const __m256i zero = _mm256_setzero_si256();
    Slice<M> s{begin(tile, from, first), begin(tile, from, first + 8), zero, zero, zero, zero};
    if constexpr (M > 1) s.a10 = begin(tile, from + 1, first), s.a11 = begin(tile, from + 1, first + 8);
    if constexpr (M > 2) s.a20 = begin(tile, from + 2, first), s.a21 = begin(tile, from + 2, first + 8);
    s.groups(tile.rests + 4 * first, tile.rest_queries + from, stride, 1);
    s.groups(tile.rows + 4 * first, tile.queries + from, stride, tile.groups);
    uint64_t bits[3] = {not_negative(s.a00, s.a01), 0, 0};
    if constexpr (M > 1) bits[1] = not_negative(s.a10, s.a11);
    if constexpr (M > 2) bits[2] = not_negative(s.a20, s.a21);
    for (int i = 0; i < M; ++i) alive[from + i] |= bits[i] << first;
    return (bits[0] | bits[1] | bits[2]) != 0;
}

template <int M>
bool sketch_of(const SketchTile& tile, uint64_t* alive) {
    constexpr int kHalf = (M + 1) / 2;
    for (int i = 0; i < M; ++i) alive[i] = 0;
    bool any = false;
    for (int first = 0; first < kBlockRows; first += 16) {
        any |= sketch_slice_of<kHalf>(tile, alive, 0, M, first);
        if constexpr (M > 1) any |= sketch_slice_of<M - kHalf>(tile, alive, kHalf, M, first);
    }
    return any;
}

void cell(const Tile& tile, int query, int stride, int first, int32_t* dots) {
    const __m256i zero = _mm256_setzero_si256();
    Slice<1> s{zero, zero, zero, zero, zero, zero};
    s.groups(tile.rows + 4 * first, tile.queries + query, stride, tile.groups);
    _mm256_store_si256(reinterpret_cast<__m256i*>(dots), s.a00);
    _mm256_store_si256(reinterpret_cast<__m256i*>(dots + 8), s.a01);
}

} // namespace

extern const TileKernel kAvx2 = {
    "avx2",
    {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>},
    {sketch_of<1>, sketch_of<2>, sketch_of<3>, sketch_of<4>, sketch_of<5>, sketch_of<6>},
    cell,
    project};

} // namespace stream_cluster

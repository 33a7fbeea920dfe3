// VNNI with 256-bit registers: six queries by 16 rows in 12 accumulators, four times per block.
//
// Included by files that define VNNI256_KERNEL and are compiled for AVX-VNNI or for AVX-512 VNNI with VL.
#include <immintrin.h>

#define PROJECT_BYTES 32
#include "project.h"
#include "tile.h"

namespace stream_cluster {
namespace {

// What came of a slice; in this order. `kPruned`: the head excluded every hit.
enum class Part { kPruned, kNothing, kCandidates };

#define FOR_QUERIES(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

#define DECLARE(i) __m256i a##i##0, a##i##1;

#define START(i) \
    if constexpr (M > i) a##i##0 = a##i##1 = _mm256_set1_epi32(tile.head_offset[i]);

#define ADD_TAIL(i)                                                  \
    if constexpr (M > i) {                                           \
        const __m256i tail = _mm256_set1_epi32(tile.tail_offset[i]); \
        a##i##0 = _mm256_add_epi32(a##i##0, tail);                   \
        a##i##1 = _mm256_add_epi32(a##i##1, tail);                   \
    }

// In assembly for the reason given in tile_avx512vnni.cpp.
#define MULTIPLY(i)                                                          \
    if constexpr (M > i) {                                                   \
        const __m256i q = _mm256_set1_epi32(queries[i]);                     \
        asm(VNNI256_PREFIX "vpdpbusd %[q], %[r0], %[a0]\n\t" VNNI256_PREFIX  \
                           "vpdpbusd %[q], %[r1], %[a1]"                     \
            : [a0] "+x"(a##i##0), [a1] "+x"(a##i##1)                         \
            : [q] "x"(q), [r0] "x"(r0), [r1] "x"(r1));                       \
    }

#define GROUPS(count)                                                                    \
    for (uint32_t left = (count); left; --left) {                                        \
        const __m256i r0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows));    \
        const __m256i r1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows + 32)); \
        FOR_QUERIES(MULTIPLY)                                                            \
        rows += kGroupBytes;                                                             \
        queries += M;                                                                    \
    }

inline unsigned exceeds(__m256i dots, const float* row_norms, __m256 bound) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dots), _mm256_load_ps(row_norms));
    return unsigned(_mm256_movemask_ps(_mm256_cmp_ps(scaled, bound, _CMP_GT_OQ)));
}

// Rests of eight rows.
inline __m256 rests_of(const uint8_t* rests) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(rests));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
}

inline bool head_exceeds(__m256i dots, const float* row_norms, __m256 rests, float slope, float base) {
    const __m256 scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(dots), _mm256_load_ps(row_norms));
    const __m256 most = _mm256_add_ps(scaled, _mm256_mul_ps(rests, _mm256_set1_ps(slope)));
    return _mm256_movemask_ps(_mm256_cmp_ps(most, _mm256_set1_ps(base), _CMP_GT_OQ)) != 0;
}

#define TEST_HEAD(i)                                                                           \
    if constexpr (M > i) {                                                                     \
        any |= head_exceeds(a##i##0, norms, low, tile.head_slope[i], tile.head_base[i]);       \
        any |= head_exceeds(a##i##1, norms + 8, high, tile.head_slope[i], tile.head_base[i]);  \
    }

#define TEST(i)                                                                                   \
    if constexpr (M > i) {                                                                        \
        const __m256 bound = _mm256_set1_ps(tile.bound[i]);                                       \
        const uint64_t bits = exceeds(a##i##0, norms, bound) | exceeds(a##i##1, norms + 8, bound) << 8; \
        if (bits) {                                                                               \
            any = 1;                                                                              \
            result.candidates[i] |= bits << first;                                                \
            int32_t* dots = result.dots[i] + first;                                               \
            _mm256_store_si256(reinterpret_cast<__m256i*>(dots), a##i##0);                        \
            _mm256_store_si256(reinterpret_cast<__m256i*>(dots + 8), a##i##1);                    \
        }                                                                                         \
    }

// The 16 rows from `first` on.
template <int M>
Part slice_of(const Tile& tile, TileResult& result, int first) {
    FOR_QUERIES(DECLARE)
    FOR_QUERIES(START)
    const uint8_t* rows = tile.rows + 4 * first;
    const float* norms = tile.row_norms + first;
    const int32_t* queries = tile.queries;
    unsigned any = 0;
    if (tile.head_groups) {
        GROUPS(tile.head_groups)
        const __m256 low = rests_of(tile.row_rests + first), high = rests_of(tile.row_rests + first + 8);
        FOR_QUERIES(TEST_HEAD)
        if (!any) return Part::kPruned;
    }
    FOR_QUERIES(ADD_TAIL)
    GROUPS(tile.groups - tile.head_groups)
    any = 0;
    FOR_QUERIES(TEST)
    return any ? Part::kCandidates : Part::kNothing;
}

template <int M>
Outcome tile_of(const Tile& tile, TileResult& result) {
    for (int i = 0; i < M; ++i) result.candidates[i] = 0;
    bool any = false;
    int tails = 0;
    for (int first = 0; first < kBlockRows; first += 16) {
        const Part part = slice_of<M>(tile, result, first);
        tails += part != Part::kPruned;
        any |= part == Part::kCandidates;
    }
    result.tail_share = float(tails) / 4;
    return any ? Outcome::kCandidates : Outcome::kNothing;
}

#define START_SKETCH(i)                                                \
    if constexpr (M > i) {                                            \
        const __m256i offset = _mm256_set1_epi32(tile.unsigned_offset[i]); \
        a##i##0 = _mm256_add_epi32(offset, low);                      \
        a##i##1 = _mm256_add_epi32(offset, high);                     \
    }

// Bit r: sum r is not negative.
inline uint64_t not_negative(__m256i low, __m256i high) {
    const int negative = _mm256_movemask_ps(_mm256_castsi256_ps(low)) |
                         _mm256_movemask_ps(_mm256_castsi256_ps(high)) << 8;
    return uint64_t(~negative & 0xffff);
}

#define NOTE_ALIVE(i)                                               \
    if constexpr (M > i) {                                          \
        const uint64_t bits = not_negative(a##i##0, a##i##1);       \
        any |= bits;                                                \
        alive[i] |= bits << first;                                  \
    }

// The 16 rows from `first` on; adds to `alive`, and is true if any is.
template <int M>
bool sketch_slice_of(const SketchTile& tile, uint64_t* alive, int first) {
    FOR_QUERIES(DECLARE)
    const __m256i low = _mm256_load_si256(reinterpret_cast<const __m256i*>(tile.errors + first));
    const __m256i high = _mm256_load_si256(reinterpret_cast<const __m256i*>(tile.errors + first + 8));
    FOR_QUERIES(START_SKETCH)
    const uint8_t* rows = tile.rests + 4 * first;
    const int32_t* queries = tile.rest_queries;
    GROUPS(1)
    rows = tile.rows + 4 * first;
    queries = tile.queries;
    GROUPS(tile.groups)
    uint64_t any = 0;
    FOR_QUERIES(NOTE_ALIVE)
    return any != 0;
}

template <int M>
bool sketch_of(const SketchTile& tile, uint64_t* alive) {
    for (int i = 0; i < M; ++i) alive[i] = 0;
    bool any = false;
    for (int first = 0; first < kBlockRows; first += 16) any |= sketch_slice_of<M>(tile, alive, first);
    return any;
}

void cell(const Tile& tile, int query, int stride, int first, int32_t* dots) {
    constexpr int M = 1;
    const __m256i zero = _mm256_setzero_si256();
    __m256i sums[4] = {zero, zero, zero, zero}; // more than one pair, because one would wait for itself
    const uint8_t* rows = tile.rows + 4 * first;
    const int32_t* words = tile.queries + query;
    for (uint32_t group = 0; group < tile.groups; ++group, rows += kGroupBytes, words += stride) {
        __m256i &a00 = sums[group % 2 * 2], &a01 = sums[group % 2 * 2 + 1];
        const __m256i r0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows));
        const __m256i r1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(rows + 32));
        const int32_t* queries = words;
        MULTIPLY(0)
    }
    const __m256i offset = _mm256_set1_epi32(tile.tail_offset[query]);
    for (int half = 0; half < 2; ++half) {
        const __m256i sum = _mm256_add_epi32(offset, _mm256_add_epi32(sums[half], sums[half + 2]));
        _mm256_store_si256(reinterpret_cast<__m256i*>(dots + 8 * half), sum);
    }
}

} // namespace

extern const TileKernel VNNI256_KERNEL = {
    VNNI256_NAME,
    {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>},
    {sketch_of<1>, sketch_of<2>, sketch_of<3>, sketch_of<4>, sketch_of<5>, sketch_of<6>},
    cell,
    project};

} // namespace stream_cluster

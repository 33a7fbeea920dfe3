// AVX-512 VNNI: six queries by 64 rows in 24 accumulators, four registers of rows and one of a query.
//
// Each accumulator is a variable of its own, and the products are written in assembly: with an array, or with
// intrinsics in two loops, GCC 12 moves accumulators to the stack and back within each step.
#include <immintrin.h>

#include "tile.h"

namespace stream_cluster {
namespace {

#define FOR_QUERIES(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

#define DECLARE(i) __m512i a##i##0, a##i##1, a##i##2, a##i##3;

#define START(i)                                                             \
    if constexpr (M > i) {                                                   \
        a##i##0 = a##i##1 = a##i##2 = a##i##3 = _mm512_set1_epi32(tile.head_offset[i]); \
    }

#define ADD_TAIL(i)                                              \
    if constexpr (M > i) {                                       \
        const __m512i tail = _mm512_set1_epi32(tile.tail_offset[i]); \
        a##i##0 = _mm512_add_epi32(a##i##0, tail);               \
        a##i##1 = _mm512_add_epi32(a##i##1, tail);               \
        a##i##2 = _mm512_add_epi32(a##i##2, tail);               \
        a##i##3 = _mm512_add_epi32(a##i##3, tail);               \
    }

#define MULTIPLY(i)                                                      \
    if constexpr (M > i) {                                               \
        const __m512i q = _mm512_set1_epi32(queries[i]);                 \
        asm("vpdpbusd %[q], %[r0], %[a0]\n\t"                            \
            "vpdpbusd %[q], %[r1], %[a1]\n\t"                            \
            "vpdpbusd %[q], %[r2], %[a2]\n\t"                            \
            "vpdpbusd %[q], %[r3], %[a3]"                                \
            : [a0] "+v"(a##i##0), [a1] "+v"(a##i##1), [a2] "+v"(a##i##2), [a3] "+v"(a##i##3) \
            : [q] "v"(q), [r0] "v"(r0), [r1] "v"(r1), [r2] "v"(r2), [r3] "v"(r3));           \
    }

#define GROUPS(count)                                            \
    for (uint32_t left = (count); left; --left) {                \
        const __m512i r0 = _mm512_load_si512(rows);              \
        const __m512i r1 = _mm512_load_si512(rows + 64);         \
        const __m512i r2 = _mm512_load_si512(rows + 128);        \
        const __m512i r3 = _mm512_load_si512(rows + 192);        \
        FOR_QUERIES(MULTIPLY)                                    \
        rows += kGroupBytes;                                     \
        queries += M;                                            \
    }

inline __mmask16 exceeds(__m512i dots, const float* row_norms, __m512 bound) {
    return _mm512_cmp_ps_mask(_mm512_mul_ps(_mm512_cvtepi32_ps(dots), _mm512_load_ps(row_norms)), bound,
                              _CMP_GT_OQ);
}

#define TEST_HEAD(i)                                                       \
    if constexpr (M > i) {                                                 \
        const __m512 bound = _mm512_set1_ps(tile.head_bound[i]);           \
        any |= exceeds(a##i##0, tile.row_norms, bound);                    \
        any |= exceeds(a##i##1, tile.row_norms + 16, bound);               \
        any |= exceeds(a##i##2, tile.row_norms + 32, bound);               \
        any |= exceeds(a##i##3, tile.row_norms + 48, bound);               \
    }

#define TEST(i)                                                            \
    if constexpr (M > i) {                                                 \
        const __m512 bound = _mm512_set1_ps(tile.bound[i]);                \
        const uint64_t bits = uint64_t(exceeds(a##i##0, tile.row_norms, bound)) |            \
                              uint64_t(exceeds(a##i##1, tile.row_norms + 16, bound)) << 16 | \
                              uint64_t(exceeds(a##i##2, tile.row_norms + 32, bound)) << 32 | \
                              uint64_t(exceeds(a##i##3, tile.row_norms + 48, bound)) << 48;  \
        result.candidates[i] = bits;                                       \
        if (bits) {                                                        \
            outcome = Outcome::kCandidates;                                \
            _mm512_store_si512(result.dots[i], a##i##0);                   \
            _mm512_store_si512(result.dots[i] + 16, a##i##1);              \
            _mm512_store_si512(result.dots[i] + 32, a##i##2);              \
            _mm512_store_si512(result.dots[i] + 48, a##i##3);              \
        }                                                                  \
    }

template <int M>
Outcome tile_of(const Tile& tile, TileResult& result) {
    FOR_QUERIES(DECLARE)
    FOR_QUERIES(START)
    const uint8_t* rows = tile.rows;
    const int32_t* queries = tile.queries;
    if (tile.head_groups) {
        GROUPS(tile.head_groups)
        unsigned any = 0;
        FOR_QUERIES(TEST_HEAD)
        if (!any) return Outcome::kPruned;
    }
    FOR_QUERIES(ADD_TAIL)
    GROUPS(tile.groups - tile.head_groups)
    Outcome outcome = Outcome::kNothing;
    FOR_QUERIES(TEST)
    return outcome;
}

} // namespace

extern const TileKernel kAvx512Vnni = {"avx512vnni",
                                {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>}};

} // namespace stream_cluster

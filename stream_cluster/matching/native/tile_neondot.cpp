// NEON dot product (ARMv8.2): six queries by 16 rows in 24 accumulators, four times per block.
#include <arm_neon.h>

#include "tile.h"

namespace stream_cluster {
namespace {

#define FOR_QUERIES(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)

#define DECLARE(i) \
    int32x4_t a##i##0 = zero, a##i##1 = zero, a##i##2 = zero, a##i##3 = zero;

#define MULTIPLY(i)                                                 \
    if constexpr (M > i) {                                          \
        const int8x16_t q = vreinterpretq_s8_s32(vld1q_dup_s32(queries + i)); \
        a##i##0 = vdotq_s32(a##i##0, r0, q);                        \
        a##i##1 = vdotq_s32(a##i##1, r1, q);                        \
        a##i##2 = vdotq_s32(a##i##2, r2, q);                        \
        a##i##3 = vdotq_s32(a##i##3, r3, q);                        \
    }

inline int8x16_t signed_codes(const uint8_t* rows) {
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(rows), vdupq_n_u8(128)));
}

#define GROUPS(count)                                     \
    for (uint32_t left = (count); left; --left) {         \
        const int8x16_t r0 = signed_codes(rows);          \
        const int8x16_t r1 = signed_codes(rows + 16);     \
        const int8x16_t r2 = signed_codes(rows + 32);     \
        const int8x16_t r3 = signed_codes(rows + 48);     \
        FOR_QUERIES(MULTIPLY)                             \
        rows += kGroupBytes;                              \
        queries += M;                                     \
    }

// Four bits: which of the four rows exceed the bound.
inline unsigned exceeds(int32x4_t dots, const float* row_norms, float32x4_t bound) {
    const uint32_t lanes[4] = {1, 2, 4, 8};
    const uint32x4_t above = vcgtq_f32(vmulq_f32(vcvtq_f32_s32(dots), vld1q_f32(row_norms)), bound);
    return vaddvq_u32(vandq_u32(above, vld1q_u32(lanes)));
}

#define BITS(i, bound)                                                                      \
    (exceeds(a##i##0, norms, bound) | exceeds(a##i##1, norms + 4, bound) << 4 |             \
     exceeds(a##i##2, norms + 8, bound) << 8 | exceeds(a##i##3, norms + 12, bound) << 12)

#define TEST_HEAD(i) \
    if constexpr (M > i) any |= BITS(i, vdupq_n_f32(tile.head_bound[i]));

#define TEST(i)                                                              \
    if constexpr (M > i) {                                                   \
        const uint64_t bits = BITS(i, vdupq_n_f32(tile.bound[i]));           \
        if (bits) {                                                          \
            any = 1;                                                         \
            result.candidates[i] |= bits << first;                           \
            int32_t* dots = result.dots[i] + first;                          \
            vst1q_s32(dots, a##i##0);                                        \
            vst1q_s32(dots + 4, a##i##1);                                    \
            vst1q_s32(dots + 8, a##i##2);                                    \
            vst1q_s32(dots + 12, a##i##3);                                   \
        }                                                                    \
    }

// The 16 rows from `first` on.
template <int M>
Outcome slice_of(const Tile& tile, TileResult& result, int first) {
    const int32x4_t zero = vdupq_n_s32(0);
    FOR_QUERIES(DECLARE)
    const uint8_t* rows = tile.rows + 4 * first;
    const float* norms = tile.row_norms + first;
    const int32_t* queries = tile.queries;
    unsigned any = 0;
    if (tile.head_groups) {
        GROUPS(tile.head_groups)
        FOR_QUERIES(TEST_HEAD)
        if (!any) return Outcome::kPruned;
    }
    GROUPS(tile.groups - tile.head_groups)
    any = 0;
    FOR_QUERIES(TEST)
    return any ? Outcome::kCandidates : Outcome::kNothing;
}

template <int M>
Outcome tile_of(const Tile& tile, TileResult& result) {
    for (int i = 0; i < M; ++i) result.candidates[i] = 0;
    Outcome outcome = Outcome::kPruned;
    for (int first = 0; first < kBlockRows; first += 16) {
        const Outcome part = slice_of<M>(tile, result, first);
        if (part > outcome) outcome = part;
    }
    return outcome;
}

} // namespace

extern const TileKernel kNeonDot = {
    "neondot", {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>}};

} // namespace stream_cluster

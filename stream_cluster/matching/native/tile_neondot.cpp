// NEON dot product (ARMv8.2): six queries by 16 rows in 24 accumulators, four times per block.
#include <arm_neon.h>

#define PROJECT_BYTES 16
#include "project.h"
#include "tile.h"

namespace stream_cluster {
namespace {

// What came of a slice; in this order. `kPruned`: the head excluded every hit.
enum class Part { kPruned, kNothing, kCandidates };

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

// Can one of four rows still be a hit of the query?
inline bool head_exceeds(int32x4_t dots, const float* row_norms, const float* rests, float slope, float base) {
    const float32x4_t scaled = vmulq_f32(vcvtq_f32_s32(dots), vld1q_f32(row_norms));
    const float32x4_t most = vaddq_f32(scaled, vmulq_n_f32(vld1q_f32(rests), slope));
    return vmaxvq_u32(vcgtq_f32(most, vdupq_n_f32(base))) != 0;
}

#define BITS(i, bound)                                                                      \
    (exceeds(a##i##0, norms, bound) | exceeds(a##i##1, norms + 4, bound) << 4 |             \
     exceeds(a##i##2, norms + 8, bound) << 8 | exceeds(a##i##3, norms + 12, bound) << 12)

#define TEST_HEAD(i)                                                                             \
    if constexpr (M > i) {                                                                       \
        any |= head_exceeds(a##i##0, norms, rests + 0, tile.head_slope[i], tile.head_base[i]);       \
        any |= head_exceeds(a##i##1, norms + 4, rests + 4, tile.head_slope[i], tile.head_base[i]);   \
        any |= head_exceeds(a##i##2, norms + 8, rests + 8, tile.head_slope[i], tile.head_base[i]);   \
        any |= head_exceeds(a##i##3, norms + 12, rests + 12, tile.head_slope[i], tile.head_base[i]);  \
    }

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
Part slice_of(const Tile& tile, TileResult& result, int first) {
    const int32x4_t zero = vdupq_n_s32(0);
    FOR_QUERIES(DECLARE)
    const uint8_t* rows = tile.rows + 4 * first;
    const float* norms = tile.row_norms + first;
    const int32_t* queries = tile.queries;
    unsigned any = 0;
    if (tile.head_groups) {
        GROUPS(tile.head_groups)
        float rests[16];
        for (int r = 0; r < 16; ++r) rests[r] = float(tile.row_rests[first + r]);
        FOR_QUERIES(TEST_HEAD)
        if (!any) return Part::kPruned;
    }
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

#define START_SKETCH(i)                                                                   \
    if constexpr (M > i) {                                                               \
        const int32x4_t offset = vdupq_n_s32(tile.offset[i]);                            \
        a##i##0 = vaddq_s32(offset, vld1q_s32(tile.errors + first));                     \
        a##i##1 = vaddq_s32(offset, vld1q_s32(tile.errors + first + 4));                 \
        a##i##2 = vaddq_s32(offset, vld1q_s32(tile.errors + first + 8));                 \
        a##i##3 = vaddq_s32(offset, vld1q_s32(tile.errors + first + 12));                \
    }

// Four bits: which of the four sums are not negative.
inline unsigned not_negative(int32x4_t sums) {
    const uint32_t lanes[4] = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vcgezq_s32(sums), vld1q_u32(lanes)));
}

#define NOTE_ALIVE(i)                                                                          \
    if constexpr (M > i) {                                                                     \
        const uint64_t bits = not_negative(a##i##0) | not_negative(a##i##1) << 4 |             \
                              not_negative(a##i##2) << 8 | not_negative(a##i##3) << 12;        \
        any |= bits;                                                                           \
        alive[i] |= bits << first;                                                             \
    }

// The 16 rows from `first` on; adds to `alive`, and is true if any is.
template <int M>
bool sketch_slice_of(const SketchTile& tile, uint64_t* alive, int first) {
    const int32x4_t zero = vdupq_n_s32(0);
    FOR_QUERIES(DECLARE)
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
    int32x4_t a = vdupq_n_s32(0), b = a, c = a, d = a;
    const uint8_t* rows = tile.rows + 4 * first;
    const int32_t* words = tile.queries + query;
    for (uint32_t left = tile.groups; left; --left, rows += kGroupBytes, words += stride) {
        const int8x16_t q = vreinterpretq_s8_s32(vld1q_dup_s32(words));
        a = vdotq_s32(a, signed_codes(rows), q);
        b = vdotq_s32(b, signed_codes(rows + 16), q);
        c = vdotq_s32(c, signed_codes(rows + 32), q);
        d = vdotq_s32(d, signed_codes(rows + 48), q);
    }
    vst1q_s32(dots, a);
    vst1q_s32(dots + 4, b);
    vst1q_s32(dots + 8, c);
    vst1q_s32(dots + 12, d);
}

} // namespace

extern const TileKernel kNeonDot = {
    "neondot",
    {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>},
    {sketch_of<1>, sketch_of<2>, sketch_of<3>, sketch_of<4>, sketch_of<5>, sketch_of<6>},
    cell,
    project};

} // namespace stream_cluster

// AVX-512 VNNI: six queries by 64 rows in 24 accumulators, four registers of rows and one of a query.
//
// The loop is one piece of assembly with registers of its own choice. With intrinsics, GCC 12 moves
// accumulators to the stack and back in each step as soon as there is more than one loop in the function.
#include <immintrin.h>

#define PROJECT_BYTES 64
#include "project.h"
#include "tile.h"

namespace stream_cluster {
namespace {

// DO(query, its four accumulators) for the first queries. zmm0-3: rows, zmm4: a query, zmm5-7: free.
#define QUERIES_1(DO) DO(0, 8, 9, 10, 11)
#define QUERIES_2(DO) QUERIES_1(DO) DO(1, 12, 13, 14, 15)
#define QUERIES_3(DO) QUERIES_2(DO) DO(2, 16, 17, 18, 19)
#define QUERIES_4(DO) QUERIES_3(DO) DO(3, 20, 21, 22, 23)
#define QUERIES_5(DO) QUERIES_4(DO) DO(4, 24, 25, 26, 27)
#define QUERIES_6(DO) QUERIES_5(DO) DO(5, 28, 29, 30, 31)

#define LINE(text) text "\n\t"
#define ZMM(n) "%%zmm" #n

// Accumulators begin with the offset of their query ...
#define SET(i, a, b, c, d)                            \
    LINE("vpbroadcastd 4*" #i "(%[offset]), " ZMM(a)) \
    LINE("vmovdqa64 " ZMM(a) ", " ZMM(b))             \
    LINE("vmovdqa64 " ZMM(a) ", " ZMM(c))             \
    LINE("vmovdqa64 " ZMM(a) ", " ZMM(d))

// ... which is added to dot products that are there already.
#define ADD(i, a, b, c, d)                                            \
    LINE("vpbroadcastd 4*" #i "(%[offset]), %%zmm4")                  \
    LINE("vpaddd 256*" #i "(%[dots]), %%zmm4, " ZMM(a))               \
    LINE("vpaddd 64+256*" #i "(%[dots]), %%zmm4, " ZMM(b))            \
    LINE("vpaddd 128+256*" #i "(%[dots]), %%zmm4, " ZMM(c))           \
    LINE("vpaddd 192+256*" #i "(%[dots]), %%zmm4, " ZMM(d))

#define MULTIPLY(i, a, b, c, d)                       \
    LINE("vpbroadcastd 4*" #i "(%[queries]), %%zmm4") \
    LINE("vpdpbusd %%zmm4, %%zmm0, " ZMM(a))          \
    LINE("vpdpbusd %%zmm4, %%zmm1, " ZMM(b))          \
    LINE("vpdpbusd %%zmm4, %%zmm2, " ZMM(c))          \
    LINE("vpdpbusd %%zmm4, %%zmm3, " ZMM(d))

// Compares the maximum in zmm7 with a value per query and sets bit i of `alive` (30: greater, ordered, quiet).
#define NOTE(i, limit)                                           \
    LINE("vcmpps $30, 4*" #i "(%[" #limit "])%{1to16%}, %%zmm7, %%k1") \
    LINE("xorl %%eax, %%eax")                                    \
    LINE("kortestw %%k1, %%k1")                                  \
    LINE("setne %%al")                                           \
    LINE("shll $" #i ", %%eax")                                  \
    LINE("orl %%eax, %[alive]")

// Is float(dot) * norm > bound for one of the rows?
#define TEST(i, a, b, c, d)                     \
    LINE("vcvtdq2ps " ZMM(a) ", %%zmm7")        \
    LINE("vmulps %%zmm0, %%zmm7, %%zmm7")       \
    LINE("vcvtdq2ps " ZMM(b) ", %%zmm6")        \
    LINE("vmulps %%zmm1, %%zmm6, %%zmm6")       \
    LINE("vmaxps %%zmm6, %%zmm7, %%zmm7")       \
    LINE("vcvtdq2ps " ZMM(c) ", %%zmm6")        \
    LINE("vmulps %%zmm2, %%zmm6, %%zmm6")       \
    LINE("vmaxps %%zmm6, %%zmm7, %%zmm7")       \
    LINE("vcvtdq2ps " ZMM(d) ", %%zmm6")        \
    LINE("vmulps %%zmm3, %%zmm6, %%zmm6")       \
    LINE("vmaxps %%zmm6, %%zmm7, %%zmm7")       \
    NOTE(i, bound)

// Is float(dot) * norm + rest * slope > base for one of the rows? Fused: it is a bound, with a margin.
#define TEST_HEAD(i, a, b, c, d)                      \
    LINE("vbroadcastss 4*" #i "(%[slope]), %%zmm4")   \
    LINE("vmulps (%[rests]), %%zmm4, %%zmm7")         \
    LINE("vcvtdq2ps " ZMM(a) ", %%zmm6")              \
    LINE("vfmadd231ps %%zmm6, %%zmm0, %%zmm7")        \
    LINE("vmulps 64(%[rests]), %%zmm4, %%zmm5")       \
    LINE("vcvtdq2ps " ZMM(b) ", %%zmm6")              \
    LINE("vfmadd231ps %%zmm6, %%zmm1, %%zmm5")        \
    LINE("vmaxps %%zmm5, %%zmm7, %%zmm7")             \
    LINE("vmulps 128(%[rests]), %%zmm4, %%zmm5")      \
    LINE("vcvtdq2ps " ZMM(c) ", %%zmm6")              \
    LINE("vfmadd231ps %%zmm6, %%zmm2, %%zmm5")        \
    LINE("vmaxps %%zmm5, %%zmm7, %%zmm7")             \
    LINE("vmulps 192(%[rests]), %%zmm4, %%zmm5")      \
    LINE("vcvtdq2ps " ZMM(d) ", %%zmm6")              \
    LINE("vfmadd231ps %%zmm6, %%zmm3, %%zmm5")        \
    LINE("vmaxps %%zmm5, %%zmm7, %%zmm7")             \
    NOTE(i, base)

#define STORE(i, a, b, c, d)                                     \
    LINE("vmovdqa64 " ZMM(a) ", 256*" #i "(%[dots])")            \
    LINE("vmovdqa64 " ZMM(b) ", 64+256*" #i "(%[dots])")         \
    LINE("vmovdqa64 " ZMM(c) ", 128+256*" #i "(%[dots])")        \
    LINE("vmovdqa64 " ZMM(d) ", 192+256*" #i "(%[dots])")

// Dot products of `count` groups (not 0): set or added to, tested, and stored if any passes.
#define ADVANCE(M, BEGIN, CHECK)                                                                \
    asm volatile(QUERIES_##M(BEGIN)                                                             \
                 ".p2align 5\n\t"                                                               \
                 "1:\n\t"                                                                       \
                 LINE("vmovdqa64 (%[rows]), %%zmm0")                                            \
                 LINE("vmovdqa64 64(%[rows]), %%zmm1")                                          \
                 LINE("vmovdqa64 128(%[rows]), %%zmm2")                                         \
                 LINE("vmovdqa64 192(%[rows]), %%zmm3")                                         \
                 LINE("addq $256, %[rows]")                                                     \
                 QUERIES_##M(MULTIPLY)                                                          \
                 LINE("addq $4*" #M ", %[queries]")                                             \
                 LINE("decl %[count]")                                                          \
                 LINE("jnz 1b")                                                                 \
                 LINE("vmovaps (%[norms]), %%zmm0")                                             \
                 LINE("vmovaps 64(%[norms]), %%zmm1")                                           \
                 LINE("vmovaps 128(%[norms]), %%zmm2")                                          \
                 LINE("vmovaps 192(%[norms]), %%zmm3")                                          \
                 QUERIES_##M(CHECK)                                                             \
                 LINE("testl %[alive], %[alive]")                                               \
                 LINE("jz 2f")                                                                  \
                 QUERIES_##M(STORE)                                                             \
                 "2:"                                                                           \
                 : [rows] "+r"(rows), [queries] "+r"(queries), [count] "+r"(count), [alive] "+r"(alive) \
                 : [offset] "r"(offset), [norms] "r"(tile.row_norms), [bound] "r"(tile.bound),   \
                   [slope] "r"(tile.head_slope), [base] "r"(tile.head_base), [rests] "r"(rests), [dots] "r"(dots) \
                 : "eax", "cc", "memory", "k1", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", \
                   "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", \
                   "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", \
                   "xmm27", "xmm28", "xmm29", "xmm30", "xmm31")

// Of sketches: accumulators begin with the errors, in zmm0-3, and the offset of their query.
#define SET_SKETCH(i, a, b, c, d)                            \
    LINE("vpbroadcastd 4*" #i "(%[offset]), %%zmm4")         \
    LINE("vpaddd %%zmm0, %%zmm4, " ZMM(a))                   \
    LINE("vpaddd %%zmm1, %%zmm4, " ZMM(b))                   \
    LINE("vpaddd %%zmm2, %%zmm4, " ZMM(c))                   \
    LINE("vpaddd %%zmm3, %%zmm4, " ZMM(d))

#define MULTIPLY_REST(i, a, b, c, d)                       \
    LINE("vpbroadcastd 4*" #i "(%[rest_queries]), %%zmm4") \
    LINE("vpdpbusd %%zmm4, %%zmm0, " ZMM(a))               \
    LINE("vpdpbusd %%zmm4, %%zmm1, " ZMM(b))               \
    LINE("vpdpbusd %%zmm4, %%zmm2, " ZMM(c))               \
    LINE("vpdpbusd %%zmm4, %%zmm3, " ZMM(d))

// zmm7 keeps a sign bit as long as all are negative.
#define ALL_NEGATIVE(i, a, b, c, d)                              \
    LINE("vpternlogd $0x80, " ZMM(a) ", " ZMM(b) ", %%zmm7")     \
    LINE("vpternlogd $0x80, " ZMM(c) ", " ZMM(d) ", %%zmm7")

#define LOAD_ROWS(from)                             \
    LINE("vmovdqa64 (%[" #from "]), %%zmm0")        \
    LINE("vmovdqa64 64(%[" #from "]), %%zmm1")      \
    LINE("vmovdqa64 128(%[" #from "]), %%zmm2")     \
    LINE("vmovdqa64 192(%[" #from "]), %%zmm3")

#define SKETCH(M)                                                                                \
    asm volatile(LOAD_ROWS(errors)                                                               \
                 QUERIES_##M(SET_SKETCH)                                                         \
                 LOAD_ROWS(rests)                                                                \
                 QUERIES_##M(MULTIPLY_REST)                                                      \
                 ".p2align 5\n\t"                                                                \
                 "1:\n\t"                                                                        \
                 LOAD_ROWS(rows)                                                                 \
                 LINE("addq $256, %[rows]")                                                      \
                 QUERIES_##M(MULTIPLY)                                                           \
                 LINE("addq $4*" #M ", %[queries]")                                              \
                 LINE("decl %[count]")                                                           \
                 LINE("jnz 1b")                                                                  \
                 LINE("vpternlogd $0xff, %%zmm7, %%zmm7, %%zmm7")                                \
                 LINE("vpxord %%zmm4, %%zmm4, %%zmm4")                                           \
                 QUERIES_##M(ALL_NEGATIVE)                                                       \
                 LINE("vpcmpd $5, %%zmm4, %%zmm7, %%k1") /* not less */                          \
                 LINE("kortestw %%k1, %%k1")                                                     \
                 LINE("jz 2f")                                                                   \
                 LINE("movl $1, %[alive]")                                                       \
                 QUERIES_##M(STORE)                                                              \
                 "2:"                                                                            \
                 : [rows] "+r"(rows), [queries] "+r"(queries), [count] "+r"(count), [alive] "+r"(alive) \
                 : [errors] "r"(tile.errors), [rests] "r"(tile.rests), [rest_queries] "r"(tile.rest_queries), \
                   [offset] "r"(tile.unsigned_offset), [dots] "r"(sums)                                   \
                 : "cc", "memory", "k1", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", \
                   "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", \
                   "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", \
                   "xmm27", "xmm28", "xmm29", "xmm30", "xmm31")

#define ADVANCE_ANY(BEGIN, CHECK)                    \
    if constexpr (M == 1) ADVANCE(1, BEGIN, CHECK);  \
    if constexpr (M == 2) ADVANCE(2, BEGIN, CHECK);  \
    if constexpr (M == 3) ADVANCE(3, BEGIN, CHECK);  \
    if constexpr (M == 4) ADVANCE(4, BEGIN, CHECK);  \
    if constexpr (M == 5) ADVANCE(5, BEGIN, CHECK);  \
    if constexpr (M == 6) ADVANCE(6, BEGIN, CHECK);

enum class Part { kWhole, kHead, kTail };

// Bit i of what is returned: query i has a row that passes the test of this part. Dots are set, or for the
// tail added to, if there is such a query.
template <int M, Part part>
unsigned advance(const Tile& tile, int32_t* dots) {
    const uint32_t skipped = part == Part::kTail ? tile.head_groups : 0;
    const uint8_t* rows = tile.rows + size_t(skipped) * kGroupBytes;
    const int32_t* queries = tile.queries + size_t(skipped) * M;
    const int32_t* offset = part == Part::kHead ? tile.head_offset : tile.tail_offset;
    uint32_t count = part == Part::kHead ? tile.head_groups : tile.groups - skipped;
    unsigned alive = 0;
    alignas(64) float rests[kBlockRows];
    if constexpr (part == Part::kHead) {
        for (int r = 0; r < kBlockRows; r += 16) {
            const __m128i bytes = _mm_load_si128(reinterpret_cast<const __m128i*>(tile.row_rests + r));
            _mm512_store_ps(rests + r, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)));
        }
        ADVANCE_ANY(SET, TEST_HEAD)
    } else if constexpr (part == Part::kTail) {
        ADVANCE_ANY(ADD, TEST)
    } else {
        ADVANCE_ANY(SET, TEST)
    }
    return alive;
}

// Which of the 64 dot products exceed the bound.
uint64_t candidates_of(const int32_t* dots, const float* norms, float bound) {
    uint64_t bits = 0;
    for (int r = 0; r < kBlockRows; r += 16) {
        const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_load_si512(dots + r)), _mm512_load_ps(norms + r));
        bits |= uint64_t(_mm512_cmp_ps_mask(scaled, _mm512_set1_ps(bound), _CMP_GT_OQ)) << r;
    }
    return bits;
}

// The tail of one query of a tile of `stride`; its dots of the head are in `dots`.
void finish_alone(const Tile& tile, int query, int stride, int32_t* dots) {
    const __m512i tail = _mm512_set1_epi32(tile.tail_offset[query]);
    __m512i a0 = _mm512_add_epi32(_mm512_load_si512(dots), tail);
    __m512i a1 = _mm512_add_epi32(_mm512_load_si512(dots + 16), tail);
    __m512i a2 = _mm512_add_epi32(_mm512_load_si512(dots + 32), tail);
    __m512i a3 = _mm512_add_epi32(_mm512_load_si512(dots + 48), tail);
    const uint8_t* rows = tile.rows + size_t(tile.head_groups) * kGroupBytes;
    const int32_t* words = tile.queries + size_t(tile.head_groups) * stride + query;
    for (uint32_t left = tile.groups - tile.head_groups; left; --left) {
        const __m512i q = _mm512_set1_epi32(*words);
        a0 = _mm512_dpbusd_epi32(a0, _mm512_load_si512(rows), q);
        a1 = _mm512_dpbusd_epi32(a1, _mm512_load_si512(rows + 64), q);
        a2 = _mm512_dpbusd_epi32(a2, _mm512_load_si512(rows + 128), q);
        a3 = _mm512_dpbusd_epi32(a3, _mm512_load_si512(rows + 192), q);
        rows += kGroupBytes;
        words += stride;
    }
    _mm512_store_si512(dots, a0);
    _mm512_store_si512(dots + 16, a1);
    _mm512_store_si512(dots + 32, a2);
    _mm512_store_si512(dots + 48, a3);
}

// A query alone takes this share of the time of six.
constexpr float kShareAlone = 0.22f;
constexpr int kMostAlone = 3;

template <int M>
Outcome tile_of(const Tile& tile, TileResult& result) {
    int32_t* dots = result.dots[0];
    unsigned alive;
    result.tail_share = 1.0f;
    if (!tile.head_groups) {
        alive = advance<M, Part::kWhole>(tile, dots);
    } else {
        alive = advance<M, Part::kHead>(tile, dots);
        const int count = __builtin_popcount(alive);
        if (count < M && count <= kMostAlone) {
            result.tail_share = kShareAlone * float(count);
            for (int i = 0; i < M; ++i) {
                if (alive >> i & 1) finish_alone(tile, i, M, result.dots[i]);
            }
        } else {
            alive = advance<M, Part::kTail>(tile, dots);
        }
    }
    if (!alive) return Outcome::kNothing;
    uint64_t any = 0;
    for (int i = 0; i < M; ++i) {
        const bool tested = alive >> i & 1;
        result.candidates[i] = tested ? candidates_of(result.dots[i], tile.row_norms, tile.bound[i]) : 0;
        any |= result.candidates[i];
    }
    return any ? Outcome::kCandidates : Outcome::kNothing;
}

template <int M>
bool sketch_of(const SketchTile& tile, uint64_t* alive_rows) {
    alignas(64) int32_t sums[M * kBlockRows];
    const uint8_t* rows = tile.rows;
    const int32_t* queries = tile.queries;
    uint32_t count = tile.groups;
    unsigned alive = 0;
    if constexpr (M == 1) SKETCH(1);
    if constexpr (M == 2) SKETCH(2);
    if constexpr (M == 3) SKETCH(3);
    if constexpr (M == 4) SKETCH(4);
    if constexpr (M == 5) SKETCH(5);
    if constexpr (M == 6) SKETCH(6);
    if (!alive) return false;
    const __m512i zero = _mm512_setzero_si512();
    for (int i = 0; i < M; ++i) {
        uint64_t bits = 0;
        for (int r = 0; r < kBlockRows; r += 16) {
            const __m512i sum = _mm512_load_si512(sums + i * kBlockRows + r);
            bits |= uint64_t(_mm512_cmpge_epi32_mask(sum, zero)) << r;
        }
        alive_rows[i] = bits;
    }
    return true;
}

void cell(const Tile& tile, int query, int stride, int first, int32_t* dots) {
    // Four sums, because one would wait for itself.
    __m512i a = _mm512_set1_epi32(tile.tail_offset[query]);
    __m512i b = _mm512_setzero_si512(), c = b, d = b;
    const uint8_t* rows = tile.rows + 4 * first;
    const int32_t* words = tile.queries + query;
    uint32_t left = tile.groups;
    for (; left >= 4; left -= 4, rows += 4 * kGroupBytes, words += 4 * stride) {
        a = _mm512_dpbusd_epi32(a, _mm512_load_si512(rows), _mm512_set1_epi32(words[0]));
        b = _mm512_dpbusd_epi32(b, _mm512_load_si512(rows + kGroupBytes), _mm512_set1_epi32(words[stride]));
        c = _mm512_dpbusd_epi32(c, _mm512_load_si512(rows + 2 * kGroupBytes), _mm512_set1_epi32(words[2 * stride]));
        d = _mm512_dpbusd_epi32(d, _mm512_load_si512(rows + 3 * kGroupBytes), _mm512_set1_epi32(words[3 * stride]));
    }
    for (; left; --left, rows += kGroupBytes, words += stride) {
        a = _mm512_dpbusd_epi32(a, _mm512_load_si512(rows), _mm512_set1_epi32(*words));
    }
    _mm512_store_si512(dots, _mm512_add_epi32(_mm512_add_epi32(a, b), _mm512_add_epi32(c, d)));
}

} // namespace

extern const TileKernel kAvx512Vnni = {
    "avx512vnni",
    {tile_of<1>, tile_of<2>, tile_of<3>, tile_of<4>, tile_of<5>, tile_of<6>},
    {sketch_of<1>, sketch_of<2>, sketch_of<3>, sketch_of<4>, sketch_of<5>, sketch_of<6>},
    cell,
    project};

} // namespace stream_cluster

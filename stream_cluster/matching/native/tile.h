// One tile: up to six queries against one packed block of 64 rows. What every instruction set implements.
//
// Plain data and no standard library here: the files that include it are compiled for different instruction
// sets, and an inline function of one of them must never be linked into code that runs on every machine.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace stream_cluster {

constexpr int kBlockRows = 64;
constexpr int kTileQueries = 6;
// A block holds its rows as groups of four dimensions: for each group, four bytes of each of the 64 rows.
// Bytes are code + 128, because VNNI multiplies unsigned by signed. Dimensions are padded with zero codes.
constexpr int kGroupBytes = 4 * kBlockRows;

struct Tile {
    const uint8_t* rows;        // one packed block, 64-byte aligned
    const float* row_norms;     // inverse norms of its 64 rows, 64-byte aligned
    const int32_t* queries;     // for each group, four signed codes of each query as one word
    const int32_t* head_offset; // per query: -128 * sum of its codes in the head groups
    const int32_t* tail_offset; // per query: -128 * sum of its codes in the other groups
    // No hit is possible unless dot of the head * row norm + row rest * head_slope > head_base. The last two
    // are per query; a rest is 0 to 255.
    const uint8_t* row_rests;
    const float* head_slope;
    const float* head_base;
    const float* bound;         // per query: dot * row norm exceeds it for every hit, and for few others
    uint32_t head_groups;       // 0: the head is not tested
    uint32_t groups;
};

struct TileResult {
    alignas(64) int32_t dots[kTileQueries][kBlockRows]; // exact; rows of queries with candidates only
    uint64_t candidates[kTileQueries];                  // bit r: row r has to be tested exactly
    float tail_share; // work done behind the head / all work behind it, about; 1 where no head was tested
};

enum class Outcome { kNothing, kCandidates };

// `kNothing`: there are no candidates, and only `tail_share` of the result is set. Where a head was tested,
// the tail is computed only for what still can be a hit, as finely as the instruction set does it cheaply.
using TileFunction = Outcome (*)(const Tile&, TileResult&);

// Sketches (see sketch.h) of up to six queries and of one block of rows, as far as one of the parts.
struct SketchTile {
    const uint8_t* rows;         // packed like codes; 64-byte aligned
    const uint8_t* rests;        // one group
    const int32_t* errors;       // of the 64 rows, 64-byte aligned
    const int32_t* queries;      // for each group, four signed codes of each query as one word
    const int32_t* rest_queries; // the word of each query for the group of rests
    // Per query: error - least sum. With it and the row's error, the dot product is not negative for every hit,
    // and for few others.
    const int32_t* offset;
    const int32_t* unsigned_offset; // offset - 128 * sum of the query's codes, for products of unsigned bytes
    uint32_t groups;
};

// `alive[i]`, bit r: row r may be a hit of query i. False, and `alive` is not set: none is.
using SketchFunction = bool (*)(const SketchTile&, uint64_t* alive);

constexpr int kCellRows = 16;

// Exact dot products of one query of a tile of `stride` with 16 rows from `first` on; 64-byte aligned.
using CellFunction = void (*)(const Tile&, int query, int stride, int first, int32_t* dots);

constexpr int kProjected = 4;

// Products of four codes, shape (4, dim), with the columns of a rotation of shape (dim, width): `values`, shape
// (4, width).
using ProjectFunction = void (*)(const float* codes, int dim, const float* rotation, int width, float* values);

struct TileKernel {
    const char* name;
    TileFunction by_count[kTileQueries];          // [m - 1]: for m queries
    SketchFunction sketch_by_count[kTileQueries]; // the same
    CellFunction cell;
    ProjectFunction project;
};

extern const TileKernel kPortable;
#if defined(__x86_64__)
extern const TileKernel kAvx512Vnni;
extern const TileKernel kAvx512Vnni256;
extern const TileKernel kAvxVnni;
extern const TileKernel kAvx2;
#elif defined(__aarch64__)
extern const TileKernel kNeonDot;
#endif

} // namespace stream_cluster

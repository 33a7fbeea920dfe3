// Codes in packed blocks (see tile.h), what is known about each block, and the way in and out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "tile.h"

namespace stream_cluster {

constexpr int kMaxDimension = 4096;
constexpr int kCodeMax = 127;

// The dimension may be cut after so many of 32 parts, to test whether a hit is still possible: finely where
// the usual thresholds have their best cut.
constexpr int kCutParts[] = {8, 12, 14, 16, 18, 19, 20, 21, 22, 24};
constexpr int kCuts = sizeof(kCutParts) / sizeof(kCutParts[0]);

// How a dimension is laid out.
struct Layout {
    explicit Layout(int dimension);

    int dim;
    uint32_t groups;            // of four dimensions, the last one padded
    uint32_t cut_groups[kCuts]; // groups before each cut; all 0 where the dimension is too small to cut

    size_t row_bytes() const { return size_t(groups) * 4; }
    size_t block_bytes() const { return size_t(groups) * kGroupBytes; }
};

// What is known about a row besides its code.
struct RowFacts {
    float norm;        // inverse norm; 0 for an all-zero row
    // Norm of what is behind each cut / norm of the whole, times 255 and rounded up; 0 for an all-zero row.
    uint8_t rests[kCuts];
};

struct alignas(64) BlockFacts {
    float norms[kBlockRows];
    uint8_t rests[kCuts][kBlockRows];
    uint64_t live; // bit r: row r is there and not removed
};

struct FreeAligned {
    size_t mapped = 0; // bytes of a file that are mapped there; 0: it was allocated

    void operator()(void* memory) const;
};
using AlignedBytes = std::unique_ptr<uint8_t[], FreeAligned>;
using AlignedFacts = std::unique_ptr<BlockFacts[], FreeAligned>;

AlignedBytes aligned_bytes(size_t count);
// Bytes offset .. offset + count - 1 of a file, which is made so large; `offset` is a multiple of a page. What is
// written there goes to the file when memory is short. std::bad_alloc when there is no room.
AlignedBytes mapped_bytes(int file, size_t offset, size_t count);
AlignedFacts aligned_facts(size_t count);

// Facts of a code; false when it holds -128, which is no code.
bool facts_of(const Layout& layout, const int8_t* code, RowFacts& facts);

// An empty block: no row is live, all bytes stand for zero codes.
void clear_block(const Layout& layout, uint8_t* block, BlockFacts& facts);

// Write one code into row `row` of a block, and what is known about it.
void put_row(const Layout& layout, const int8_t* code, const RowFacts& facts, int row, uint8_t* block,
             BlockFacts& block_facts);

// `put_row` for all 64 rows of a cleared block; `codes[r]` is the code of row r.
void put_block(const Layout& layout, const int8_t* const* codes, const RowFacts* facts, uint8_t* block,
               BlockFacts& block_facts);

// Make a row all zero and no longer live.
void erase_row(const Layout& layout, int row, uint8_t* block, BlockFacts& facts);

// The code in row `row` of a block.
void get_row(const Layout& layout, const uint8_t* block, int row, int8_t* code);

// The four signed codes of group `group` of a row, as one word, lowest dimension first.
int32_t get_word(const uint8_t* block, uint32_t group, int row);
int32_t get_word(const Layout& layout, const int8_t* code, uint32_t group);

// Write the four signed codes of group `group` of a row.
void put_word(uint8_t* block, uint32_t group, int row, const int8_t* codes);

} // namespace stream_cluster

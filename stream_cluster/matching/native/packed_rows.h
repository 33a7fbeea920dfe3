// The codes of one space, resident in packed blocks.
#pragma once

#include <memory>
#include <vector>

#include "sketch.h"

namespace stream_cluster {

// Consecutive packed blocks. Its memory never moves; a search shares the ownership while it runs.
struct Chunk {
    Chunk(const Layout& layout, uint32_t first_row, uint32_t capacity);
    // In memory that was made for it.
    Chunk(AlignedBytes codes, uint32_t first_row, uint32_t capacity);

    uint32_t first_row;
    uint32_t capacity; // in rows, a multiple of 64
    AlignedBytes codes;
    AlignedFacts facts; // per block
};

// Where a row is: its block and its place in it.
struct RowPlace {
    uint8_t* block;
    BlockFacts* facts;
    int row;
};

// Appending never moves or packs again what is there. Not thread-safe: the caller keeps changes apart from
// each other and from searches (but a change during a search costs at most a wrong answer, never a crash).
class PackedRows {
public:
    explicit PackedRows(int dim); // std::invalid_argument unless 1 <= dim <= 4096

    const Layout& layout() const { return layout_; }
    uint32_t size() const { return size_; }            // rows ever appended, removed ones included
    uint32_t removed_count() const { return removed_; }
    size_t bytes() const;                              // allocated
    const std::vector<std::shared_ptr<Chunk>>& chunks() const { return chunks_; }

    // Add `count` codes, row-major. std::invalid_argument when a code is -128 or there are too many rows;
    // nothing is added then.
    void append(const int8_t* codes, size_t count);

    // Make sketches of all rows with so many threads, instead of those that are there, and of every row that is
    // appended from now on. std::invalid_argument for a sketch of another dimension.
    void use_sketch(std::shared_ptr<const Sketch> sketch, int threads);
    const std::shared_ptr<const Sketch>& sketch() const { return sketch_; } // null: there are none
    const SketchBlocks* sketches(size_t chunk) const { return sketch_ ? sketches_[chunk].get() : nullptr; }
    SketchRow sketch_row(uint32_t row) const;

    // Erase a row; harmless when repeated.
    void remove(uint32_t row);
    bool is_removed(uint32_t row) const;
    float norm(uint32_t row) const;
    void get(uint32_t row, int8_t* code) const;

    // std::out_of_range unless row < size().
    RowPlace place(uint32_t row) const;

private:
    void grow();
    size_t chunk_of(uint32_t row) const;
    void put_sketches(const int8_t* codes, const RowFacts* facts, size_t count);

    Layout layout_;
    std::vector<std::shared_ptr<Chunk>> chunks_;
    std::vector<uint32_t> starts_; // first row of each chunk
    uint32_t capacity_ = 0;
    uint32_t size_ = 0;
    uint32_t removed_ = 0;
    std::shared_ptr<const Sketch> sketch_;
    std::vector<std::shared_ptr<SketchBlocks>> sketches_; // of each chunk; a search keeps those it began with
};

} // namespace stream_cluster

// Where codes come from: an array, a selection of its rows, resident packed rows, or a selection of those.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "packed_rows.h"

namespace stream_cluster {

// Consecutive positions that are compared as one tile of rows.
struct Span {
    uint32_t first;
    uint32_t count;
    const Chunk* chunk = nullptr; // they lie packed in this chunk, from the start of a block on
    const SketchBlocks* sketches = nullptr; // of that chunk
};

// Packed blocks of one span; position `first` is row 0 of the first block.
struct RowTile {
    const uint8_t* codes;
    const BlockFacts* facts;
    uint32_t first;
    uint32_t blocks;
    const SketchBlocks* sketches; // null: none
    uint32_t first_sketch_block;
};

// Memory for the tile that a thread works on, where the rows do not lie packed already.
struct TileBuffer {
    AlignedBytes codes;
    AlignedFacts facts;
    uint32_t blocks = 0;
    std::vector<int8_t> unpacked;
};

class Source {
public:
    virtual ~Source() = default;

    const Layout& layout() const { return layout_; }
    uint32_t size() const { return size_; }

    // The code at a position, row-major; written to `scratch` (dim bytes) if it does not lie so already.
    virtual const int8_t* code(uint32_t position, int8_t* scratch) const = 0;
    virtual RowFacts facts(uint32_t position) const = 0;
    virtual bool live(uint32_t position) const = 0; // false: never part of a pair

    // How sketches were made; null: there are none.
    const Sketch* sketch() const { return sketch_.get(); }
    virtual SketchRow sketch_row(uint32_t position) const { return own_sketches_->get(position); }

    // Give all positions sketches of their own, instead of others. They are made by `sketch_some`.
    void begin_sketches(std::shared_ptr<const Sketch> sketch);
    // Make the sketches of some positions; false when there are none left to begin with. By any threads at once.
    bool sketch_some(const TileKernel& kernel) const;
    bool sketched() const { return !own_sketches_ || sketched_.load(std::memory_order_acquire) == size_; }

    // All positions, in order, in spans of at most `most` (a multiple of 64).
    virtual std::vector<Span> spans(uint32_t most) const;
    RowTile load(const Span& span, TileBuffer& buffer) const;

protected:
    bool has_own_sketches() const { return own_sketches_ != nullptr; }
    Source(const Layout& layout, uint32_t size, std::shared_ptr<const Sketch> sketch = nullptr)
        : layout_(layout), size_(size), sketch_(std::move(sketch)) {}

private:
    RowTile gather(const Span& span, TileBuffer& buffer) const;

    Layout layout_;
    uint32_t size_;
    std::shared_ptr<const Sketch> sketch_;
    std::unique_ptr<SketchBlocks> own_sketches_; // by position; null where they lie with the resident rows
    mutable std::atomic<uint32_t> next_to_sketch_{0};
    mutable std::atomic<uint32_t> sketched_{0};
};

// Rows of a row-major array. `rows` null: all of them. The memory has to outlive the source.
// std::invalid_argument for a code of -128, std::out_of_range for a row number beyond the array.
std::unique_ptr<Source> array_source(const int8_t* codes, size_t count, int dim, const uint32_t* rows,
                                     size_t rows_count);

// The same for packed rows as they are now; rows appended later are not seen. All of them have the sketches of
// the packed rows, a selection has none.
std::unique_ptr<Source> packed_source(const PackedRows& packed, const uint32_t* rows, size_t rows_count);

} // namespace stream_cluster

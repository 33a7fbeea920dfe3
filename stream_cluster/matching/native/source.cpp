#include "source.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace stream_cluster {
namespace {

uint32_t checked_size(size_t count) {
    if (count >= UINT32_MAX) throw std::invalid_argument("codes: found 2**32 rows or more, expected fewer");
    return uint32_t(count);
}

class ArraySource final : public Source {
public:
    ArraySource(const int8_t* codes, size_t count, int dim, const uint32_t* rows, size_t rows_count)
        : Source(Layout(dim), checked_size(rows ? rows_count : count)), codes_(codes), rows_(rows) {
        facts_.resize(size());
        for (uint32_t position = 0; position < size(); ++position) {
            if (rows && rows[position] >= count) {
                throw std::out_of_range("rows: found " + std::to_string(rows[position]) +
                                        ", expected fewer than " + std::to_string(count));
            }
            if (!facts_of(layout(), code(position, nullptr), facts_[position])) {
                throw std::invalid_argument("codes: found -128, expected -127 to 127");
            }
        }
    }

    const int8_t* code(uint32_t position, int8_t*) const override {
        return codes_ + size_t(rows_ ? rows_[position] : position) * size_t(layout().dim);
    }
    RowFacts facts(uint32_t position) const override { return facts_[position]; }
    bool live(uint32_t) const override { return true; }

private:
    const int8_t* codes_;
    const uint32_t* rows_;
    std::vector<RowFacts> facts_;
};

class PackedSource final : public Source {
public:
    PackedSource(const PackedRows& packed, const uint32_t* rows, size_t rows_count)
        : Source(packed.layout(), rows ? checked_size(rows_count) : packed.size(), rows ? nullptr : packed.sketch()),
          packed_(packed),
          rows_(rows) {
        for (size_t i = 0; rows && i < rows_count; ++i) packed_.place(rows[i]); // is it there?
    }

    const int8_t* code(uint32_t position, int8_t* scratch) const override {
        packed_.get(row(position), scratch);
        return scratch;
    }

    RowFacts facts(uint32_t position) const override {
        const RowPlace at = packed_.place(row(position));
        RowFacts facts;
        facts.norm = at.facts->norms[at.row];
        for (int cut = 0; cut < kCuts; ++cut) facts.rests[cut] = at.facts->rests[cut][at.row];
        return facts;
    }

    bool live(uint32_t position) const override { return !packed_.is_removed(row(position)); }

    std::vector<Span> spans(uint32_t most) const override {
        if (rows_) return Source::spans(most);
        std::vector<Span> result;
        for (size_t i = 0; i < packed_.chunks().size(); ++i) {
            const Chunk* chunk = packed_.chunks()[i].get();
            const SketchBlocks* sketches = has_own_sketches() ? nullptr : packed_.sketches(i);
            const uint32_t stop = std::min(chunk->first_row + chunk->capacity, size());
            for (uint32_t first = chunk->first_row; first < stop; first += most) {
                result.push_back({first, std::min(most, stop - first), chunk, sketches});
            }
        }
        return result;
    }

    SketchRow sketch_row(uint32_t position) const override {
        return has_own_sketches() ? Source::sketch_row(position) : packed_.sketch_row(position);
    }

private:
    uint32_t row(uint32_t position) const { return rows_ ? rows_[position] : position; }

    const PackedRows packed_; // a copy, which shares the chunks
    const uint32_t* rows_;
};

} // namespace

std::vector<Span> Source::spans(uint32_t most) const {
    std::vector<Span> result;
    for (uint32_t first = 0; first < size_; first += std::min(most, size_ - first)) {
        result.push_back({first, std::min(most, size_ - first)});
    }
    return result;
}

RowTile Source::load(const Span& span, TileBuffer& buffer) const {
    if (!span.chunk) return gather(span, buffer);
    const uint32_t block = (span.first - span.chunk->first_row) / kBlockRows;
    return {span.chunk->codes.get() + block * layout_.block_bytes(), span.chunk->facts.get() + block, span.first,
            (span.count + kBlockRows - 1) / kBlockRows, own_sketches_ ? own_sketches_.get() : span.sketches,
            own_sketches_ ? span.first / kBlockRows : block};
}

void Source::begin_sketches(std::shared_ptr<const Sketch> sketch) {
    own_sketches_ = std::make_unique<SketchBlocks>(*sketch, size_);
    sketch_ = std::move(sketch);
}

bool Source::sketch_some(const TileKernel& kernel) const {
    // Whole blocks, so that no two threads write to one.
    constexpr uint32_t kSome = 4 * kBlockRows;
    uint32_t first = next_to_sketch_.load();
    do {
        if (first >= size_) return false;
    } while (!next_to_sketch_.compare_exchange_weak(first, first + std::min(kSome, size_ - first)));
    const uint32_t count = std::min(kSome, size_ - first);
    Sketcher sketcher(*sketch_, kernel, *own_sketches_);
    std::vector<int8_t> scratch(size_t(layout_.dim));
    for (uint32_t position = first; position < first + count; ++position) {
        sketcher.put(position, code(position, scratch.data()), facts(position).norm);
    }
    sketcher.flush();
    sketched_.fetch_add(count, std::memory_order_release);
    return true;
}

RowTile Source::gather(const Span& span, TileBuffer& buffer) const {
    const uint32_t blocks = (span.count + kBlockRows - 1) / kBlockRows;
    if (buffer.blocks < blocks) {
        buffer.codes = aligned_bytes(blocks * layout_.block_bytes());
        buffer.facts = aligned_facts(blocks);
        buffer.blocks = blocks;
    }
    const auto dim = size_t(layout_.dim);
    buffer.unpacked.resize(kBlockRows * dim);
    for (uint32_t block = 0; block < blocks; ++block) {
        const uint32_t first = span.first + block * kBlockRows;
        const uint32_t count = std::min(uint32_t(kBlockRows), span.first + span.count - first);
        uint8_t* packed = buffer.codes.get() + block * layout_.block_bytes();
        BlockFacts& block_facts = buffer.facts[block];
        const int8_t* codes[kBlockRows];
        RowFacts row_facts[kBlockRows];
        uint64_t live = 0;
        for (uint32_t r = 0; r < count; ++r) {
            codes[r] = code(first + r, buffer.unpacked.data() + r * dim);
            row_facts[r] = facts(first + r);
            live |= uint64_t(this->live(first + r)) << r;
        }
        if (count == kBlockRows) {
            put_block(layout_, codes, row_facts, packed, block_facts);
        } else {
            clear_block(layout_, packed, block_facts);
            for (uint32_t r = 0; r < count; ++r) {
                put_row(layout_, codes[r], row_facts[r], int(r), packed, block_facts);
            }
        }
        block_facts.live = live;
    }
    return {buffer.codes.get(), buffer.facts.get(), span.first, blocks, own_sketches_.get(), span.first / kBlockRows};
}

std::unique_ptr<Source> array_source(const int8_t* codes, size_t count, int dim, const uint32_t* rows,
                                     size_t rows_count) {
    if (dim < 1 || dim > kMaxDimension) {
        throw std::invalid_argument("dim: found " + std::to_string(dim) + ", expected 1 to 4096");
    }
    return std::make_unique<ArraySource>(codes, count, dim, rows, rows_count);
}

std::unique_ptr<Source> packed_source(const PackedRows& packed, const uint32_t* rows, size_t rows_count) {
    return std::make_unique<PackedSource>(packed, rows, rows_count);
}

} // namespace stream_cluster

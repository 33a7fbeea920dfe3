#include "packed_rows.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "paths.h"
#include "shares.h"

namespace stream_cluster {
namespace {

// Chunks double up to this size: a small space stays small, and a large one wastes less than one chunk.
constexpr size_t kLargestChunkBytes = size_t(4) << 20;
constexpr uint32_t kMostChunkRows = 1u << 16;

} // namespace

Chunk::Chunk(const Layout& layout, uint32_t first, uint32_t rows)
    : Chunk(aligned_bytes(size_t(rows) * layout.row_bytes()), first, rows) {}

Chunk::Chunk(AlignedBytes memory, uint32_t first, uint32_t rows)
    : first_row(first), capacity(rows), codes(std::move(memory)), facts(aligned_facts(rows / kBlockRows)) {}

PackedRows::PackedRows(int dim) : layout_(dim) {
    if (dim < 1 || dim > kMaxDimension) {
        throw std::invalid_argument("dim: found " + std::to_string(dim) + ", expected 1 to 4096");
    }
}

size_t PackedRows::bytes() const {
    size_t bytes = size_t(capacity_) * layout_.row_bytes() + size_t(capacity_ / kBlockRows) * sizeof(BlockFacts);
    for (const auto& sketches : sketches_) bytes += sketches->bytes();
    return bytes;
}

void PackedRows::grow() {
    const size_t fitting = kLargestChunkBytes / layout_.row_bytes() / kBlockRows * kBlockRows;
    const auto most = uint32_t(std::clamp(fitting, size_t(kBlockRows), size_t(kMostChunkRows)));
    const uint32_t rows = std::clamp(capacity_, uint32_t(kBlockRows), most);
    auto chunk = std::make_shared<Chunk>(layout_, capacity_, rows);
    starts_.reserve(starts_.size() + 1);
    if (sketch_) sketches_.push_back(std::make_shared<SketchBlocks>(*sketch_, rows));
    chunks_.push_back(std::move(chunk));
    starts_.push_back(capacity_);
    capacity_ += rows;
}

void PackedRows::append(const int8_t* codes, size_t count) {
    if (count > size_t(UINT32_MAX) - kMostChunkRows - size_) {
        throw std::invalid_argument("codes: found too many, expected fewer than 2**32 rows in all");
    }
    const auto dim = size_t(layout_.dim);
    std::vector<RowFacts> facts(count);
    for (size_t i = 0; i < count; ++i) {
        if (!facts_of(layout_, codes + i * dim, facts[i])) {
            throw std::invalid_argument("codes: found -128, expected -127 to 127");
        }
    }
    while (capacity_ - size_ < count) grow();
    if (sketch_) put_sketches(codes, facts.data(), count);
    const int8_t* rows[kBlockRows];
    for (size_t done = 0; done < count;) {
        const size_t chunk = chunk_of(size_);
        const uint32_t at = size_ - starts_[chunk];
        uint8_t* block = chunks_[chunk]->codes.get() + at / kBlockRows * layout_.block_bytes();
        BlockFacts& block_facts = chunks_[chunk]->facts[at / kBlockRows];
        const int row = int(at % kBlockRows);
        if (row == 0 && count - done >= kBlockRows) {
            for (int r = 0; r < kBlockRows; ++r) rows[r] = codes + (done + size_t(r)) * dim;
            put_block(layout_, rows, &facts[done], block, block_facts);
            done += kBlockRows;
            size_ += kBlockRows;
            continue;
        }
        if (row == 0) clear_block(layout_, block, block_facts);
        put_row(layout_, codes + done * dim, facts[done], row, block, block_facts);
        ++done;
        ++size_;
    }
}

size_t PackedRows::chunk_of(uint32_t row) const {
    return size_t(std::upper_bound(starts_.begin(), starts_.end(), row) - starts_.begin() - 1);
}

// Of codes that will be the rows from `size_` on, for which there is room.
void PackedRows::put_sketches(const int8_t* codes, const RowFacts* facts, size_t count) {
    const TileKernel& kernel = kernel_of("");
    for (size_t done = 0; done < count;) {
        const uint32_t row = size_ + uint32_t(done);
        const size_t chunk = chunk_of(row);
        const size_t stop = std::min(count, done + (starts_[chunk] + chunks_[chunk]->capacity - row));
        Sketcher sketcher(*sketch_, kernel, *sketches_[chunk]);
        for (; done < stop; ++done) {
            sketcher.put(size_ + uint32_t(done) - starts_[chunk], codes + done * size_t(layout_.dim), facts[done].norm);
        }
        sketcher.flush();
    }
}

void PackedRows::use_sketch(std::shared_ptr<const Sketch> sketch, int threads) {
    if (sketch->dim() != layout_.dim) {
        throw std::invalid_argument("sketch: found dimension " + std::to_string(sketch->dim()) + ", expected " +
                                    std::to_string(layout_.dim));
    }
    const TileKernel& kernel = kernel_of("");
    std::vector<std::shared_ptr<SketchBlocks>> sketches;
    for (const auto& chunk : chunks_) sketches.push_back(std::make_shared<SketchBlocks>(*sketch, chunk->capacity));
    for_each_share(size_, threads, [&](uint32_t first, uint32_t last) {
        std::vector<int8_t> code(size_t(layout_.dim));
        for (uint32_t row = first; row < last;) {
            const size_t chunk = chunk_of(row);
            const uint32_t start = starts_[chunk], stop = std::min(last, start + chunks_[chunk]->capacity);
            Sketcher sketcher(*sketch, kernel, *sketches[chunk]);
            for (; row < stop; ++row) {
                if (is_removed(row)) continue;
                get(row, code.data());
                sketcher.put(row - start, code.data(), norm(row));
            }
            sketcher.flush();
        }
    });
    sketch_ = std::move(sketch);
    sketches_ = std::move(sketches);
}

SketchRow PackedRows::sketch_row(uint32_t row) const {
    const size_t chunk = chunk_of(row);
    return sketches_[chunk]->get(row - starts_[chunk]);
}

RowPlace PackedRows::place(uint32_t row) const {
    if (row >= size_) {
        throw std::out_of_range("rows: found " + std::to_string(row) + ", expected fewer than " +
                                std::to_string(size_));
    }
    const size_t chunk = chunk_of(row);
    const uint32_t at = row - starts_[chunk];
    const uint32_t block = at / kBlockRows;
    return {chunks_[chunk]->codes.get() + block * layout_.block_bytes(), &chunks_[chunk]->facts[block],
            int(at % kBlockRows)};
}

void PackedRows::remove(uint32_t row) {
    const RowPlace at = place(row);
    if (!(at.facts->live >> at.row & 1)) return;
    erase_row(layout_, at.row, at.block, *at.facts);
    if (sketch_) sketches_[chunk_of(row)]->erase(row - starts_[chunk_of(row)]);
    ++removed_;
}

bool PackedRows::is_removed(uint32_t row) const {
    const RowPlace at = place(row);
    return !(at.facts->live >> at.row & 1);
}

float PackedRows::norm(uint32_t row) const {
    const RowPlace at = place(row);
    return at.facts->norms[at.row];
}

void PackedRows::get(uint32_t row, int8_t* code) const {
    const RowPlace at = place(row);
    get_row(layout_, at.block, at.row, code);
}

} // namespace stream_cluster

#include "cell_rows.h"

#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <string>

namespace stream_cluster {
namespace {

constexpr size_t kLargestChunkBytes = size_t(4) << 20;
constexpr uint32_t kFewestBlocks = 16; // of the largest chunks
constexpr size_t kPage = size_t(1) << 16; // a multiple of the page of any processor
// Blocks of a group are compared by one thread, so a large cell is several groups.
constexpr uint32_t kMostGroupBlocks = 32;

class GroupedSource final : public Source {
public:
    GroupedSource(const int8_t* codes, size_t count, int dim, std::vector<uint32_t> numbers)
        : Source(Layout(dim), checked_size(numbers.size())), codes_(codes), numbers_(std::move(numbers)) {
        facts_.resize(count);
        for (size_t query = 0; query < count; ++query) {
            if (!facts_of(layout(), codes_ + query * size_t(dim), facts_[query])) {
                throw std::invalid_argument("codes: found -128, expected -127 to 127");
            }
        }
    }

    const int8_t* code(uint32_t position, int8_t*) const override {
        return codes_ + size_t(numbers_[position]) * size_t(layout().dim);
    }
    RowFacts facts(uint32_t position) const override { return facts_[numbers_[position]]; }
    bool live(uint32_t) const override { return true; }

private:
    static uint32_t checked_size(size_t count) {
        if (count >= UINT32_MAX) throw std::invalid_argument("codes: found 2**32 comparisons of a query and a cell");
        return uint32_t(count);
    }

    const int8_t* codes_;
    const std::vector<uint32_t> numbers_;
    std::vector<RowFacts> facts_;
};

class CellsSource final : public Source {
public:
    explicit CellsSource(const CellRows& cells) : Source(cells.layout(), cells.block_count() * kBlockRows) {}
    const int8_t* code(uint32_t, int8_t*) const override { throw std::logic_error("cells are not queries"); }
    RowFacts facts(uint32_t) const override { throw std::logic_error("cells are not queries"); }
    bool live(uint32_t) const override { return true; }
};

void add_spans(const CellRows& rows, const uint32_t* blocks, size_t count, std::vector<Span>& spans) {
    for (size_t i = 0; i < count;) {
        uint32_t together = 1;
        while (i + together < count && rows.adjoining(blocks[i + together - 1], blocks[i + together])) ++together;
        spans.push_back(rows.span_of(blocks[i], together));
        i += together;
    }
}

} // namespace

CellRows::CellRows(int dim, int file) : layout_(dim), file_(file), scratch_(size_t(std::max(dim, 1))) {
    if (dim < 1 || dim > kMaxDimension) {
        throw std::invalid_argument("dim: found " + std::to_string(dim) + ", expected 1 to 4096");
    }
    most_blocks_ = kFewestBlocks;
    while (most_blocks_ * 2 * layout_.block_bytes() <= kLargestChunkBytes && most_blocks_ < 1024) most_blocks_ *= 2;
}

CellRows::~CellRows() {
    if (file_ >= 0) close(file_);
}

size_t CellRows::bytes() const {
    size_t bytes = size_t(capacity_) * (layout_.block_bytes() + sizeof(BlockFacts));
    bytes += 4 * (slot_of_.capacity() + row_of_.capacity() + cell_of_block_.capacity() + free_.capacity());
    for (const auto& cell : cells_) bytes += sizeof cell + 4 * cell.blocks.capacity();
    return bytes;
}

// Chunks have 1, 1, 2, 4 ... blocks, up to the largest size: where a block is follows from its number.
size_t CellRows::chunk_of(uint32_t block) const {
    if (block == 0) return 0;
    const auto log = [](uint32_t value) { return size_t(31 - __builtin_clz(value)); };
    return block < most_blocks_ ? log(block) + 1 : log(most_blocks_) + block / most_blocks_;
}

uint8_t* CellRows::codes_of(uint32_t block) const {
    const Chunk& chunk = *chunks_[chunk_of(block)];
    return chunk.codes.get() + size_t(block - chunk.first_row / kBlockRows) * layout_.block_bytes();
}

BlockFacts& CellRows::facts_of_block(uint32_t block) const {
    const Chunk& chunk = *chunks_[chunk_of(block)];
    return chunk.facts[block - chunk.first_row / kBlockRows];
}

Span CellRows::span_of(uint32_t block, uint32_t blocks) const {
    return {block * kBlockRows, blocks * kBlockRows, chunks_[chunk_of(block)].get()};
}

bool CellRows::adjoining(uint32_t block, uint32_t next) const {
    return next == block + 1 && chunk_of(block) == chunk_of(next);
}

void CellRows::grow() {
    const uint32_t blocks = std::clamp(capacity_, uint32_t(1), most_blocks_);
    const size_t bytes = blocks * layout_.block_bytes();
    AlignedBytes memory = nullptr;
    if (file_ < 0) {
        memory = aligned_bytes(bytes);
    } else {
        const size_t room = (bytes + kPage - 1) / kPage * kPage;
        memory = mapped_bytes(file_, file_bytes_, room);
        file_bytes_ += room;
    }
    chunks_.push_back(std::make_unique<Chunk>(std::move(memory), capacity_ * kBlockRows, blocks * kBlockRows));
    capacity_ += blocks;
}

uint32_t CellRows::take_block(uint32_t cell) {
    uint32_t block;
    if (!free_.empty()) {
        block = free_.back();
        free_.pop_back();
    } else {
        block = block_count();
        if (block == capacity_) grow();
        cell_of_block_.push_back(kNowhere);
        row_of_.resize(row_of_.size() + kBlockRows, kNowhere);
    }
    cell_of_block_[block] = cell;
    clear_block(layout_, codes_of(block), facts_of_block(block));
    return block;
}

uint32_t CellRows::take_slot(uint32_t number, uint32_t row) {
    Cell& cell = cells_[number];
    const uint32_t place = cell.rows % kBlockRows;
    if (place == 0) cell.blocks.push_back(take_block(number));
    ++cell.rows;
    const uint32_t slot = cell.blocks.back() * kBlockRows + place;
    row_of_[slot] = row;
    slot_of_[row] = slot;
    return slot;
}

void CellRows::append(const int8_t* codes, size_t count, const uint32_t* cells) {
    // Slots need some more numbers than rows: the last block of each cell has gaps.
    if (count > size_t(UINT32_MAX / 2) - size()) {
        throw std::invalid_argument("codes: found too many, expected fewer than 2**31 rows in all");
    }
    std::vector<RowFacts> facts(count);
    for (size_t i = 0; i < count; ++i) {
        if (cells[i] != kNowhere) cells_.at(cells[i]);
        if (!facts_of(layout_, codes + i * size_t(layout_.dim), facts[i])) {
            throw std::invalid_argument("codes: found -128, expected -127 to 127");
        }
    }
    const uint32_t first = size();
    slot_of_.resize(first + count, kNowhere);
    for (size_t i = 0; i < count; ++i) {
        if (cells[i] == kNowhere) {
            ++removed_;
            continue;
        }
        const uint32_t slot = take_slot(cells[i], first + uint32_t(i));
        const uint32_t block = slot / kBlockRows;
        put_row(layout_, codes + i * size_t(layout_.dim), facts[i], int(slot % kBlockRows), codes_of(block),
                facts_of_block(block));
    }
}

void CellRows::leave(uint32_t slot) {
    Cell& cell = cells_[cell_at(slot)];
    const uint32_t last = cell.blocks.back() * kBlockRows + (cell.rows - 1) % kBlockRows;
    const uint32_t last_block = last / kBlockRows;
    BlockFacts& last_facts = facts_of_block(last_block);
    const int place = int(last % kBlockRows);
    if (last != slot) {
        RowFacts facts;
        facts.norm = last_facts.norms[place];
        for (int cut = 0; cut < kCuts; ++cut) facts.rests[cut] = last_facts.rests[cut][place];
        get_row(layout_, codes_of(last_block), place, scratch_.data());
        const uint32_t block = slot / kBlockRows;
        put_row(layout_, scratch_.data(), facts, int(slot % kBlockRows), codes_of(block), facts_of_block(block));
        row_of_[slot] = row_of_[last];
        slot_of_[row_of_[slot]] = slot;
    }
    erase_row(layout_, place, codes_of(last_block), last_facts);
    row_of_[last] = kNowhere;
    if (--cell.rows % kBlockRows == 0) {
        cell_of_block_[last_block] = kNowhere;
        free_.push_back(last_block);
        cell.blocks.pop_back();
    }
}

void CellRows::move(uint32_t row, uint32_t cell) {
    const uint32_t from = slot_of_.at(row);
    cells_.at(cell);
    if (from == kNowhere || cell_at(from) == cell) return;
    const uint32_t slot = take_slot(cell, row);
    const uint32_t block = slot / kBlockRows, from_block = from / kBlockRows;
    const int place = int(from % kBlockRows);
    const BlockFacts& from_facts = facts_of_block(from_block);
    RowFacts facts;
    facts.norm = from_facts.norms[place];
    for (int cut = 0; cut < kCuts; ++cut) facts.rests[cut] = from_facts.rests[cut][place];
    get_row(layout_, codes_of(from_block), place, scratch_.data());
    put_row(layout_, scratch_.data(), facts, int(slot % kBlockRows), codes_of(block), facts_of_block(block));
    leave(from);
}

void CellRows::remove(uint32_t row) {
    const uint32_t slot = slot_of_.at(row);
    if (slot == kNowhere) return;
    leave(slot);
    slot_of_[row] = kNowhere;
    ++removed_;
}

uint32_t CellRows::cell_of(uint32_t row) const {
    const uint32_t slot = slot_of_.at(row);
    return slot == kNowhere ? kNowhere : cell_at(slot);
}

float CellRows::norm(uint32_t row) const {
    const uint32_t slot = slot_of_.at(row);
    return slot == kNowhere ? 0.0f : facts_of_block(slot / kBlockRows).norms[slot % kBlockRows];
}

void CellRows::get(uint32_t row, int8_t* code) const {
    const uint32_t slot = slot_of_.at(row);
    if (slot == kNowhere) {
        std::fill(code, code + layout_.dim, int8_t(0));
    } else {
        get_row(layout_, codes_of(slot / kBlockRows), int(slot % kBlockRows), code);
    }
}

std::vector<uint32_t> CellRows::rows_of(uint32_t number) const {
    std::vector<uint32_t> rows;
    for (const uint32_t block : blocks_of(number)) {
        for (uint32_t place = 0; place < kBlockRows; ++place) {
            const uint32_t row = row_of_[block * kBlockRows + place];
            if (row != kNowhere) rows.push_back(row);
        }
    }
    return rows;
}

std::unique_ptr<Source> grouped_source(const int8_t* codes, size_t count, int dim, std::vector<uint32_t> numbers) {
    return std::make_unique<GroupedSource>(codes, count, dim, std::move(numbers));
}

std::unique_ptr<Source> cells_source(const CellRows& cells) { return std::make_unique<CellsSource>(cells); }

Grouping group_by_cell(const CellRows& rows, const uint64_t* offsets, size_t queries, const uint32_t* cells,
                       std::vector<uint32_t>& numbers) {
    const uint64_t total = offsets[queries];
    std::vector<uint64_t> starts(rows.cell_count() + 1, 0);
    for (uint64_t i = 0; i < total; ++i) {
        rows.blocks_of(cells[i]);
        ++starts[cells[i] + 1];
    }
    for (size_t cell = 0; cell < rows.cell_count(); ++cell) starts[cell + 1] += starts[cell];
    numbers.resize(total);
    std::vector<uint64_t> next(starts.begin(), starts.end() - 1);
    for (size_t query = 0; query < queries; ++query) {
        for (uint64_t i = offsets[query]; i < offsets[query + 1]; ++i) numbers[next[cells[i]]++] = uint32_t(query);
    }
    Grouping grouping;
    const uint64_t panel = queries_per_panel(rows.layout());
    for (uint32_t cell = 0; cell < rows.cell_count(); ++cell) {
        if (starts[cell] == starts[cell + 1]) continue;
        const auto& blocks = rows.blocks_of(cell);
        for (size_t block = 0; block < blocks.size(); block += kMostGroupBlocks) {
            const auto span = uint32_t(grouping.spans.size());
            add_spans(rows, &blocks[block], std::min(blocks.size() - block, size_t(kMostGroupBlocks)), grouping.spans);
            const uint32_t spans = uint32_t(grouping.spans.size()) - span;
            for (uint64_t first = starts[cell]; first < starts[cell + 1]; first += panel) {
                const auto count = uint32_t(std::min(panel, starts[cell + 1] - first));
                grouping.groups.push_back({uint32_t(first), count, span, spans});
            }
        }
    }
    return grouping;
}

Grouping group_all(const CellRows& rows, const std::vector<uint32_t>& blocks, uint32_t queries) {
    Grouping grouping;
    const uint32_t panel = queries_per_panel(rows.layout());
    for (size_t block = 0; block < blocks.size(); block += kMostGroupBlocks) {
        const auto span = uint32_t(grouping.spans.size());
        add_spans(rows, &blocks[block], std::min(blocks.size() - block, size_t(kMostGroupBlocks)), grouping.spans);
        const uint32_t spans = uint32_t(grouping.spans.size()) - span;
        for (uint32_t first = 0; first < queries; first += panel) {
            grouping.groups.push_back({first, std::min(panel, queries - first), span, spans});
        }
    }
    return grouping;
}

} // namespace stream_cluster

// The codes of one space, resident in packed blocks that each belong to one cell.
#pragma once

#include <memory>
#include <vector>

#include "match.h"
#include "packed_rows.h"

namespace stream_cluster {

constexpr uint32_t kNowhere = UINT32_MAX; // the slot of a removed row, the row of a free slot, the cell of either

// A slot is a place in a block: 64 * number of the block + place. A row keeps its number for ever, but may change
// its slot: the rows of a cell fill its blocks without gaps, the last one excepted, so the last row of a cell
// moves to the place of one that is removed. Blocks never move; one that became empty is given to the next cell
// that grows. Not thread-safe: the caller keeps changes apart from each other, from reading and from searches.
class CellRows {
public:
    // `file`: an open file, not written by others, that holds the codes instead of memory; -1: none. It is closed
    // with the rows. std::invalid_argument unless 1 <= dim <= 4096.
    CellRows(int dim, int file);
    ~CellRows();
    CellRows(const CellRows&) = delete;
    CellRows& operator=(const CellRows&) = delete;

    const Layout& layout() const { return layout_; }
    uint32_t size() const { return uint32_t(slot_of_.size()); } // rows ever appended, removed ones included
    uint32_t removed_count() const { return removed_; }
    uint32_t cell_count() const { return uint32_t(cells_.size()); }
    uint32_t rows_in(uint32_t cell) const { return cells_.at(cell).rows; }
    size_t bytes() const;                                       // allocated, in the file too
    size_t file_bytes() const { return file_bytes_; }

    void add_cells(uint32_t count) { cells_.resize(cells_.size() + count); }

    // Add rows, each to a cell, or to none (`kNowhere`): such a row is removed from the beginning.
    // std::invalid_argument when a code is -128 or there are too many rows, std::out_of_range for another cell;
    // nothing is added then.
    void append(const int8_t* codes, size_t count, const uint32_t* cells);
    // Move a row to another cell. std::out_of_range for a row or cell that is not there.
    void move(uint32_t row, uint32_t cell);
    // Erase a row; harmless when repeated.
    void remove(uint32_t row);

    // std::out_of_range unless row < size(). A removed row is zero.
    bool is_removed(uint32_t row) const { return slot_of_.at(row) == kNowhere; }
    uint32_t cell_of(uint32_t row) const;
    float norm(uint32_t row) const;
    void get(uint32_t row, int8_t* code) const;

    // The row in a slot of a hit.
    uint32_t row_at(uint32_t slot) const { return row_of_[slot]; }
    uint32_t cell_at(uint32_t slot) const { return cell_of_block_[slot / kBlockRows]; }
    uint32_t block_count() const { return uint32_t(cell_of_block_.size()); } // free ones included
    const std::vector<uint32_t>& blocks_of(uint32_t cell) const { return cells_.at(cell).blocks; }
    // The rows of a block of a cell; its positions are slots. `blocks` of them that lie one after another.
    Span span_of(uint32_t block, uint32_t blocks) const;
    // Whether two blocks lie one after another in the same chunk.
    bool adjoining(uint32_t block, uint32_t next) const;
    std::vector<uint32_t> rows_of(uint32_t cell) const;

private:
    struct Cell {
        std::vector<uint32_t> blocks;
        uint32_t rows = 0;
    };

    size_t chunk_of(uint32_t block) const;
    uint8_t* codes_of(uint32_t block) const;
    BlockFacts& facts_of_block(uint32_t block) const;
    uint32_t take_block(uint32_t cell);
    void grow();
    // A slot at the end of a cell, for `row`.
    uint32_t take_slot(uint32_t cell, uint32_t row);
    // Close the gap that a row leaves in its cell.
    void leave(uint32_t slot);

    Layout layout_;
    const int file_;
    size_t file_bytes_ = 0;
    uint32_t most_blocks_; // of a chunk, a power of two
    std::vector<std::unique_ptr<Chunk>> chunks_;
    uint32_t capacity_ = 0; // blocks
    std::vector<uint32_t> slot_of_;       // of each row
    std::vector<uint32_t> row_of_;        // of each slot
    std::vector<uint32_t> cell_of_block_; // kNowhere: free
    std::vector<uint32_t> free_;
    std::vector<Cell> cells_;
    uint32_t removed_ = 0;
    std::vector<int8_t> scratch_;
};

// Codes of an array as queries: position p is the code of query `numbers[p]`. The memory has to outlive the source.
std::unique_ptr<Source> grouped_source(const int8_t* codes, size_t count, int dim, std::vector<uint32_t> numbers);

// The rows of cells as what queries are compared with; it has no codes by position.
std::unique_ptr<Source> cells_source(const CellRows& cells);

// Each query against the rows of its cells: `cells[offsets[q]] .. cells[offsets[q + 1] - 1]`, each once. Sets the
// positions of `grouped_source`. std::out_of_range for a cell that is not there.
Grouping group_by_cell(const CellRows& rows, const uint64_t* offsets, size_t queries, const uint32_t* cells,
                       std::vector<uint32_t>& numbers);

// All queries against these blocks (ascending).
Grouping group_all(const CellRows& rows, const std::vector<uint32_t>& blocks, uint32_t queries);

} // namespace stream_cluster

// The core routine: panels of queries against tiles of rows, unit of work by unit of work.
#pragma once

#include <atomic>
#include <vector>

#include "cut_choice.h"
#include "hits.h"
#include "panel.h"
#include "sketch_panel.h"
#include "source.h"

namespace stream_cluster {

// Which queries are compared with which rows, where that is not all with all.
struct Grouping {
    struct Group {
        uint32_t panel_first; // of the queries, at most `queries_per_panel`
        uint32_t panel_count;
        uint32_t first_span; // of `spans`
        uint32_t span_count;
    };
    std::vector<Span> spans;
    std::vector<Group> groups;
};

// Queries of one group, which are compared with its rows block by block while those are in a cache.
uint32_t queries_per_panel(const Layout& layout);

struct Plan {
    const Source* queries;
    const Source* rows;
    float threshold;
    bool triangle;      // both sides are the same: only pairs with query < row
    uint32_t first_row; // rows before it do not count
    const TileKernel* kernel;
    const Grouping* grouping = nullptr; // null: every query with every row
};

// All units of a plan: a panel of queries and a tile of rows each, or several tiles where there is a grouping.
// The threads take one after another.
class Work {
public:
    Work(const Plan& plan, int threads);

    struct Unit {
        uint32_t panel_first;
        uint32_t panel_count;
        const Span* span; // the first
        uint32_t span_count;
    };

    // The next unit, in order; false when there are no more.
    bool take(Unit& unit);

    void done(const Unit& unit) { pairs_done_ += pairs_of(unit); }
    double progress() const;

    // Both sides have sketches by the same rotation, and the threshold is one that they help with.
    bool use_sketches() const;

    // Sketches that are not there are made first: in pieces, so that a thread can be stopped in between.
    bool sketched() const { return plan_.queries->sketched(); }
    bool sketch_some() const { return plan_.queries->sketch_some(*plan_.kernel); }

    const Plan& plan() const { return plan_; }
    size_t unit_count() const { return unit_count_; }
    double multiplications() const { return double(pairs_) * plan_.rows->layout().dim; }

private:
    static uint64_t pairs_of(const Unit& unit);
    void take_grouping();

    const Plan plan_;
    std::vector<Span> spans_;
    uint32_t panel_size_;
    std::vector<size_t> panel_units_; // number of the first unit of each panel, and of all units
    std::vector<size_t> panel_spans_; // first span of each panel
    size_t unit_count_ = 0;
    uint64_t pairs_ = 0;
    std::atomic<size_t> next_{0};
    std::atomic<uint64_t> pairs_done_{0};
};

// One thread's part. `step` does a small piece, so that the thread can stop, wait or deliver in between.
class Worker {
public:
    explicit Worker(Work& work);

    // One group of queries against one tile of rows, about; hits are added to `hits`, until it holds at
    // least `full`. False when no work is left.
    bool step(Hits& hits, size_t full);

private:
    bool begin_unit();
    void begin_span();
    void compare(uint32_t group, uint32_t block, Hits& hits);
    // These set `result_` and say whether there are candidates; the tests learn.
    bool by_codes(Tile& tile, uint32_t group, uint32_t block, CutChoice::Test* test);
    bool by_sketches(Tile& tile, uint32_t group, uint32_t block, CutChoice::Test* test);
    bool by_cells(const Tile& tile, uint32_t size, const uint64_t* cells);
    void emit(uint32_t group, uint32_t block, Hits& hits) const;

    Work& work_;
    const Plan& plan_;
    const Layout layout_;
    const bool sketches_;
    QueryPanel panel_;
    SketchPanel sketch_panel_;
    bool panel_filled_ = false;
    TileBuffer buffer_;
    CutChoice cuts_;
    TileResult result_;
    Work::Unit unit_{};
    RowTile tile_{};
    bool in_unit_ = false;
    uint32_t span_ = 0; // of the unit
    uint32_t group_ = 0;
    uint32_t block_ = 0;
};

} // namespace stream_cluster

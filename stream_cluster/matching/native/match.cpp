#include "match.h"

#include <algorithm>
#include <thread>

namespace stream_cluster {
namespace {

// A tile of rows stays in the second-level cache while all queries of a panel pass over it.
constexpr size_t kTileBytes = size_t(256) << 10;
constexpr uint32_t kMostTileRows = 2048;
// A panel is read once per tile of rows, in order: from memory if need be. All tiles are packed once per panel,
// so a small one costs more packing.
constexpr size_t kPanelBytes = size_t(4) << 20;
constexpr uint32_t kMostPanelQueries = 16384;
constexpr uint32_t kFewestPanelQueries = 16 * kTileQueries;
constexpr size_t kUnitsPerThread = 8; // so that threads end at about the same time
// Below it, nearly every pair of descriptors is a hit or nearly one, and zero rows are hits of everything.
constexpr float kLowestForSketches = 0.05f;
// Of the work for a tile, comparing one of its cells alone.
constexpr float kShareOfCell = 0.08f;
constexpr int kMostCells = 9;

uint32_t rows_per_tile(const Layout& layout) {
    const size_t fitting = kTileBytes / layout.row_bytes() / kBlockRows * kBlockRows;
    return uint32_t(std::clamp(fitting, size_t(kBlockRows), size_t(kMostTileRows)));
}

} // namespace

uint32_t queries_per_panel(const Layout& layout) {
    const size_t fitting = kPanelBytes / layout.row_bytes() / kTileQueries * kTileQueries;
    return uint32_t(std::clamp(fitting, size_t(kFewestPanelQueries), size_t(kMostPanelQueries)));
}

Work::Work(const Plan& plan, int threads) : plan_(plan) {
    const uint32_t queries = plan_.queries->size();
    const bool nothing = !(plan_.threshold < 1.0f) || queries == 0; // nothing is above 1, or above NaN
    if (nothing) return;
    if (plan_.grouping) {
        take_grouping();
        return;
    }
    const Layout& layout = plan_.rows->layout();
    uint32_t tile_rows = rows_per_tile(layout);
    panel_size_ = queries_per_panel(layout);
    const auto units = [&] {
        const size_t panels = (size_t(queries) + panel_size_ - 1) / panel_size_;
        return panels * ((plan_.rows->size() + tile_rows - 1) / tile_rows);
    };
    const size_t wanted = kUnitsPerThread * size_t(threads);
    while (units() < wanted && panel_size_ > kFewestPanelQueries) panel_size_ = (panel_size_ / 2 + 5) / 6 * 6;
    while (units() < wanted && tile_rows > kBlockRows) tile_rows = (tile_rows / 2 + 63) / 64 * 64;
    spans_ = plan_.rows->spans(tile_rows);
    size_t span = 0;
    for (uint64_t first = 0; first < queries; first += panel_size_) {
        const uint32_t lowest = plan_.triangle ? uint32_t(first) + 1 : plan_.first_row;
        while (span < spans_.size() && spans_[span].first + spans_[span].count <= lowest) ++span;
        panel_units_.push_back(unit_count_);
        panel_spans_.push_back(span);
        unit_count_ += spans_.size() - span;
        const uint64_t count = std::min(uint64_t(panel_size_), queries - first);
        for (size_t s = span; s < spans_.size(); ++s) pairs_ += count * spans_[s].count;
    }
    panel_units_.push_back(unit_count_);
}

void Work::take_grouping() {
    unit_count_ = plan_.grouping->groups.size();
    for (const auto& group : plan_.grouping->groups) {
        const Span* span = &plan_.grouping->spans[group.first_span];
        pairs_ += pairs_of({group.panel_first, group.panel_count, span, group.span_count});
    }
}

uint64_t Work::pairs_of(const Unit& unit) {
    uint64_t rows = 0;
    for (uint32_t i = 0; i < unit.span_count; ++i) rows += unit.span[i].count;
    return rows * unit.panel_count;
}

bool Work::take(Unit& unit) {
    const size_t number = next_.fetch_add(1, std::memory_order_relaxed);
    if (number >= unit_count_) return false;
    if (plan_.grouping) {
        const Grouping::Group& group = plan_.grouping->groups[number];
        unit = {group.panel_first, group.panel_count, &plan_.grouping->spans[group.first_span], group.span_count};
        return true;
    }
    const auto panel = size_t(std::upper_bound(panel_units_.begin(), panel_units_.end(), number) -
                              panel_units_.begin() - 1);
    unit.panel_first = uint32_t(panel) * panel_size_;
    unit.panel_count = std::min(panel_size_, plan_.queries->size() - unit.panel_first);
    unit.span = &spans_[panel_spans_[panel] + number - panel_units_[panel]];
    unit.span_count = 1;
    return true;
}

double Work::progress() const { return pairs_ ? double(pairs_done_.load()) / double(pairs_) : 1.0; }

bool Work::use_sketches() const {
    const Sketch* sketch = plan_.rows->sketch();
    return sketch != nullptr && sketch == plan_.queries->sketch() && plan_.threshold >= kLowestForSketches;
}

Worker::Worker(Work& work)
    : work_(work),
      plan_(work.plan()),
      layout_(plan_.rows->layout()),
      sketches_(work.use_sketches()),
      panel_(layout_, plan_.threshold),
      cuts_(layout_, sketches_ ? plan_.rows->sketch()->parts() : 0) {}

bool Worker::begin_unit() {
    if (!work_.take(unit_)) return false;
    if (!panel_filled_ || panel_.first() != unit_.panel_first || panel_.count() != unit_.panel_count) {
        panel_.fill(*plan_.queries, unit_.panel_first, unit_.panel_count);
        if (sketches_) sketch_panel_.fill(*plan_.queries, plan_.threshold, unit_.panel_first, unit_.panel_count);
        panel_filled_ = true;
    }
    in_unit_ = true;
    span_ = 0;
    begin_span();
    return true;
}

void Worker::begin_span() {
    tile_ = plan_.rows->load(unit_.span[span_], buffer_);
    group_ = 0;
    block_ = 0;
}

bool Worker::step(Hits& hits, size_t full) {
    if (!work_.sketched()) {
        if (!work_.sketch_some()) std::this_thread::yield(); // until others have made the last ones
        return true;
    }
    if (!in_unit_ && !begin_unit()) return false;
    for (; block_ < tile_.blocks; ++block_) {
        if (hits.size >= full) return true;
        compare(group_, block_, hits);
    }
    block_ = 0;
    if (++group_ == panel_.group_count()) {
        if (++span_ < unit_.span_count) {
            begin_span();
        } else {
            in_unit_ = false;
            work_.done(unit_);
        }
    }
    return true;
}

void Worker::compare(uint32_t group, uint32_t block, Hits& hits) {
    const uint32_t first_row = tile_.first + block * kBlockRows;
    const uint32_t lowest =
        plan_.triangle ? panel_.first() + group * kTileQueries + 1 : plan_.first_row;
    if (first_row + (kBlockRows - 1) < lowest) return;
    const BlockFacts& facts = tile_.facts[block];
    Tile tile;
    tile.rows = tile_.codes + block * layout_.block_bytes();
    tile.row_norms = facts.norms;
    tile.groups = layout_.groups;
    CutChoice::Test* test = cuts_.next();
    const bool sketch = test != nullptr && test->part >= 0;
    const bool any = sketch ? by_sketches(tile, group, block, test) : by_codes(tile, group, block, test);
    if (any) emit(group, block, hits);
}

bool Worker::by_codes(Tile& tile, uint32_t group, uint32_t block, CutChoice::Test* test) {
    const int cut = test == nullptr ? -1 : test->cut;
    panel_.set_queries(tile, group, cut);
    tile.row_rests = tile_.facts[block].rests[std::max(cut, 0)];
    const Outcome outcome = plan_.kernel->by_count[panel_.group_size(group) - 1](tile, result_);
    cuts_.learn(test, result_.tail_share);
    return outcome == Outcome::kCandidates;
}

bool Worker::by_sketches(Tile& tile, uint32_t group, uint32_t block, CutChoice::Test* test) {
    const SketchBlocks& sketches = *tile_.sketches;
    const uint32_t number = tile_.first_sketch_block + block;
    const uint32_t size = panel_.group_size(group);
    SketchTile sketch;
    sketch.rows = sketches.block(number);
    sketch.rests = sketches.rests(number, test->part);
    sketch.errors = sketches.errors(number, test->part);
    sketch_panel_.set_queries(sketch, group, test->part);
    uint64_t alive[kTileQueries];
    if (!plan_.kernel->sketch_by_count[size - 1](sketch, alive)) {
        cuts_.learn(test, 0.0f);
        return false;
    }
    int cells = 0;
    for (uint32_t i = 0; i < size; ++i) {
        for (int first = 0; first < kBlockRows; first += kCellRows) cells += (alive[i] >> first & 0xffff) != 0;
    }
    if (cells > kMostCells * int(size) / kTileQueries) {
        cuts_.learn(test, 1.0f);
        return by_codes(tile, group, block, nullptr);
    }
    cuts_.learn(test, kShareOfCell * float(cells) * float(kTileQueries) / float(size));
    panel_.set_queries(tile, group, -1);
    return by_cells(tile, size, alive);
}

bool Worker::by_cells(const Tile& tile, uint32_t size, const uint64_t* alive) {
    uint64_t any = 0;
    for (uint32_t i = 0; i < size; ++i) {
        uint64_t candidates = 0;
        for (int first = 0; first < kBlockRows; first += kCellRows) {
            if ((alive[i] >> first & 0xffff) == 0) continue;
            int32_t* dots = result_.dots[i] + first;
            plan_.kernel->cell(tile, int(i), int(size), first, dots);
            for (int r = 0; r < kCellRows; ++r) {
                candidates |= uint64_t(float(dots[r]) * tile.row_norms[first + r] > tile.bound[i]) << (first + r);
            }
        }
        result_.candidates[i] = candidates;
        any |= candidates;
    }
    return any != 0;
}

void Worker::emit(uint32_t group, uint32_t block, Hits& hits) const {
    hits.reserve_tile();
    const BlockFacts& facts = tile_.facts[block];
    const uint32_t first_row = tile_.first + block * kBlockRows;
    const uint32_t count = unit_.span[span_].first + unit_.span[span_].count - first_row;
    // Rows behind the end of the span may have been appended since the search began.
    const uint64_t there = facts.live & (count < kBlockRows ? (uint64_t(1) << count) - 1 : ~uint64_t(0));
    for (uint32_t i = 0; i < panel_.group_size(group); ++i) {
        uint64_t candidates = result_.candidates[i] & there;
        const uint32_t query = panel_.first() + group * kTileQueries + i;
        const uint32_t lowest = plan_.triangle ? query + 1 : plan_.first_row;
        if (first_row < lowest) {
            const uint32_t skipped = lowest - first_row;
            candidates = skipped >= kBlockRows ? 0 : candidates >> skipped << skipped;
        }
        const float norm = panel_.norm(group * kTileQueries + i);
        for (; candidates; candidates &= candidates - 1) {
            const int row = __builtin_ctzll(candidates);
            // The definition of similarity, see codes.py; compiled without contraction to fused operations.
            const float scale = norm * facts.norms[row];
            const float similarity = std::min(float(result_.dots[i][row]) * scale, 1.0f);
            hits.left[hits.size] = query;
            hits.right[hits.size] = first_row + uint32_t(row);
            hits.similarity[hits.size] = similarity;
            hits.size += similarity > plan_.threshold;
        }
    }
}

} // namespace stream_cluster

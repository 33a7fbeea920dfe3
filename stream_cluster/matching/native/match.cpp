#include "match.h"

#include <algorithm>

namespace stream_cluster {
namespace {

// A tile of rows stays in the second-level cache while all queries of a panel pass over it.
constexpr size_t kTileBytes = size_t(256) << 10;
constexpr uint32_t kMostTileRows = 2048;
// A panel is read once per tile of rows, from the third-level cache or from memory.
constexpr size_t kPanelBytes = size_t(2) << 20;
constexpr uint32_t kMostPanelQueries = 8192;
constexpr uint32_t kFewestPanelQueries = 16 * kTileQueries;
constexpr size_t kUnitsPerThread = 8; // so that threads end at about the same time

uint32_t rows_per_tile(const Layout& layout) {
    const size_t fitting = kTileBytes / layout.row_bytes() / kBlockRows * kBlockRows;
    return uint32_t(std::clamp(fitting, size_t(kBlockRows), size_t(kMostTileRows)));
}

uint32_t queries_per_panel(const Layout& layout) {
    const size_t fitting = kPanelBytes / layout.row_bytes() / kTileQueries * kTileQueries;
    return uint32_t(std::clamp(fitting, size_t(kFewestPanelQueries), size_t(kMostPanelQueries)));
}

} // namespace

Work::Work(const Plan& plan, int threads) : plan_(plan) {
    const uint32_t queries = plan_.queries->size();
    const bool nothing = !(plan_.threshold < 1.0f) || queries == 0; // nothing is above 1, or above NaN
    if (nothing) return;
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

bool Work::take(Unit& unit) {
    const size_t number = next_.fetch_add(1, std::memory_order_relaxed);
    if (number >= unit_count_) return false;
    const auto panel = size_t(std::upper_bound(panel_units_.begin(), panel_units_.end(), number) -
                              panel_units_.begin() - 1);
    unit.panel_first = uint32_t(panel) * panel_size_;
    unit.panel_count = std::min(panel_size_, plan_.queries->size() - unit.panel_first);
    unit.span = &spans_[panel_spans_[panel] + number - panel_units_[panel]];
    return true;
}

double Work::progress() const { return pairs_ ? double(pairs_done_.load()) / double(pairs_) : 1.0; }

Worker::Worker(Work& work)
    : work_(work),
      plan_(work.plan()),
      layout_(plan_.rows->layout()),
      panel_(layout_, plan_.threshold),
      cuts_(layout_) {}

bool Worker::begin_unit() {
    if (!work_.take(unit_)) return false;
    if (!panel_filled_ || panel_.first() != unit_.panel_first) {
        panel_.fill(*plan_.queries, unit_.panel_first, unit_.panel_count);
        panel_filled_ = true;
    }
    tile_ = plan_.rows->load(*unit_.span, buffer_);
    in_unit_ = true;
    group_ = 0;
    block_ = 0;
    return true;
}

bool Worker::step(Hits& hits, size_t full) {
    if (!in_unit_ && !begin_unit()) return false;
    for (; block_ < tile_.blocks; ++block_) {
        if (hits.size >= full) return true;
        compare(group_, block_, hits);
    }
    block_ = 0;
    if (++group_ == panel_.group_count()) {
        in_unit_ = false;
        work_.done(unit_);
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
    const int cut = cuts_.next();
    panel_.set_queries(tile, group, cut);
    tile.row_rests = facts.rests[std::max(cut, 0)];
    const Outcome outcome = plan_.kernel->by_count[panel_.group_size(group) - 1](tile, result_);
    cuts_.learn(cut, result_.tail_share);
    if (outcome == Outcome::kCandidates) emit(group, block, hits);
}

void Worker::emit(uint32_t group, uint32_t block, Hits& hits) const {
    hits.reserve_tile();
    const BlockFacts& facts = tile_.facts[block];
    const uint32_t first_row = tile_.first + block * kBlockRows;
    const uint32_t count = unit_.span->first + unit_.span->count - first_row;
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

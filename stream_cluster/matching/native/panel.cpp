#include "panel.h"

#include <algorithm>
#include <limits>

namespace stream_cluster {
namespace {

constexpr double kMargin = 1e-5;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

} // namespace

QueryPanel::QueryPanel(const Layout& layout, float threshold)
    : layout_(layout), threshold_(threshold), scratch_(size_t(layout.dim)) {}

uint32_t QueryPanel::group_size(uint32_t group) const {
    return std::min(uint32_t(kTileQueries), count_ - group * kTileQueries);
}

void QueryPanel::fill(const Source& source, uint32_t first, uint32_t count) {
    first_ = first;
    count_ = count;
    words_.resize(size_t(count) * layout_.groups);
    norms_.resize(count);
    bounds_.resize(count);
    head_bases_.resize(count);
    for (auto& slopes : head_slopes_) slopes.resize(count);
    for (auto& offsets : head_offsets_) offsets.resize(count);
    for (auto& offsets : tail_offsets_) offsets.resize(count);
    for (uint32_t query = 0; query < count; ++query) {
        set_bounds(query, source.facts(first + query), source.live(first + query));
        set_words(query, source.code(first + query, scratch_.data()));
    }
}

void QueryPanel::set_bounds(uint32_t query, const RowFacts& facts, bool live) {
    norms_[query] = facts.norm;
    if (!live || facts.norm == 0.0f) {
        const float bound = live && threshold_ < 0 ? -kInfinity : kInfinity;
        bounds_[query] = head_bases_[query] = bound;
        for (auto& slopes : head_slopes_) slopes[query] = 0.0f;
        return;
    }
    const double threshold = double(threshold_);
    const double slack = threshold < 0 ? 1.0 + kMargin : 1.0 - kMargin;
    bounds_[query] = float(threshold * slack / double(facts.norm));
    head_bases_[query] = float((threshold - kMargin) / double(facts.norm));
    for (int cut = 0; cut < kCuts; ++cut) {
        head_slopes_[cut][query] = float(facts.rests[cut] / (255.0 * 255.0) / double(facts.norm));
    }
}

void QueryPanel::set_words(uint32_t query, const int8_t* code) {
    const uint32_t group = query / kTileQueries;
    const uint32_t stride = group_size(group);
    int32_t* words = words_.data() + size_t(group) * kTileQueries * layout_.groups + query % kTileQueries;
    int32_t before[kCuts + 1]; // sums of the codes before each cut, and of all
    int32_t sum = 0;
    uint32_t done = 0;
    for (int cut = 0; cut <= kCuts; ++cut) {
        const uint32_t stop = cut == kCuts ? layout_.groups : layout_.cut_groups[cut];
        for (; done < stop; ++done) words[size_t(done) * stride] = get_word(layout_, code, done);
        const int last = std::min(int(stop) * 4, layout_.dim);
        for (int d = cut == 0 ? 0 : int(layout_.cut_groups[cut - 1]) * 4; d < last; ++d) sum += code[d];
        before[cut] = sum;
    }
    for (int cut = 0; cut < kCuts; ++cut) {
        head_offsets_[cut][query] = -128 * before[cut];
        tail_offsets_[cut][query] = -128 * (sum - before[cut]);
    }
    head_offsets_[kCuts][query] = 0;
    tail_offsets_[kCuts][query] = -128 * sum;
}

void QueryPanel::set_queries(Tile& tile, uint32_t group, int cut) const {
    const size_t first = size_t(group) * kTileQueries;
    const size_t offsets = cut < 0 ? size_t(kCuts) : size_t(cut);
    tile.queries = words_.data() + first * layout_.groups;
    tile.head_offset = head_offsets_[offsets].data() + first;
    tile.tail_offset = tail_offsets_[offsets].data() + first;
    tile.head_base = head_bases_.data() + first;
    tile.head_slope = head_slopes_[std::max(cut, 0)].data() + first;
    tile.bound = bounds_.data() + first;
    tile.head_groups = cut < 0 ? 0 : layout_.cut_groups[cut];
}

} // namespace stream_cluster

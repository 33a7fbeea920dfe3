#include "sketch_panel.h"

#include <algorithm>
#include <cstring>

namespace stream_cluster {

void SketchPanel::fill(const Source& source, float threshold, uint32_t first, uint32_t count) {
    const Sketch& sketch = *source.sketch();
    const int32_t least_sum = sketch.least_sum(threshold);
    groups_ = uint32_t(sketch.parts()) * kPartGroups;
    words_.resize(size_t(count) * groups_);
    for (int part = 0; part < sketch.parts(); ++part) {
        rest_words_[part].resize(count);
        offsets_[part].resize(count);
        unsigned_offsets_[part].resize(count);
    }
    for (uint32_t query = 0; query < count; ++query) {
        const uint32_t first_of_group = query / kTileQueries * kTileQueries;
        const uint32_t stride = std::min(uint32_t(kTileQueries), count - first_of_group);
        int32_t* words = words_.data() + size_t(first_of_group) * groups_ + query % kTileQueries;
        const SketchRow row = source.sketch_row(first + query);
        const bool live = source.live(first + query);
        for (uint32_t group = 0; group < groups_; ++group) {
            std::memcpy(words + size_t(group) * stride, row.codes + 4 * group, 4);
        }
        int32_t sum = 0;
        for (int part = 0; part < sketch.parts(); ++part) {
            for (int d = part * kPartDims; d < (part + 1) * kPartDims; ++d) sum += row.codes[d];
            const int8_t rest = row.rests[part];
            const int8_t rests[4] = {rest, rest, rest, rest};
            std::memcpy(&rest_words_[part][query], rests, 4);
            offsets_[part][query] = live ? row.errors[part] - least_sum : kNever;
            unsigned_offsets_[part][query] = offsets_[part][query] - 128 * (sum + 4 * rest);
        }
    }
}

void SketchPanel::set_queries(SketchTile& tile, uint32_t group, int part) const {
    const size_t first = size_t(group) * kTileQueries;
    tile.queries = words_.data() + first * groups_;
    tile.rest_queries = rest_words_[part].data() + first;
    tile.offset = offsets_[part].data() + first;
    tile.unsigned_offset = unsigned_offsets_[part].data() + first;
    tile.groups = uint32_t(part + 1) * kPartGroups;
}

} // namespace stream_cluster

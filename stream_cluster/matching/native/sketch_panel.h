// The sketches of the queries that a thread works on, laid out for the tile kernels.
#pragma once

#include <vector>

#include "source.h"

namespace stream_cluster {

class SketchPanel {
public:
    // Take the positions first .. first + count - 1 of a source that has sketches.
    void fill(const Source& source, float threshold, uint32_t first, uint32_t count);

    // Fill in the part of a tile that is about a group of six queries, for the bound after `part`.
    void set_queries(SketchTile& tile, uint32_t group, int part) const;

private:
    uint32_t groups_ = 0;          // of four codes, without the rests
    std::vector<int32_t> words_;
    // By part:
    std::vector<int32_t> rest_words_[kMostParts];
    std::vector<int32_t> offsets_[kMostParts];
    std::vector<int32_t> unsigned_offsets_[kMostParts];
};

} // namespace stream_cluster

// The queries that a thread works on, laid out for the tile kernels, with the bounds that spare work.
#pragma once

#include <vector>

#include "source.h"

namespace stream_cluster {

// The bounds. A pair is a hit when float(dot) * (norm_q * norm_r) > threshold. All steps of that are rounded
// by at most 2**-24 of their value, and |cosine| <= 1, so with a margin of 1e-5 no hit is lost when
//
//   whole:       float(dot) * norm_r > (threshold -+ 1e-5 of it) / norm_q           , and
//   head:        float(dot of the head) * norm_r + rest_r * rest_q / norm_q > (threshold - 1e-5) / norm_q
//
// since by Cauchy-Schwarz the tail adds at most rest_q * rest_r to the cosine, where rest is the norm of a
// code's tail / norm of the code. Without a norm (an all-zero query) the similarity is 0: every row passes
// when the threshold is negative, none otherwise. What passes is tested by the definition.
class QueryPanel {
public:
    QueryPanel(const Layout& layout, float threshold);

    // Take the positions first .. first + count - 1 of a source.
    void fill(const Source& source, uint32_t first, uint32_t count);

    uint32_t first() const { return first_; }
    uint32_t count() const { return count_; }

    // Queries are used in groups of six, the last one smaller.
    uint32_t group_count() const { return (count_ + kTileQueries - 1) / kTileQueries; }
    uint32_t group_size(uint32_t group) const;

    float norm(uint32_t query) const { return norms_[query]; }

    // Fill in the part of a tile that is about a group. `cut` -1: without a test of the head.
    void set_queries(Tile& tile, uint32_t group, int cut) const;

private:
    void set_bounds(uint32_t query, const RowFacts& facts, bool live);
    void set_words(uint32_t query, const int8_t* code);

    const Layout layout_;
    const float threshold_;
    uint32_t first_ = 0;
    uint32_t count_ = 0;
    std::vector<int32_t> words_;
    std::vector<float> norms_;
    std::vector<float> bounds_;
    std::vector<float> head_bases_;                // (threshold - 1e-5) / norm
    std::vector<float> head_slopes_[kCuts];        // rest / norm, for rests of rows in 255ths
    std::vector<int32_t> head_offsets_[kCuts + 1]; // -128 * sum of codes before each cut; the last one: zeros
    std::vector<int32_t> tail_offsets_[kCuts + 1]; // of the rest; the last one: of the whole
    std::vector<int8_t> scratch_;
};

} // namespace stream_cluster

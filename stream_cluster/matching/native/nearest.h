// The centroids most like each of some codes.
#pragma once

#include "packed_rows.h"

namespace stream_cluster {

struct Nearest {
    uint32_t centroid;
    float similarity;
};

// For each of the codes the centroids with a similarity above that of the best - margin (the best and its equals always,
// if any is live), at most `most`, the most similar first; equal ones by number. `found[q]` is set for each query.
// std::invalid_argument for a code of -128.
void find_nearest(const PackedRows& centroids, const int8_t* codes, size_t count, float margin, uint32_t most,
                  int threads, const TileKernel& kernel, std::vector<std::vector<Nearest>>& found);

// The same for most = 1: `best[q]`.
void find_best(const PackedRows& centroids, const int8_t* codes, size_t count, int threads, const TileKernel& kernel,
               Nearest* best);

// Sums of the unit vectors of the codes of each centroid: `sums`, shape (centroids, dim), zero at first.
// The order of the additions depends on the order of the codes alone.
void add_up(const int8_t* codes, size_t count, int dim, const uint32_t* centroid, uint32_t centroids, int threads,
            float* sums);

} // namespace stream_cluster

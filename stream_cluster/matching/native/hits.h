// Hits as three parallel arrays that grow.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "tile.h"

namespace stream_cluster {

constexpr size_t kTileHits = size_t(kTileQueries) * kBlockRows; // most hits of one tile

struct Hits {
    std::unique_ptr<uint32_t[]> left;  // position of the query
    std::unique_ptr<uint32_t[]> right; // position of the row
    std::unique_ptr<float[]> similarity;
    size_t size = 0;
    size_t capacity = 0;

    // Make room for the hits of one more tile.
    void reserve_tile() {
        if (capacity - size >= kTileHits) return;
        const size_t larger = std::max(2 * capacity, size + 4 * kTileHits);
        grow(left, larger);
        grow(right, larger);
        grow(similarity, larger);
        capacity = larger;
    }

private:
    template <class T>
    void grow(std::unique_ptr<T[]>& values, size_t larger) {
        std::unique_ptr<T[]> grown(new T[larger]);
        if (size) std::memcpy(grown.get(), values.get(), size * sizeof(T));
        values = std::move(grown);
    }
};

} // namespace stream_cluster

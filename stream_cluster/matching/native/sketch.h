// Sketches: a short second code of each row that tells of most pairs that they are no hit.
//
// The unit vector of a code is rotated so that its first values carry most of its length (the leading principal
// directions of the space, learned in sketch.py). With s the first k values and p the length of what is left,
// Cauchy-Schwarz gives
//
//   cosine(a, b) <= s_a . s_b + p_a p_b .
//
// Stored are integers: q = round(s / step), so s = step q + e, and with |s| <= 1
//
//   s_a . s_b <= step^2 q_a . q_b + E_a + E_b ,     E = |e| (1 + |e| / 2) ,
//
// and p / 2 step rounded up, four times, so that p_a p_b is part of the same dot product. What rounding of the
// rotation may have changed is added to E and p (see `Sketch::row_of`). A pair whose bound is not above the
// threshold is no hit; the others are compared by their codes. So sketches change no result, only the time.
//
// Values lie in parts of 32; the bound may be taken after each part, with a p and an E of its own.
#pragma once

#include <vector>

#include "packing.h"

namespace stream_cluster {

constexpr int kPartDims = 32;
constexpr uint32_t kPartGroups = kPartDims / 4;
constexpr int kMostParts = 4;
constexpr int kMostSketchDims = kPartDims * kMostParts;
// Added to a sum of a sketch, it makes it negative whatever the rest is: the row is no candidate.
constexpr int32_t kNever = -(1 << 29);

struct SketchRow {
    int8_t codes[kMostSketchDims];
    int8_t rests[kMostParts];   // p / 2 step, rounded up
    int32_t errors[kMostParts]; // E / step^2, rounded up
};

// A rotation, and how its values become integers. Never changes.
class Sketch {
public:
    // `rotation`: shape (dim, width), orthonormal columns to 1e-6; width is 32, 64, 96 or 128. `step`: at least
    // 1 / 253, so that every p fits. std::invalid_argument otherwise.
    Sketch(int dim, int width, const float* rotation, double step);

    int dim() const { return dim_; }
    int width() const { return parts_ * kPartDims; }
    int parts() const { return parts_; }
    uint32_t groups() const { return uint32_t(parts_) * (kPartGroups + 1); } // of a packed block
    size_t block_bytes() const { return size_t(groups()) * kGroupBytes; }
    const float* rotation() const { return rotation_.data(); }

    // The sum from which on a pair is a candidate at this threshold.
    int32_t least_sum(float threshold) const;

    // The sketch of a code: `values` are the products of the code with the rotation, `norm` its inverse norm.
    SketchRow row_of(const float* values, float norm) const;

private:
    int dim_;
    int parts_;
    double step_;
    double doubt_; // by how much the float32 values of a unit vector may be wrong, as a length
    std::vector<float> rotation_;
};

// Sketches of consecutive rows in packed blocks, as tile.h describes them: the groups of all parts, then for
// each part one group that holds its rest. Unused and erased rows are never candidates.
class SketchBlocks {
public:
    SketchBlocks(const Sketch& sketch, uint32_t rows);

    void put(uint32_t row, const SketchRow& sketch);
    void erase(uint32_t row);
    SketchRow get(uint32_t row) const;

    const uint8_t* block(uint32_t number) const { return codes_.get() + number * block_bytes_; }
    const uint8_t* rests(uint32_t number, int part) const {
        return block(number) + (uint32_t(parts_) * kPartGroups + uint32_t(part)) * kGroupBytes;
    }
    // Of its 64 rows.
    const int32_t* errors(uint32_t number, int part) const {
        return reinterpret_cast<const int32_t*>(errors_.get()) +
               (size_t(number) * size_t(parts_) + size_t(part)) * kBlockRows;
    }
    size_t bytes() const { return blocks_ * (block_bytes_ + size_t(parts_) * kBlockRows * 4); }

private:
    int parts_;
    size_t block_bytes_;
    size_t blocks_;
    AlignedBytes codes_;
    AlignedBytes errors_;
};

// Makes sketches of codes that come in any order, a few at a time.
class Sketcher {
public:
    Sketcher(const Sketch& sketch, const TileKernel& kernel, SketchBlocks& blocks);

    // Put the sketch of a code into a row of the blocks, now or with `flush`.
    void put(uint32_t row, const int8_t* code, float norm);
    void flush();

private:
    const Sketch& sketch_;
    const TileKernel& kernel_;
    SketchBlocks& blocks_;
    int count_ = 0;
    uint32_t rows_[kProjected] = {};
    float norms_[kProjected] = {};
    std::vector<float> codes_;  // shape (kProjected, dim)
    std::vector<float> values_; // shape (kProjected, width)
};

} // namespace stream_cluster

#include "sketch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace stream_cluster {
namespace {

// To the nearest integer, for magnitudes below 2^51. Without SSE4.1, std::nearbyint would be a call for each.
double rounded(double value) {
    constexpr double kIntegersFrom = 6755399441055744.0; // 1.5 * 2^52
    return (value + kIntegersFrom) - kIntegersFrom;
}

} // namespace

Sketch::Sketch(int dim, int width, const float* rotation, double step)
    : dim_(dim), parts_(width / kPartDims), step_(step), rotation_(rotation, rotation + size_t(dim) * size_t(width)) {
    if (width < kPartDims || width > kMostSketchDims || width % kPartDims != 0 || width > dim) {
        throw std::invalid_argument("rotation: found " + std::to_string(width) + " columns, expected 32, 64, 96 or " +
                                    "128, and at most the dimension " + std::to_string(dim));
    }
    if (!(step >= 1.0 / 253)) throw std::invalid_argument("step: expected 1/253 or more");
    // Sums of dim float32 products: each value is off by at most dim * 2^-24, as |code| |column| = 1 (Higham,
    // Accuracy and Stability of Numerical Algorithms, 3.1); 1e-5 for columns that are not quite orthonormal.
    doubt_ = double(dim) * std::ldexp(1.0, -24) * std::sqrt(double(width)) + 1e-5;
}

int32_t Sketch::least_sum(float threshold) const {
    return int32_t(std::floor(double(threshold) / (step_ * step_)));
}

SketchRow Sketch::row_of(const float* values, float norm) const {
    SketchRow row{};
    if (norm == 0.0f) { // similar to nothing
        std::fill(row.errors, row.errors + parts_, kNever);
        return row;
    }
    const double steps_per_one = 1.0 / step_;
    double inside = 0.0, wrong = 0.0; // squares of s and of e so far
    for (int part = 0; part < parts_; ++part) {
        for (int d = part * kPartDims; d < (part + 1) * kPartDims; ++d) {
            const double value = double(values[d]) * double(norm);
            const double code = std::clamp(rounded(value * steps_per_one), double(-kCodeMax), double(kCodeMax));
            const double error = value - code * step_;
            inside += value * value;
            wrong += error * error;
            row.codes[d] = int8_t(code);
        }
        const double rest = std::sqrt(std::max(0.0, 1.0 - inside + 3.0 * doubt_));
        row.rests[part] = int8_t(std::min(std::ceil(rest / (2.0 * step_)), double(kCodeMax)));
        const double error = std::sqrt(wrong);
        row.errors[part] = int32_t(std::ceil((error * (1.0 + error / 2.0) + 1.5 * doubt_) / (step_ * step_)));
    }
    return row;
}

SketchBlocks::SketchBlocks(const Sketch& sketch, uint32_t rows)
    : parts_(sketch.parts()),
      block_bytes_(sketch.block_bytes()),
      blocks_((rows + kBlockRows - 1) / kBlockRows),
      codes_(aligned_bytes(blocks_ * block_bytes_)),
      errors_(aligned_bytes(blocks_ * size_t(parts_) * kBlockRows * 4)) {
    std::memset(codes_.get(), 128, blocks_ * block_bytes_);
    auto* errors = reinterpret_cast<int32_t*>(errors_.get());
    std::fill(errors, errors + blocks_ * size_t(parts_) * kBlockRows, kNever);
}

void SketchBlocks::put(uint32_t row, const SketchRow& sketch) {
    uint8_t* packed = codes_.get() + row / kBlockRows * block_bytes_;
    const int place = int(row % kBlockRows);
    const uint32_t groups = uint32_t(parts_) * kPartGroups;
    for (uint32_t group = 0; group < groups; ++group) put_word(packed, group, place, sketch.codes + 4 * group);
    for (int part = 0; part < parts_; ++part) {
        const int8_t rest = sketch.rests[part];
        const int8_t word[4] = {rest, rest, rest, rest};
        put_word(packed, groups + uint32_t(part), place, word);
        const_cast<int32_t*>(errors(row / kBlockRows, part))[place] = sketch.errors[part];
    }
}

void SketchBlocks::erase(uint32_t row) {
    SketchRow nothing{};
    std::fill(nothing.errors, nothing.errors + kMostParts, kNever);
    put(row, nothing);
}

SketchRow SketchBlocks::get(uint32_t row) const {
    SketchRow sketch{};
    const uint8_t* packed = block(row / kBlockRows);
    const int place = int(row % kBlockRows);
    const uint32_t groups = uint32_t(parts_) * kPartGroups;
    for (uint32_t group = 0; group < groups; ++group) {
        const int32_t word = get_word(packed, group, place);
        std::memcpy(sketch.codes + 4 * group, &word, 4);
    }
    for (int part = 0; part < parts_; ++part) {
        sketch.rests[part] = int8_t(get_word(packed, groups + uint32_t(part), place));
        sketch.errors[part] = errors(row / kBlockRows, part)[place];
    }
    return sketch;
}

Sketcher::Sketcher(const Sketch& sketch, const TileKernel& kernel, SketchBlocks& blocks)
    : sketch_(sketch),
      kernel_(kernel),
      blocks_(blocks),
      codes_(size_t(kProjected) * size_t(sketch.dim())),
      values_(size_t(kProjected) * size_t(sketch.width())) {}

void Sketcher::put(uint32_t row, const int8_t* code, float norm) {
    std::copy(code, code + sketch_.dim(), codes_.begin() + count_ * sketch_.dim());
    rows_[count_] = row;
    norms_[count_] = norm;
    if (++count_ == kProjected) flush();
}

void Sketcher::flush() {
    // What is left of earlier codes in the other places does no harm.
    if (count_) kernel_.project(codes_.data(), sketch_.dim(), sketch_.rotation(), sketch_.width(), values_.data());
    for (int i = 0; i < count_; ++i) {
        blocks_.put(rows_[i], sketch_.row_of(values_.data() + size_t(i) * size_t(sketch_.width()), norms_[i]));
    }
    count_ = 0;
}

} // namespace stream_cluster

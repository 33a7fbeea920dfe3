// Products of codes with a rotation; included by the files of the instruction sets, which define in
// PROJECT_BYTES how wide their vectors are.
#pragma once

#include "tile.h"

namespace stream_cluster {
namespace {

using Floats = float __attribute__((vector_size(PROJECT_BYTES), aligned(4), may_alias));

// Four codes by two vectors of columns at a time: eight sums that stay in registers.
void project(const float* codes, int dim, const float* rotation, int width, float* values) {
    constexpr int kLanes = PROJECT_BYTES / int(sizeof(float));
    for (int column = 0; column < width; column += 2 * kLanes) {
        Floats sums[kProjected][2] = {};
        const float* rows = rotation + column;
        for (int d = 0; d < dim; ++d, rows += width) {
            const Floats low = *reinterpret_cast<const Floats*>(rows);
            const Floats high = *reinterpret_cast<const Floats*>(rows + kLanes);
            for (int i = 0; i < kProjected; ++i) {
                const float code = codes[i * dim + d];
                sums[i][0] += low * code;
                sums[i][1] += high * code;
            }
        }
        for (int i = 0; i < kProjected; ++i) {
            float* out = values + i * width + column;
            *reinterpret_cast<Floats*>(out) = sums[i][0];
            *reinterpret_cast<Floats*>(out + kLanes) = sums[i][1];
        }
    }
}

} // namespace
} // namespace stream_cluster

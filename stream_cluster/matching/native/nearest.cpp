#include "nearest.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "panel.h"
#include "shares.h"

namespace stream_cluster {
namespace {

constexpr float kMargin = 1e-5f; // far above the rounding of a similarity
constexpr size_t kTileBytes = size_t(256) << 10;
constexpr uint32_t kPanel = 32 * kTileQueries;

bool before(const Nearest& a, const Nearest& b) {
    return a.similarity != b.similarity ? a.similarity > b.similarity : a.centroid < b.centroid;
}

// What was found so far for one query, and what others must exceed.
struct Found {
    std::vector<Nearest> candidates;
    float best = -std::numeric_limits<float>::infinity();
    float bar = -std::numeric_limits<float>::infinity(); // by `most`

    void prune(float margin, uint32_t most) {
        const float least = best - margin;
        const auto last = std::remove_if(candidates.begin(), candidates.end(), [&](const Nearest& one) {
            return one.similarity <= least && one.similarity < best;
        });
        candidates.erase(last, candidates.end());
        if (candidates.size() <= most) return;
        std::nth_element(candidates.begin(), candidates.begin() + (most - 1), candidates.end(), before);
        candidates.resize(most);
        bar = candidates.back().similarity;
    }
};

class Finder {
public:
    Finder(const PackedRows& centroids, const Source& source, float margin, uint32_t most, const TileKernel& kernel)
        : centroids_(centroids),
          source_(source),
          margin_(margin),
          most_(most),
          kernel_(kernel),
          panel_(centroids.layout(), -2.0f) {}

    // Queries first .. first + count - 1, at most `kPanel`.
    void find(uint32_t first, uint32_t count) {
        panel_.fill(source_, first, count);
        found_.assign(count, Found{});
        bounds_.assign(count, -std::numeric_limits<float>::infinity());
        const Layout& layout = centroids_.layout();
        const auto tile_blocks = uint32_t(std::max(kTileBytes / layout.block_bytes(), size_t(1)));
        for (const auto& chunk : centroids_.chunks()) {
            const uint32_t rows = std::min(chunk->capacity, centroids_.size() - chunk->first_row);
            const uint32_t blocks = (rows + kBlockRows - 1) / kBlockRows;
            for (uint32_t block = 0; block < blocks; block += tile_blocks) {
                for (uint32_t group = 0; group < panel_.group_count(); ++group) {
                    const uint32_t stop = std::min(blocks, block + tile_blocks);
                    for (uint32_t b = block; b < stop; ++b) compare(*chunk, b, group);
                }
            }
        }
        for (auto& found : found_) {
            found.prune(margin_, most_);
            std::sort(found.candidates.begin(), found.candidates.end(), before);
        }
    }

    std::vector<Nearest>& of(uint32_t query) { return found_[query].candidates; }

private:
    void compare(const Chunk& chunk, uint32_t block, uint32_t group) {
        Tile tile;
        tile.rows = chunk.codes.get() + block * centroids_.layout().block_bytes();
        const BlockFacts& facts = chunk.facts[block];
        tile.row_norms = facts.norms;
        tile.row_rests = facts.rests[0];
        tile.groups = centroids_.layout().groups;
        panel_.set_queries(tile, group, -1);
        tile.bound = bounds_.data() + size_t(group) * kTileQueries;
        if (kernel_.by_count[panel_.group_size(group) - 1](tile, result_) == Outcome::kNothing) return;
        const uint32_t first_row = chunk.first_row + block * kBlockRows;
        for (uint32_t i = 0; i < panel_.group_size(group); ++i) {
            uint64_t candidates = result_.candidates[i] & facts.live;
            if (candidates) take(group * kTileQueries + i, int(i), candidates, first_row, facts);
        }
    }

    void take(uint32_t query, int i, uint64_t candidates, uint32_t first_row, const BlockFacts& facts) {
        Found& found = found_[query];
        const float norm = panel_.norm(query);
        for (; candidates; candidates &= candidates - 1) {
            const int row = __builtin_ctzll(candidates);
            const float scale = norm * facts.norms[row];
            const float similarity = std::min(float(result_.dots[i][row]) * scale, 1.0f);
            if (similarity < found.bar) continue;
            found.best = std::max(found.best, similarity);
            found.candidates.push_back({first_row + uint32_t(row), similarity});
        }
        if (found.candidates.size() > 2 * size_t(most_)) found.prune(margin_, most_);
        const float least = std::max(found.best - margin_, found.bar) - kMargin;
        // A zero code is like no centroid: any will do.
        bounds_[query] = norm > 0 ? least / norm : std::numeric_limits<float>::infinity();
    }

    const PackedRows& centroids_;
    const Source& source_;
    const float margin_;
    const uint32_t most_;
    const TileKernel& kernel_;
    QueryPanel panel_;
    std::vector<Found> found_;
    std::vector<float> bounds_;
    TileResult result_;
};

template <class Take>
void for_each_query(const PackedRows& centroids, const int8_t* codes, size_t count, float margin, uint32_t most,
                    int threads, const TileKernel& kernel, Take take) {
    const auto source = array_source(codes, count, centroids.layout().dim, nullptr, 0);
    const bool alone = double(count) * double(centroids.size()) * centroids.layout().dim < 8e6;
    for_each_share(uint32_t(count), alone ? 1 : threads, [&](uint32_t first, uint32_t last) {
        Finder finder(centroids, *source, margin, most, kernel);
        for (; first < last; first += std::min(kPanel, last - first)) {
            const uint32_t size = std::min(kPanel, last - first);
            finder.find(first, size);
            for (uint32_t query = 0; query < size; ++query) take(first + query, finder.of(query));
        }
    });
}

} // namespace

void find_nearest(const PackedRows& centroids, const int8_t* codes, size_t count, float margin, uint32_t most,
                  int threads, const TileKernel& kernel, std::vector<std::vector<Nearest>>& found) {
    found.resize(count);
    for_each_query(centroids, codes, count, margin, std::max(most, 1u), threads, kernel,
                   [&](uint32_t query, std::vector<Nearest>& nearest) { found[query] = std::move(nearest); });
}

void find_best(const PackedRows& centroids, const int8_t* codes, size_t count, int threads, const TileKernel& kernel,
               Nearest* best) {
    for_each_query(centroids, codes, count, 0.0f, 1, threads, kernel,
                   [&](uint32_t query, const std::vector<Nearest>& nearest) {
                       best[query] = nearest.empty() ? Nearest{0, 0.0f} : nearest.front();
                   });
}

void add_up(const int8_t* codes, size_t count, int dim, const uint32_t* centroid, uint32_t centroids, int threads,
            float* sums) {
    const auto width = size_t(dim);
    std::vector<float> inverse(count);
    for_each_share(uint32_t(count), threads, [&](uint32_t first, uint32_t last) {
        for (uint32_t i = first; i < last; ++i) {
            int32_t squares = 0;
            for (size_t d = 0; d < width; ++d) squares += int32_t(codes[i * width + d]) * codes[i * width + d];
            inverse[i] = squares ? float(1.0 / std::sqrt(double(squares))) : 0.0f;
        }
    });
    // Each thread adds up centroids of its own, so that the order is that of the codes whatever the threads.
    for_each_share(centroids, threads, [&](uint32_t first, uint32_t last) {
        for (size_t i = 0; i < count; ++i) {
            if (centroid[i] < first || centroid[i] >= last) continue;
            float* sum = sums + size_t(centroid[i]) * width;
            const int8_t* code = codes + i * width;
            for (size_t d = 0; d < width; ++d) sum[d] += inverse[i] * float(code[d]);
        }
    });
}

} // namespace stream_cluster

// Tests of the native kernel without Python, for the sanitizers and for other processors (under an emulator).
//
// Every path of this processor has to find exactly the hits of plain loops, for all shapes that have edges:
// dimensions around a group, rows around a block, removed and zero rows, any threshold, one thread and more.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <tuple>

#include <unistd.h>

#include "cell_rows.h"
#include "nearest.h"
#include "packed_rows.h"
#include "paths.h"
#include "run.h"

using namespace stream_cluster;

namespace {

using Codes = std::vector<int8_t>;
using Hit = std::tuple<uint32_t, uint32_t, float>;
using HitSet = std::set<Hit>;

int failures = 0;

void expect(bool condition, const std::string& what) {
    if (condition) return;
    ++failures;
    std::printf("FAILED: %s\n", what.c_str());
}

// Rows in families of four around a centre, some of them zero, some extreme.
Codes some_codes(size_t rows, int dim, unsigned seed) {
    std::mt19937 random(seed);
    std::uniform_int_distribution<int> any(-100, 100), near(-27, 27), kind(0, 19);
    Codes codes(rows * size_t(dim));
    Codes centre(static_cast<size_t>(dim));
    for (size_t row = 0; row < rows; ++row) {
        if (row % 4 == 0) {
            for (auto& value : centre) value = int8_t(any(random));
        }
        const int which = kind(random);
        for (int d = 0; d < dim; ++d) {
            int value = centre[size_t(d)] + near(random);
            if (which == 0) value = 0;
            if (which == 1) value = 127;
            if (which == 2) value = -127;
            codes[row * size_t(dim) + size_t(d)] = int8_t(value);
        }
    }
    return codes;
}

float inverse_norm(const int8_t* code, int dim) {
    int64_t squares = 0;
    for (int d = 0; d < dim; ++d) squares += code[d] * code[d];
    return squares ? float(1.0 / std::sqrt(double(squares))) : 0.0f;
}

// The definition, in plain loops.
HitSet expected(const Codes& queries, const Codes& rows, int dim, float threshold, bool triangle,
                const std::set<uint32_t>& removed) {
    HitSet hits;
    const size_t width = size_t(dim);
    for (uint32_t q = 0; q < queries.size() / width; ++q) {
        for (uint32_t r = triangle ? q + 1 : 0; r < rows.size() / width; ++r) {
            if (removed.count(r) || (triangle && removed.count(q))) continue;
            int32_t dot = 0;
            for (size_t d = 0; d < width; ++d) dot += queries[q * width + d] * rows[r * width + d];
            const float scale = inverse_norm(&queries[q * width], dim) * inverse_norm(&rows[r * width], dim);
            const float similarity = std::fmin(float(dot) * scale, 1.0f);
            if (similarity > threshold) hits.insert({q, r, similarity});
        }
    }
    return hits;
}

HitSet collect(Run& run, size_t max_hits) {
    HitSet hits;
    size_t count = 0;
    while (!run.done()) {
        HitChunk chunk;
        if (!run.next(10.0, chunk)) continue;
        expect(chunk.count > 0 && chunk.count <= max_hits, "size of a chunk");
        for (size_t i = chunk.first; i < chunk.first + chunk.count; ++i) {
            hits.insert({chunk.hits->left[i], chunk.hits->right[i], chunk.hits->similarity[i]});
            ++count;
        }
    }
    expect(count == hits.size(), "no hit comes twice");
    return hits;
}

Plan plan_for(const TileKernel& kernel, float threshold, bool triangle) {
    return {nullptr, nullptr, threshold, triangle, 0, &kernel};
}

std::unique_ptr<Source> all_of(const Codes& codes, int dim) {
    return array_source(codes.data(), codes.size() / size_t(dim), dim, nullptr, 0);
}

// A rotation that keeps the first dimensions: orthonormal, if not a good choice. Steps that are too small for
// some values are allowed, their rows are compared more often.
std::shared_ptr<const Sketch> some_sketch(int dim, int width, double step) {
    std::vector<float> rotation(size_t(dim) * size_t(width), 0.0f);
    for (int d = 0; d < width; ++d) rotation[size_t(d) * size_t(width) + size_t((d * 5) % width)] = 1.0f;
    return std::make_shared<Sketch>(dim, width, rotation.data(), step);
}

void test_path(const std::string& path, int dim, size_t rows, float threshold, int threads) {
    const TileKernel& kernel = kernel_of(path);
    const std::string name = path + " dim " + std::to_string(dim) + " rows " + std::to_string(rows) +
                             " threshold " + std::to_string(threshold) + " threads " + std::to_string(threads);
    const size_t max_hits = rows % 3 == 0 ? 7 : 1000;
    const Codes codes = some_codes(rows, dim, unsigned(dim) * 1000 + unsigned(rows));
    const Codes queries = some_codes(9, dim, unsigned(dim) * 1000 + unsigned(rows)); // the first rows, or so
    PackedRows packed(dim);
    const size_t cut = rows / 3;
    packed.append(codes.data(), cut);
    packed.append(codes.data() + cut * size_t(dim), rows - cut);
    std::set<uint32_t> removed;
    for (uint32_t row = 2; row < rows; row += 11) removed.insert(row);
    for (const uint32_t row : removed) packed.remove(row);

    Run pairs(all_of(codes, dim), nullptr, plan_for(kernel, threshold, true), threads, max_hits);
    expect(collect(pairs, max_hits) == expected(codes, codes, dim, threshold, true, {}), name + ": pairs");

    Run packed_pairs(packed_source(packed, nullptr, 0), nullptr, plan_for(kernel, threshold, true), threads, max_hits);
    expect(collect(packed_pairs, max_hits) == expected(codes, codes, dim, threshold, true, removed),
           name + ": pairs of packed rows");

    Run search(all_of(queries, dim), packed_source(packed, nullptr, 0), plan_for(kernel, threshold, false), threads,
               max_hits);
    expect(collect(search, max_hits) == expected(queries, codes, dim, threshold, false, removed), name + ": search");

    std::vector<uint32_t> picked;
    Codes copy;
    for (uint32_t row = 0; row < rows; row += 2) {
        const auto from = uint32_t(rows) - 1 - row;
        if (removed.count(from)) continue;
        picked.push_back(from);
        copy.insert(copy.end(), &codes[from * size_t(dim)], &codes[from * size_t(dim)] + dim);
    }
    if (picked.empty()) return;
    Run selection(packed_source(packed, picked.data(), picked.size()), nullptr, plan_for(kernel, threshold, true),
                  threads, max_hits);
    expect(collect(selection, max_hits) == expected(copy, copy, dim, threshold, true, {}), name + ": selection");
}

// Rows whose first dimensions carry nearly all of them, so that sketches decide.
Codes leading_codes(size_t rows, int dim, int leading, unsigned seed) {
    Codes codes = some_codes(rows, dim, seed);
    for (size_t i = 0; i < codes.size(); ++i) {
        if (int(i % size_t(dim)) >= leading) codes[i] = int8_t(codes[i] / 12);
    }
    return codes;
}

void test_sketches(const std::string& path, int dim, int width, size_t rows, float threshold, double step) {
    const TileKernel& kernel = kernel_of(path);
    const std::string name = path + " sketch of " + std::to_string(width) + " of " + std::to_string(dim) + " rows " +
                             std::to_string(rows) + " threshold " + std::to_string(threshold);
    const Codes codes = leading_codes(rows, dim, width / 2, unsigned(rows));
    const Codes queries = leading_codes(10, dim, width / 2, unsigned(rows));
    const auto sketch = some_sketch(dim, width, step);

    auto all = all_of(codes, dim);
    all->begin_sketches(sketch);
    Run pairs(std::move(all), nullptr, plan_for(kernel, threshold, true), 2, 1000);
    expect(collect(pairs, 1000) == expected(codes, codes, dim, threshold, true, {}), name + ": pairs");

    PackedRows packed(dim);
    const size_t cut = rows / 3;
    packed.append(codes.data(), cut);
    std::set<uint32_t> removed;
    for (uint32_t row = 2; row < cut; row += 11) removed.insert(row);
    for (const uint32_t row : removed) packed.remove(row);
    packed.use_sketch(sketch, 2);
    packed.append(codes.data() + cut * size_t(dim), rows - cut);
    for (auto row = uint32_t(cut); row < rows; row += 7) {
        removed.insert(row);
        packed.remove(row);
    }
    Run packed_pairs(packed_source(packed, nullptr, 0), nullptr, plan_for(kernel, threshold, true), 2, 1000);
    expect(collect(packed_pairs, 1000) == expected(codes, codes, dim, threshold, true, removed),
           name + ": pairs of packed rows");
    auto asked = all_of(queries, dim);
    asked->begin_sketches(sketch);
    Run search(std::move(asked), packed_source(packed, nullptr, 0), plan_for(kernel, threshold, false), 2, 1000);
    expect(collect(search, 1000) == expected(queries, codes, dim, threshold, false, removed), name + ": search");
}

void test_extremes(const std::string& path) {
    // The largest and the smallest dot product there is: 127 * 127 * 4096.
    Codes codes(3 * 4096, 127);
    std::fill(codes.begin() + 4096, codes.begin() + 8192, int8_t(-127));
    Run run(all_of(codes, 4096), nullptr, plan_for(kernel_of(path), -2.0f, true), 1, 100);
    expect(collect(run, 100) == expected(codes, codes, 4096, -2.0f, true, {}), path + ": extremes");
}

void test_rows_come_back() {
    for (const int dim : {1, 3, 4, 65, 512}) {
        const Codes codes = some_codes(200, dim, 5);
        PackedRows packed(dim);
        for (size_t row = 0; row < 200; row += 50) packed.append(&codes[row * size_t(dim)], 50);
        Codes back(static_cast<size_t>(dim));
        for (uint32_t row = 0; row < 200; ++row) {
            packed.get(row, back.data());
            expect(std::equal(back.begin(), back.end(), &codes[row * size_t(dim)]), "a row comes back");
            expect(packed.norm(row) == inverse_norm(back.data(), dim), "norm of a row");
        }
        packed.remove(7);
        packed.remove(7);
        packed.get(7, back.data());
        expect(back == Codes(size_t(dim), 0) && packed.removed_count() == 1, "a removed row is zero");
    }
}

// Hits of a run over cells, with rows instead of slots and queries instead of positions.
HitSet in_rows(const HitSet& hits, const CellRows& cells, const std::vector<uint32_t>& numbers) {
    HitSet translated;
    for (const auto& [position, slot, similarity] : hits) {
        translated.insert({numbers.empty() ? position : numbers[position], cells.row_at(slot), similarity});
    }
    return translated;
}

// Rows are put into cells, moved and removed at random; what is found is what plain loops find among the rows of
// the cells that each query goes to.
void test_cells(const std::string& path, int dim, size_t rows, float threshold, bool in_file) {
    const TileKernel& kernel = kernel_of(path);
    const std::string name = path + " cells of dim " + std::to_string(dim) + " rows " + std::to_string(rows) +
                             " threshold " + std::to_string(threshold);
    constexpr uint32_t kCells = 5;
    std::mt19937 random(unsigned(rows) + unsigned(dim));
    const auto any_cell = [&] { return uint32_t(random() % kCells); };
    const Codes codes = some_codes(rows, dim, unsigned(dim) * 1000 + unsigned(rows));
    const Codes queries = some_codes(9, dim, unsigned(dim) * 1000 + unsigned(rows));
    int file = -1;
    if (in_file) {
        char folder[] = "/tmp/kernel-test-XXXXXX";
        file = mkstemp(folder);
        unlink(folder);
    }
    CellRows cells(dim, file);
    cells.add_cells(kCells);
    std::vector<uint32_t> cell_of(rows);
    for (auto& cell : cell_of) cell = any_cell();
    std::set<uint32_t> removed;
    if (rows > 3) {
        cell_of[3] = kNowhere;
        removed.insert(3);
    }
    const size_t cut = rows / 3;
    cells.append(codes.data(), cut, cell_of.data());
    cells.append(codes.data() + cut * size_t(dim), rows - cut, cell_of.data() + cut);
    for (size_t change = 0; change < 2 * rows; ++change) {
        const auto row = uint32_t(random() % rows);
        if (change % 9 == 0) {
            cells.remove(row);
            removed.insert(row);
        } else if (!removed.count(row)) {
            cell_of[row] = any_cell();
            cells.move(row, cell_of[row]);
        }
    }
    uint32_t held = 0;
    for (uint32_t cell = 0; cell < kCells; ++cell) held += cells.rows_in(cell);
    expect(held + removed.size() == rows && cells.removed_count() == removed.size(), name + ": counts");
    Codes back(static_cast<size_t>(dim));
    for (uint32_t row = 0; row < rows; ++row) {
        cells.get(row, back.data());
        const bool gone = removed.count(row) != 0;
        const auto* code = &codes[row * size_t(dim)];
        expect(gone ? back == Codes(size_t(dim), 0) : std::equal(back.begin(), back.end(), code), name + ": a row");
        expect(cells.cell_of(row) == (gone ? kNowhere : cell_of[row]), name + ": cell of a row");
        expect(cells.is_removed(row) == gone, name + ": removed");
    }

    const std::vector<uint64_t> offsets = {0, 2, 2, 3, 8, 9, 10, 11, 12, 14};
    const std::vector<uint32_t> probed = {1, 3, 0, 0, 1, 2, 3, 4, 2, 2, 2, 2, 4, 0};
    std::vector<uint32_t> numbers;
    const Grouping grouping = group_by_cell(cells, offsets.data(), 9, probed.data(), numbers);
    auto plan = plan_for(kernel, threshold, false);
    plan.grouping = &grouping;
    HitSet expected_hits;
    for (const auto& hit : expected(queries, codes, dim, threshold, false, removed)) {
        for (uint64_t i = offsets[std::get<0>(hit)]; i < offsets[std::get<0>(hit) + 1]; ++i) {
            if (probed[i] == cell_of[std::get<1>(hit)]) expected_hits.insert(hit);
        }
    }
    Run run(grouped_source(queries.data(), 9, dim, numbers), cells_source(cells), plan, 2, 50);
    expect(in_rows(collect(run, 50), cells, numbers) == expected_hits, name + ": of some cells");

    std::vector<uint32_t> blocks;
    for (uint32_t block = 0; block < cells.block_count(); ++block) {
        if (cells.cell_at(block * kBlockRows) != kNowhere) blocks.push_back(block);
    }
    const Grouping all = group_all(cells, blocks, 9);
    plan.grouping = &all;
    Run scan(all_of(queries, dim), cells_source(cells), plan, 2, 1000);
    expect(in_rows(collect(scan, 1000), cells, {}) == expected(queries, codes, dim, threshold, false, removed),
           name + ": of all");
}

void test_nearest(const std::string& path, int dim, uint32_t centroids, float margin, uint32_t most) {
    const std::string name = path + " nearest of " + std::to_string(centroids) + " dim " + std::to_string(dim);
    const Codes codes = some_codes(centroids, dim, 77);
    const Codes queries = some_codes(50, dim, 78);
    PackedRows packed(dim);
    packed.append(codes.data(), centroids);
    std::vector<std::vector<Nearest>> found;
    find_nearest(packed, queries.data(), 50, margin, most, 2, kernel_of(path), found);
    std::vector<Nearest> best(50);
    find_best(packed, queries.data(), 50, 2, kernel_of(path), best.data());
    const auto before = [](const Nearest& a, const Nearest& b) {
        return a.similarity != b.similarity ? a.similarity > b.similarity : a.centroid < b.centroid;
    };
    std::vector<std::vector<Nearest>> all(50);
    for (const auto& [query, row, similarity] : expected(queries, codes, dim, -2.0f, false, {})) {
        all[query].push_back({row, similarity});
    }
    for (size_t query = 0; query < 50; ++query) {
        std::sort(all[query].begin(), all[query].end(), before);
        if (inverse_norm(&queries[query * size_t(dim)], dim) == 0.0f) {
            expect(!found[query].empty() && found[query][0].similarity == 0.0f, name + ": of a zero code");
            continue;
        }
        const float least = all[query][0].similarity - margin;
        const auto last = std::find_if(all[query].begin() + 1, all[query].end(),
                                       [&](const Nearest& one) {
                                           return one.similarity <= least && one.similarity < all[query][0].similarity;
                                       });
        all[query].erase(last, all[query].end());
        if (all[query].size() > most) all[query].resize(most);
        bool same = all[query].size() == found[query].size() && best[query].centroid == all[query][0].centroid;
        for (size_t i = 0; same && i < found[query].size(); ++i) {
            same = found[query][i].centroid == all[query][i].centroid &&
                   found[query][i].similarity == all[query][i].similarity;
        }
        expect(same, name);
    }
}

void test_stopping_half_way() {
    const Codes codes(5000 * 8, 3);
    for (int i = 0; i < 20; ++i) {
        Run run(all_of(codes, 8), nullptr, plan_for(kernel_of(""), 0.5f, true), 3, 500);
        HitChunk chunk;
        for (int taken = 0; taken < i; ++taken) run.next(10.0, chunk);
        if (i % 2) run.stop();
    }
    const Codes wide(2000 * 128, 3);
    for (int i = 0; i < 20; ++i) {
        auto source = all_of(wide, 128);
        source->begin_sketches(some_sketch(128, 64, 0.01));
        Run run(std::move(source), nullptr, plan_for(kernel_of(""), 0.5f, true), 3, 500);
        HitChunk chunk;
        run.next(1e-5 * i, chunk); // within the sketches, or behind them
        if (i % 2) run.stop();
    }
}

} // namespace

int main() {
    test_rows_come_back();
    test_stopping_half_way();
    for (const auto& path : available_paths()) {
        std::printf("path %s\n", path.c_str());
        test_extremes(path);
        for (const int dim : {1, 5, 64, 130, 512}) {
            for (const size_t rows : {size_t(1), size_t(64), size_t(700)}) {
                if (dim > 500 && rows > 64) continue;
                test_cells(path, dim, rows, 0.5f, rows == 700);
                test_cells(path, dim, rows, -0.5f, false);
            }
        }
        for (const int dim : {3, 64, 130}) {
            test_nearest(path, dim, 1, 0.1f, 4);
            test_nearest(path, dim, 300, 0.0f, 300);
            test_nearest(path, dim, 300, 0.2f, 3);
            test_nearest(path, dim, 300, 3.0f, 300);
        }
        for (const int dim : {1, 2, 3, 4, 5, 63, 64, 65, 100, 512, 1025}) {
            for (const size_t rows : {size_t(0), size_t(1), size_t(2), size_t(63), size_t(64), size_t(65), size_t(200)}) {
                if (dim > 500 && rows > 65) continue; // plain loops take their time, and an emulator more
                for (const float threshold : {-1.0f, -0.1f, 0.0f, 0.5f, 0.9f, 1.0f}) {
                    test_path(path, dim, rows, threshold, 1 + int(rows % 2));
                }
            }
        }
        for (const float threshold : {0.2f, 0.5f, 0.8f}) {
            test_path(path, 512, 300, threshold, 2);
            for (const size_t rows : {size_t(1), size_t(63), size_t(257)}) {
                test_sketches(path, 512, 128, rows, threshold, 1.0 / 127);
                test_sketches(path, 130, 96, rows, threshold, 1.0 / 253);
                test_sketches(path, 65, 32, rows, threshold, 1.0 / 200);
            }
        }
        test_sketches(path, 65, 64, 200, 0.0f, 1.0 / 253);
        test_sketches(path, 65, 64, 200, -0.5f, 1.0 / 253);
    }
    std::printf(failures ? "%d checks failed\n" : "all paths agree with plain loops\n", failures);
    return failures ? EXIT_FAILURE : EXIT_SUCCESS;
}

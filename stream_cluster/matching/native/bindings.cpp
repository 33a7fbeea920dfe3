// The Python module stream_cluster.matching._kernel; its types are documented in _kernel.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <functional>
#include <optional>
#include <stdexcept>

#include "cell_rows.h"
#include "nearest.h"
#include "packed_rows.h"
#include "paths.h"
#include "run.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace stream_cluster {
namespace {

using CodesIn = nb::ndarray<const int8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using RowsIn = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OptionalRows = std::optional<RowsIn>;
using RotationIn = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using SharedSketch = std::shared_ptr<Sketch>; // null: none

template <class T, class... Shape>
using Out = nb::ndarray<nb::numpy, T, Shape...>;

template <class T, class Shape>
Out<T, Shape> owned(T* values, std::initializer_list<size_t> shape) {
    nb::capsule owner(values, [](void* memory) noexcept { delete[] static_cast<T*>(memory); });
    return Out<T, Shape>(values, shape, owner);
}

void check_dim(const CodesIn& codes, int dim) {
    if (codes.shape(1) != size_t(dim)) {
        throw std::invalid_argument("codes: found dimension " + std::to_string(codes.shape(1)) + ", expected " +
                                    std::to_string(dim));
    }
}

void append(PackedRows& rows, const CodesIn& codes) {
    check_dim(codes, rows.layout().dim);
    rows.append(codes.data(), codes.shape(0));
}

SharedSketch make_sketch(const RotationIn& rotation, double step) {
    return std::make_shared<Sketch>(int(rotation.shape(0)), int(rotation.shape(1)), rotation.data(), step);
}

void use_sketch(PackedRows& rows, const SharedSketch& sketch, int threads) {
    nb::gil_scoped_release release;
    rows.use_sketch(sketch, threads);
}

void remove_rows(PackedRows& rows, const RowsIn& numbers) {
    for (size_t i = 0; i < numbers.shape(0); ++i) rows.place(numbers.data()[i]); // all or none
    for (size_t i = 0; i < numbers.shape(0); ++i) rows.remove(numbers.data()[i]);
}

template <class T, class Get>
Out<T, nb::ndim<1>> per_row(const RowsIn& numbers, Get get) {
    const size_t count = numbers.shape(0);
    std::unique_ptr<T[]> values(new T[count]);
    for (size_t i = 0; i < count; ++i) values[i] = get(numbers.data()[i]);
    return owned<T, nb::ndim<1>>(values.release(), {count});
}

Out<int8_t, nb::ndim<2>> gather(const PackedRows& rows, const RowsIn& numbers) {
    const size_t count = numbers.shape(0);
    const auto dim = size_t(rows.layout().dim);
    std::unique_ptr<int8_t[]> codes(new int8_t[count * dim]);
    for (size_t i = 0; i < count; ++i) rows.get(numbers.data()[i], codes.get() + i * dim);
    return owned<int8_t, nb::ndim<2>>(codes.release(), {count, dim});
}

// The arrays whose memory a run reads.
struct Inputs {
    std::optional<CodesIn> codes;
    OptionalRows rows;
    std::shared_ptr<CellRows> cells;
};

// Changes the positions of hits into what the caller knows, or drops some.
using Translate = std::function<void(HitChunk&)>;

class PyRun {
public:
    PyRun(Inputs inputs, std::unique_ptr<Run> run, Translate translate = nullptr, std::shared_ptr<void> holds = nullptr)
        : inputs_(std::move(inputs)),
          holds_(std::move(holds)),
          run_(std::move(run)),
          translate_(std::move(translate)) {}

    nb::object next(double timeout_s) {
        HitChunk chunk;
        bool found;
        {
            nb::gil_scoped_release release;
            found = run_->next(timeout_s, chunk);
            if (found && translate_) translate_(chunk);
        }
        if (!found || chunk.count == 0) return nb::none();
        auto* shared = new std::shared_ptr<Hits>(chunk.hits);
        nb::capsule owner(shared, [](void* memory) noexcept { delete static_cast<std::shared_ptr<Hits>*>(memory); });
        const std::initializer_list<size_t> shape = {chunk.count};
        using Positions = Out<uint32_t, nb::ndim<1>>;
        using Values = Out<float, nb::ndim<1>>;
        return nb::make_tuple(Positions(chunk.hits->left.get() + chunk.first, shape, owner),
                              Positions(chunk.hits->right.get() + chunk.first, shape, owner),
                              Values(chunk.hits->similarity.get() + chunk.first, shape, owner));
    }

    bool done() const { return run_->done(); }
    double progress() const { return run_->progress(); }
    int threads() const { return run_->threads(); }
    void stop() {
        nb::gil_scoped_release release;
        run_->stop();
    }

private:
    const Inputs inputs_; // destroyed after the run
    const std::shared_ptr<void> holds_;
    std::unique_ptr<Run> run_;
    const Translate translate_;
};

// Python owns what is returned.
PyRun* start(Inputs inputs, std::unique_ptr<Source> queries, std::unique_ptr<Source> rows,
                             double threshold, bool triangle, uint32_t first_row, int threads, size_t max_hits,
                             const std::string& path) {
    if (threads < 1) throw std::invalid_argument("threads: expected 1 or more");
    Plan plan{nullptr, nullptr, float(threshold), triangle, first_row, &kernel_of(path)};
    nb::gil_scoped_release release;
    auto run = std::make_unique<Run>(std::move(queries), std::move(rows), plan, threads, max_hits);
    nb::gil_scoped_acquire acquire;
    return new PyRun(std::move(inputs), std::move(run));
}

PyRun* search(const PackedRows& rows, const CodesIn& queries, double threshold, uint32_t first_row,
                              int threads, size_t max_hits, const std::string& path) {
    check_dim(queries, rows.layout().dim);
    auto source = array_source(queries.data(), queries.shape(0), rows.layout().dim, nullptr, 0);
    if (rows.sketch()) source->begin_sketches(rows.sketch());
    return start({queries, {}}, std::move(source), packed_source(rows, nullptr, 0), threshold, false, first_row,
                 threads, max_hits, path);
}

PyRun* pairs_of_codes(const CodesIn& codes, const OptionalRows& rows, double threshold, const SharedSketch& sketch,
                                      int threads, size_t max_hits, const std::string& path) {
    const uint32_t* numbers = rows ? rows->data() : nullptr;
    std::unique_ptr<Source> source;
    {
        nb::gil_scoped_release release;
        source = array_source(codes.data(), codes.shape(0), int(codes.shape(1)), numbers, rows ? rows->shape(0) : 0);
        if (sketch) source->begin_sketches(sketch);
    }
    return start({codes, rows}, std::move(source), nullptr, threshold, true, 0, threads, max_hits,
                 path);
}

PyRun* pairs_of_packed(const PackedRows& packed, const OptionalRows& rows, double threshold, const SharedSketch& sketch,
                                       int threads, size_t max_hits, const std::string& path) {
    auto source = packed_source(packed, rows ? rows->data() : nullptr, rows ? rows->shape(0) : 0);
    if (sketch) source->begin_sketches(sketch);
    return start({{}, rows}, std::move(source), nullptr, threshold, true, 0, threads, max_hits, path);
}

// Cells

using CellNumbers = nb::ndarray<const uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using OffsetsIn = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void check_length(size_t found, size_t expected, const char* what) {
    if (found == expected) return;
    throw std::invalid_argument(std::string(what) + ": found " + std::to_string(found) + ", expected " +
                                std::to_string(expected));
}

void append_cells(CellRows& rows, const CodesIn& codes, const CellNumbers& cells) {
    check_dim(codes, rows.layout().dim);
    check_length(cells.shape(0), codes.shape(0), "cells");
    nb::gil_scoped_release release;
    rows.append(codes.data(), codes.shape(0), cells.data());
}

void move_rows(CellRows& rows, const RowsIn& numbers, const CellNumbers& cells) {
    check_length(cells.shape(0), numbers.shape(0), "cells");
    nb::gil_scoped_release release;
    for (size_t i = 0; i < numbers.shape(0); ++i) rows.move(numbers.data()[i], cells.data()[i]);
}

void remove_cell_rows(CellRows& rows, const RowsIn& numbers) {
    for (size_t i = 0; i < numbers.shape(0); ++i) rows.is_removed(numbers.data()[i]); // all or none
    nb::gil_scoped_release release;
    for (size_t i = 0; i < numbers.shape(0); ++i) rows.remove(numbers.data()[i]);
}

Out<int8_t, nb::ndim<2>> gather_cells(const CellRows& rows, const RowsIn& numbers) {
    const size_t count = numbers.shape(0);
    const auto dim = size_t(rows.layout().dim);
    std::unique_ptr<int8_t[]> codes(new int8_t[count * dim]);
    {
        nb::gil_scoped_release release;
        for (size_t i = 0; i < count; ++i) rows.get(numbers.data()[i], codes.get() + i * dim);
    }
    return owned<int8_t, nb::ndim<2>>(codes.release(), {count, dim});
}

Out<uint32_t, nb::ndim<1>> copied(const std::vector<uint32_t>& values) {
    std::unique_ptr<uint32_t[]> copy(new uint32_t[values.size()]);
    std::copy(values.begin(), values.end(), copy.get());
    return owned<uint32_t, nb::ndim<1>>(copy.release(), {values.size()});
}

Out<uint32_t, nb::ndim<1>> cell_sizes(const CellRows& rows) {
    std::vector<uint32_t> sizes(rows.cell_count());
    for (uint32_t cell = 0; cell < sizes.size(); ++cell) sizes[cell] = rows.rows_in(cell);
    return copied(sizes);
}

nb::tuple nearest(const PackedRows& centroids, const CodesIn& codes, float margin, uint32_t most, int threads,
                  const std::string& path) {
    check_dim(codes, centroids.layout().dim);
    const size_t count = codes.shape(0);
    std::vector<std::vector<Nearest>> found;
    std::unique_ptr<uint64_t[]> offsets(new uint64_t[count + 1]);
    std::unique_ptr<uint32_t[]> numbers;
    std::unique_ptr<float[]> similarities;
    offsets[0] = 0;
    const TileKernel& kernel = kernel_of(path);
    {
        nb::gil_scoped_release release;
        find_nearest(centroids, codes.data(), count, margin, most, threads, kernel, found);
        for (size_t query = 0; query < count; ++query) offsets[query + 1] = offsets[query] + found[query].size();
        numbers.reset(new uint32_t[offsets[count]]);
        similarities.reset(new float[offsets[count]]);
        size_t at = 0;
        for (const auto& one : found) {
            for (const auto& near : one) {
                numbers[at] = near.centroid;
                similarities[at++] = near.similarity;
            }
        }
    }
    const size_t total = offsets[count];
    return nb::make_tuple(owned<uint64_t, nb::ndim<1>>(offsets.release(), {count + 1}),
                          owned<uint32_t, nb::ndim<1>>(numbers.release(), {total}),
                          owned<float, nb::ndim<1>>(similarities.release(), {total}));
}

nb::tuple best_centroids(const PackedRows& centroids, const CodesIn& codes, int threads, const std::string& path) {
    check_dim(codes, centroids.layout().dim);
    const size_t count = codes.shape(0);
    std::unique_ptr<uint32_t[]> numbers(new uint32_t[count]);
    std::unique_ptr<float[]> similarities(new float[count]);
    const TileKernel& kernel = kernel_of(path);
    {
        nb::gil_scoped_release release;
        std::vector<Nearest> best(count);
        find_best(centroids, codes.data(), count, threads, kernel, best.data());
        for (size_t i = 0; i < count; ++i) {
            numbers[i] = best[i].centroid;
            similarities[i] = best[i].similarity;
        }
    }
    return nb::make_tuple(owned<uint32_t, nb::ndim<1>>(numbers.release(), {count}),
                          owned<float, nb::ndim<1>>(similarities.release(), {count}));
}

Out<float, nb::ndim<2>> sums_by_centroid(const CodesIn& codes, const CellNumbers& centroid, uint32_t centroids,
                                         int threads) {
    check_length(centroid.shape(0), codes.shape(0), "centroid");
    const size_t dim = codes.shape(1);
    std::unique_ptr<float[]> sums(new float[size_t(centroids) * dim]());
    {
        nb::gil_scoped_release release;
        add_up(codes.data(), codes.shape(0), int(dim), centroid.data(), centroids, threads, sums.get());
    }
    return owned<float, nb::ndim<2>>(sums.release(), {size_t(centroids), dim});
}

// The cells that each query is compared with, as long as a run needs them.
struct Probes {
    Grouping grouping;
    std::vector<uint32_t> numbers;
    std::vector<uint64_t> offsets;
    std::vector<uint32_t> cells;

    bool has(uint32_t query, uint32_t cell) const {
        const auto first = cells.begin() + ptrdiff_t(offsets[query]), last = cells.begin() + ptrdiff_t(offsets[query + 1]);
        return std::find(first, last, cell) != last;
    }
};

Translate to_rows(std::shared_ptr<CellRows> cells, std::shared_ptr<const Probes> probes, bool pairs) {
    return [cells = std::move(cells), probes = std::move(probes), pairs](HitChunk& chunk) {
        uint32_t* left = chunk.hits->left.get() + chunk.first;
        uint32_t* right = chunk.hits->right.get() + chunk.first;
        float* similarity = chunk.hits->similarity.get() + chunk.first;
        size_t kept = 0;
        for (size_t i = 0; i < chunk.count; ++i) {
            const uint32_t query = probes->numbers.empty() ? left[i] : probes->numbers[left[i]];
            const uint32_t row = cells->row_at(right[i]);
            // Found from the other side too: only once.
            if (pairs && query >= row && (query == row || probes->has(row, cells->cell_of(query)))) continue;
            left[kept] = pairs ? std::min(query, row) : query;
            right[kept] = pairs ? std::max(query, row) : row;
            similarity[kept++] = similarity[i];
        }
        chunk.count = kept;
    };
}

PyRun* start_cells(Inputs inputs, std::unique_ptr<Source> queries, std::shared_ptr<Probes> probes, double threshold,
                   bool pairs, int threads, size_t max_hits, const std::string& path) {
    if (threads < 1) throw std::invalid_argument("threads: expected 1 or more");
    Plan plan{nullptr, nullptr, float(threshold), false, 0, &kernel_of(path), &probes->grouping};
    std::unique_ptr<Run> run;
    {
        nb::gil_scoped_release release;
        run = std::make_unique<Run>(std::move(queries), cells_source(*inputs.cells), plan, threads, max_hits);
    }
    auto translate = to_rows(inputs.cells, probes, pairs);
    return new PyRun(std::move(inputs), std::move(run), std::move(translate), std::move(probes));
}

PyRun* search_cells(std::shared_ptr<CellRows> cells, const CodesIn& queries, const OffsetsIn& offsets,
                    const CellNumbers& probed, double threshold, bool pairs, int threads, size_t max_hits,
                    const std::string& path) {
    check_dim(queries, cells->layout().dim);
    const size_t count = queries.shape(0);
    check_length(offsets.shape(0), count + 1, "offsets");
    for (size_t query = 0; query < count; ++query) {
        if (offsets.data()[query] > offsets.data()[query + 1]) throw std::invalid_argument("offsets: expected ascending");
    }
    check_length(probed.shape(0), offsets.data()[count], "probed cells");
    if (pairs) check_length(cells->size(), count, "rows");
    auto probes = std::make_shared<Probes>();
    std::unique_ptr<Source> source;
    {
        nb::gil_scoped_release release;
        probes->grouping = group_by_cell(*cells, offsets.data(), count, probed.data(), probes->numbers);
        source = grouped_source(queries.data(), count, cells->layout().dim, probes->numbers);
        if (pairs) {
            probes->offsets.assign(offsets.data(), offsets.data() + count + 1);
            probes->cells.assign(probed.data(), probed.data() + probed.shape(0));
        }
    }
    return start_cells({queries, {}, std::move(cells)}, std::move(source), std::move(probes), threshold, pairs, threads,
                       max_hits, path);
}

PyRun* scan_cells(std::shared_ptr<CellRows> cells, const CodesIn& queries, const OptionalRows& blocks, double threshold,
                  int threads, size_t max_hits, const std::string& path) {
    check_dim(queries, cells->layout().dim);
    auto probes = std::make_shared<Probes>();
    std::vector<uint32_t> chosen;
    for (size_t i = 0; i < (blocks ? blocks->shape(0) : cells->block_count()); ++i) {
        const uint32_t block = blocks ? blocks->data()[i] : uint32_t(i);
        if (block >= cells->block_count()) throw std::out_of_range("blocks: found one that is not there");
        if (cells->cell_at(block * kBlockRows) != kNowhere) chosen.push_back(block);
    }
    probes->grouping = group_all(*cells, chosen, uint32_t(queries.shape(0)));
    auto source = array_source(queries.data(), queries.shape(0), cells->layout().dim, nullptr, 0);
    return start_cells({queries, {}, std::move(cells)}, std::move(source), std::move(probes), threshold, false, threads,
                       max_hits, path);
}

} // namespace
} // namespace stream_cluster

NB_MODULE(_kernel, m) {
    using namespace stream_cluster;
    nb::class_<Sketch>(m, "Sketch")
        .def(nb::new_(&make_sketch), "rotation"_a, "step"_a)
        .def_prop_ro("dim", &Sketch::dim)
        .def_prop_ro("width", &Sketch::width);
    nb::class_<PackedRows>(m, "PackedRows")
        .def(nb::init<int>(), "dim"_a)
        .def_prop_ro("dim", [](const PackedRows& rows) { return rows.layout().dim; })
        .def_prop_ro("removed_count", &PackedRows::removed_count)
        .def_prop_ro("nbytes", &PackedRows::bytes)
        .def("__len__", &PackedRows::size)
        .def("append", &append, "codes"_a)
        .def("use_sketch", &use_sketch, "sketch"_a, nb::kw_only(), "threads"_a)
        .def_prop_ro("sketch_width", [](const PackedRows& rows) { return rows.sketch() ? rows.sketch()->width() : 0; })
        .def("remove", &remove_rows, "rows"_a)
        .def("gather", &gather, "rows"_a)
        .def("gather_norms",
             [](const PackedRows& rows, const RowsIn& numbers) {
                 return per_row<float>(numbers, [&](uint32_t row) { return rows.norm(row); });
             }, "rows"_a)
        .def("is_removed",
             [](const PackedRows& rows, const RowsIn& numbers) {
                 return per_row<bool>(numbers, [&](uint32_t row) { return rows.is_removed(row); });
             }, "rows"_a);
    nb::class_<CellRows>(m, "CellRows")
        .def(nb::init<int, int>(), "dim"_a, "file"_a = -1)
        .def_prop_ro("dim", [](const CellRows& rows) { return rows.layout().dim; })
        .def_prop_ro("removed_count", &CellRows::removed_count)
        .def_prop_ro("nbytes", &CellRows::bytes)
        .def_prop_ro("file_bytes", &CellRows::file_bytes)
        .def_prop_ro("cell_count", &CellRows::cell_count)
        .def_prop_ro("block_count", &CellRows::block_count)
        .def("sizes", &cell_sizes)
        .def("__len__", &CellRows::size)
        .def("add_cells", &CellRows::add_cells, "count"_a)
        .def("append", &append_cells, "codes"_a, "cells"_a)
        .def("move", &move_rows, "rows"_a, "cells"_a)
        .def("remove", &remove_cell_rows, "rows"_a)
        .def("gather", &gather_cells, "rows"_a)
        .def("gather_norms",
             [](const CellRows& rows, const RowsIn& numbers) {
                 return per_row<float>(numbers, [&](uint32_t row) { return rows.norm(row); });
             }, "rows"_a)
        .def("is_removed",
             [](const CellRows& rows, const RowsIn& numbers) {
                 return per_row<bool>(numbers, [&](uint32_t row) { return rows.is_removed(row); });
             }, "rows"_a)
        .def("cell_of",
             [](const CellRows& rows, const RowsIn& numbers) {
                 return per_row<uint32_t>(numbers, [&](uint32_t row) { return rows.cell_of(row); });
             }, "rows"_a)
        .def("rows_of", [](const CellRows& rows, uint32_t cell) { return copied(rows.rows_of(cell)); }, "cell"_a);
    m.def("nearest", &nearest, "centroids"_a, "codes"_a, "margin"_a, nb::kw_only(), "most"_a, "threads"_a, "path"_a);
    m.def("best", &best_centroids, "centroids"_a, "codes"_a, nb::kw_only(), "threads"_a, "path"_a);
    m.def("add_up", &sums_by_centroid, "codes"_a, "centroid"_a, "centroids"_a, nb::kw_only(), "threads"_a);
    m.def("search_cells", &search_cells, "cells"_a, "queries"_a, "offsets"_a, "probed"_a, "threshold"_a, nb::kw_only(),
          "pairs"_a, "threads"_a, "max_hits"_a, "path"_a);
    m.def("scan_cells", &scan_cells, "cells"_a, "queries"_a, "blocks"_a.none(), "threshold"_a, nb::kw_only(),
          "threads"_a, "max_hits"_a, "path"_a);
    nb::class_<PyRun>(m, "Run")
        .def("next", &PyRun::next, "timeout_s"_a)
        .def("stop", &PyRun::stop)
        .def_prop_ro("done", &PyRun::done)
        .def_prop_ro("progress", &PyRun::progress)
        .def_prop_ro("threads", &PyRun::threads);
    m.def("search", &search, "rows"_a, "queries"_a, "threshold"_a, nb::kw_only(), "first_row"_a, "threads"_a,
          "max_hits"_a, "path"_a);
    m.def("pairs_of_codes", &pairs_of_codes, "codes"_a, "rows"_a.none(), "threshold"_a, nb::kw_only(),
          "sketch"_a = nb::none(), "threads"_a, "max_hits"_a, "path"_a);
    m.def("pairs_of_packed", &pairs_of_packed, "packed"_a, "rows"_a.none(), "threshold"_a, nb::kw_only(),
          "sketch"_a = nb::none(), "threads"_a, "max_hits"_a, "path"_a);
    m.def("available_paths", &available_paths);
    m.def("path_in_use", [](const std::string& path) { return std::string(kernel_of(path).name); }, "path"_a);
}

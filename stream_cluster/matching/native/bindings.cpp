// The Python module stream_cluster.matching._kernel; its types are documented in _kernel.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <stdexcept>

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
};

class PyRun {
public:
    PyRun(Inputs inputs, std::unique_ptr<Run> run) : inputs_(std::move(inputs)), run_(std::move(run)) {}

    nb::object next(double timeout_s) {
        HitChunk chunk;
        bool found;
        {
            nb::gil_scoped_release release;
            found = run_->next(timeout_s, chunk);
        }
        if (!found) return nb::none();
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
    std::unique_ptr<Run> run_;
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

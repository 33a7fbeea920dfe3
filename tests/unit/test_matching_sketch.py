"""Sketches: they spare work and change no result, whatever they were learned from."""

from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.matching import exact, kernel, numpy_exact, store
from stream_cluster.matching.codes import quantise
from stream_cluster.matching.exact import ExactMatcher, all_pairs, scan
from stream_cluster.matching.sketch import SAMPLE_ROWS, learn_sketch, sample_rows
from stream_cluster.matching.store import CodeStore
from tests.support.oracle import as_set

PATHS = kernel.available_paths()


@pytest.fixture
def early(monkeypatch):
    """Sketches for small sets too."""
    monkeypatch.setattr(exact, "SKETCH_AFTER", 100)
    monkeypatch.setattr(store, "FIRST_SKETCH", 100)


def flat_people(count, dim, *, effective, seed=0):
    """Codes of people of five whose vectors lie near `effective` dimensions in general position."""
    random = np.random.default_rng(seed)
    axes = np.linalg.qr(random.standard_normal((dim, effective)))[0].T
    centres = np.repeat(random.standard_normal((-(-count // 5), effective)), 5, axis=0)[:count]
    vectors = (centres + 0.5 * random.standard_normal(centres.shape)) @ axes
    vectors += 0.05 * random.standard_normal(vectors.shape)
    return quantise(vectors[random.permutation(count)].astype(np.float32))


def all_links(codes, threshold, **more):
    return as_set(all_pairs(codes, threshold, **more))


def numpy_links(codes, threshold):
    return as_set(numpy_exact.all_pairs(codes, threshold))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("dim", "width"), [(64, 32), (130, 64), (257, 128), (512, 128)])
def test_all_pairs_with_a_sketch_are_those_of_numpy(early, monkeypatch, path, dim, width):
    monkeypatch.setenv("STREAM_CLUSTER_KERNEL", path)
    codes = flat_people(700, dim, effective=20)
    assert learn_sketch(codes, 0.5).width == width
    for threshold in (0.3, 0.5, 0.9):
        expected = numpy_links(codes, threshold)
        assert expected
        assert all_links(codes, threshold) == expected


@pytest.mark.usefixtures("early")
def test_a_store_learns_a_sketch_and_its_searches_find_the_same():
    codes = flat_people(900, 128, effective=12)
    resident = CodeStore(128)
    for first in range(0, 800, 37):
        resident.append(codes[first : min(first + 37, 800)])
    assert resident.packed.sketch_width == 64
    resident.remove(np.arange(0, 800, 9))
    for first in range(0, 800, 400):
        found = as_set(scan(resident, codes[800:], 0.5, first_row=first))
        oracle = numpy_exact.NumpyMatcher(128, store=resident)
        expected = {hit for hit in as_set(oracle.search(codes[800:], 0.5)) if hit[1] >= first}
        assert expected
        assert found == expected
    assert all_links(resident, 0.5) == {
        link for link in numpy_links(codes[:800], 0.5) if link[0] % 9 and link[1] % 9
    }


@pytest.mark.usefixtures("early")
def test_a_sketch_is_learned_anew_when_there_are_four_times_as_many_rows(monkeypatch):
    learned = []
    monkeypatch.setattr(store, "learn_sketch", lambda sample, threshold: learned.append(len(sample)))
    matcher = ExactMatcher(64)
    for _ in range(170):
        matcher.add(np.ones((10, 64), np.int8))
    assert learned == [100, 400, 1600]


@pytest.mark.usefixtures("early")
def test_a_selection_has_a_sketch_of_its_own():
    codes = flat_people(600, 128, effective=12)
    resident = CodeStore(128)
    resident.append(codes)
    rows = np.arange(599, 0, -2)
    expected = numpy_links(codes[rows], 0.5)
    assert expected
    assert all_links(resident, 0.5, rows=rows) == expected
    assert all_links(codes, 0.5, rows=rows) == expected


@pytest.mark.usefixtures("early")
def test_rows_unlike_those_it_was_learned_from_are_matched_as_exactly():
    # The sample is of another subspace, and of smaller values: what comes later is outside in every way.
    old = flat_people(200, 128, effective=5, seed=1)
    new = np.concatenate(
        (
            flat_people(200, 128, effective=60, seed=2),
            np.repeat(np.eye(1, 128, dtype=np.int8) * 127, 20, axis=0),
            np.zeros((20, 128), np.int8),
            np.full((20, 128), -127, np.int8),
        )
    )
    resident = CodeStore(128)
    resident.append(old)
    assert resident.packed.sketch_width
    resident.append(new)
    expected = as_set(numpy_exact.NumpyMatcher(128, store=resident).search(new, 0.5))
    assert expected
    assert as_set(scan(resident, new, 0.5)) == expected
    for threshold in (-1.0, -0.2, 0.0, 1.0):
        assert as_set(scan(resident, new[:30], threshold)) == as_set(
            numpy_exact.NumpyMatcher(128, store=resident).search(new[:30], threshold)
        )


@pytest.mark.usefixtures("early")
def test_thousands_of_identical_descriptors_are_all_linked():
    codes = np.repeat(flat_people(5, 512, effective=2), 400, axis=0)
    assert all_links(codes, 0.99) == numpy_links(codes, 0.99)


def test_evenly_spread_descriptors_get_no_sketch():
    vectors = np.random.default_rng(0).standard_normal((2000, 512)).astype(np.float32)
    assert learn_sketch(quantise(vectors), 0.5) is None


def test_there_is_no_sketch_of_few_dimensions_of_few_rows_and_of_zeros():
    assert learn_sketch(flat_people(500, 63, effective=4), 0.5) is None
    assert learn_sketch(flat_people(31, 64, effective=4), 0.5) is None
    assert learn_sketch(np.zeros((500, 64), np.int8), 0.5) is None


def test_the_columns_of_a_rotation_are_orthonormal(monkeypatch):
    made = []
    monkeypatch.setattr(
        "stream_cluster.matching.sketch.Sketch", lambda rotation, step: made.append((rotation, step))
    )
    learn_sketch(flat_people(3000, 512, effective=30), 0.5)
    ((rotation, step),) = made
    error = rotation.T.astype(np.float64) @ rotation - np.eye(128)
    assert np.abs(np.linalg.eigvalsh(error)).max() < 1e-5  # what the bound allows for, see sketch.cpp
    assert 1 / 253 <= step < 1 / 127


def test_a_sample_is_spread_over_all_rows():
    assert sample_rows(5).tolist() == [0, 1, 2, 3, 4]
    rows = sample_rows(1_000_000)
    assert len(rows) == SAMPLE_ROWS
    assert (rows[0], rows[-1]) == (0, 999_999)
    assert np.diff(rows).max() <= 123


@pytest.mark.parametrize(
    ("shape", "step", "message"),
    [((64, 33), 0.01, "33 columns"), ((32, 64), 0.01, "64 columns"), ((64, 32), 0.001, "step")],
)
def test_an_impossible_sketch_is_refused(shape, step, message):
    with pytest.raises(ValueError, match=message):
        kernel.Sketch(np.eye(*shape, dtype=np.float32), step)


def test_a_sketch_of_another_dimension_is_refused():
    resident = CodeStore(128)
    with pytest.raises(ValueError, match="found dimension 64, expected 128"):
        resident.packed.use_sketch(kernel.Sketch(np.eye(64, 32, dtype=np.float32), 0.01), threads=1)

from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.matching.codes import inverse_norms
from stream_cluster.matching.store import CodeStore
from tests.support.descriptors import DIMENSIONS, people


@pytest.mark.parametrize("dim", DIMENSIONS)
def test_what_was_appended_in_pieces_comes_back_with_its_norms(dim):
    codes = people(300, dim)
    store = CodeStore(dim)
    for start, stop in [(0, 1), (1, 1), (1, 63), (63, 65), (65, 200), (200, 300)]:
        store.append(codes[start:stop])
    rows = np.random.default_rng(0).permutation(300)
    np.testing.assert_array_equal(store.gather(rows), codes[rows])
    np.testing.assert_array_equal(store.gather_norms(rows), inverse_norms(codes[rows]))
    assert not store.is_removed(rows).any()
    assert len(store) == 300


def test_small_spaces_stay_small_and_large_ones_take_the_codes_and_little_more():
    store = CodeStore(512)
    store.append(np.ones((3, 512), np.int8))
    assert store.nbytes < 64 * (512 + 16)
    store.append(np.ones((50_000, 512), np.int8))
    # At most one chunk of 4 MB is not full.
    assert store.packed.sketch_width == 128
    assert store.nbytes < 50_003 * (512 + 16 + 160) + (4 << 20) * 1.35


def test_a_removed_row_is_erased_and_keeps_its_number():
    store = CodeStore(2)
    store.append(np.array([[1, 2], [3, 4], [5, 6]], np.int8))
    store.remove(np.array([1]))
    store.remove(np.array([1, 1]))
    assert (len(store), store.removed_count) == (3, 1)
    assert store.gather(np.array([2, 1, 0])).tolist() == [[5, 6], [0, 0], [1, 2]]
    assert store.gather_norms(np.array([1])).tolist() == [0]
    assert store.is_removed(np.array([0, 1, 2])).tolist() == [False, True, False]


def test_rows_beyond_the_end_are_refused_and_none_is_removed():
    store = CodeStore(2)
    store.append(np.ones((3, 2), np.int8))
    for rows in ([1, 3], [-1, 0], [1, 2**40]):
        for call in (store.gather, store.gather_norms, store.remove, store.is_removed):
            with pytest.raises(IndexError, match=r"expected 0\.\.2"):
                call(np.array(rows))
    assert store.removed_count == 0


def test_no_rows_are_no_rows():
    store = CodeStore(2)
    assert store.gather(np.empty(0, np.intp)).shape == (0, 2)
    store.remove(np.empty(0, np.intp))


def test_codes_of_another_type_or_dimension_are_refused():
    store = CodeStore(2)
    for wrong in (np.ones((1, 3), np.int8), np.ones((1, 2), np.float32), np.ones(2, np.int8)):
        with pytest.raises(ValueError, match="expected int8 of"):
            store.append(wrong)


@pytest.mark.parametrize("dim", [0, 4097])
def test_a_dimension_out_of_range_is_refused(dim):
    with pytest.raises(ValueError, match="expected 1 to 4096"):
        CodeStore(dim)

from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.matching.codes import CodeStore, encode, inverse_norms, pair_dots, quantise


def test_the_largest_magnitude_becomes_127_and_the_rest_is_rounded_to_even():
    codes = quantise(np.array([[1.0, -2.0, 0.5], [254.0, 1.0, 3.0]], np.float32))
    assert codes.tolist() == [[64, -127, 32], [127, 0, 2]]


def test_zero_tiny_and_huge_vectors_are_quantised():
    codes = quantise(np.array([[0, 0], [1e-45, 0], [-3e-39, 3e-39], [3e38, -3e38]], np.float32))
    assert codes.tolist() == [[0, 0], [127, 0], [-127, 127], [127, -127]]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_that_is_not_finite_is_refused(bad):
    with pytest.raises(ValueError, match="found NaN or infinity"):
        quantise(np.array([[1, 2], [bad, 1]], np.float32))


def test_no_vectors_give_no_codes():
    assert quantise(np.empty((0, 7), np.float32)).shape == (0, 7)


def test_float_and_int8_descriptors_of_one_batch_are_encoded_in_their_order():
    codes = encode([np.array([1, 2], np.int8), np.array([1, 2], np.float32), np.array([-128, 5], np.int8)])
    assert codes.tolist() == [[1, 2], [64, 127], [-127, 5]]


@pytest.mark.parametrize(
    "batch", [[], [np.zeros(2, np.float32), np.zeros(3, np.float32)], [np.zeros((1, 2), np.int8)]]
)
def test_a_batch_without_one_dimension_is_refused(batch):
    with pytest.raises(ValueError, match="expected one shape"):
        encode(batch)


def test_dot_products_are_exact_where_float32_no_longer_is():
    codes = np.full((2, 4096), 127, np.int8)
    codes[1, 0] = 126
    assert pair_dots(codes, codes).tolist() == [4096 * 127**2, 4095 * 127**2 + 126**2]
    assert pair_dots(codes[:1], -codes[1:]).tolist() == [-(4095 * 127**2 + 127 * 126)]


def test_an_all_zero_code_has_the_inverse_norm_zero():
    assert inverse_norms(np.array([[0, 0], [3, 4]], np.int8)).tolist() == [0, np.float32(0.2)]


def test_appending_moves_nothing_that_is_there_and_small_spaces_stay_small():
    store = CodeStore(8)
    store.append(np.ones((3, 8), np.int8))
    assert store.nbytes == 64 * (8 + 4 + 1)
    before = [block.codes.__array_interface__["data"] for block in store.blocks()]
    store.append(np.ones((20_000, 8), np.int8))
    blocks = list(store.blocks())
    assert [block.codes.__array_interface__["data"] for block in blocks][:1] == before
    assert [len(block.codes) for block in blocks] == [
        64,
        64,
        128,
        256,
        512,
        1024,
        2048,
        4096,
        4096,
        4096,
        3619,
    ]


def test_a_removed_row_is_erased_and_keeps_its_number():
    store = CodeStore(2)
    store.append(np.array([[1, 2], [3, 4], [5, 6]], np.int8))
    store.remove(np.array([1]))
    store.remove(np.array([1, 1]))
    assert (len(store), store.removed_count) == (3, 1)
    assert store.gather(np.array([2, 1, 0])).tolist() == [[5, 6], [0, 0], [1, 2]]
    assert store.gather_norms(np.array([1])).tolist() == [0]
    assert store.is_removed(np.array([0, 1, 2])).tolist() == [False, True, False]


def test_rows_beyond_the_end_are_refused():
    store = CodeStore(2)
    store.append(np.ones((3, 2), np.int8))
    for call in (store.gather, store.gather_norms, store.remove, store.is_removed):
        with pytest.raises(IndexError, match=r"expected 0\.\.2"):
            call(np.array([1, 3]))


def test_codes_of_another_type_or_dimension_are_refused():
    store = CodeStore(2)
    for wrong in (np.ones((1, 3), np.int8), np.ones((1, 2), np.float32), np.ones(2, np.int8)):
        with pytest.raises(ValueError, match="expected int8 of"):
            store.append(wrong)


@pytest.mark.parametrize("dim", [0, 4097])
def test_a_dimension_out_of_range_is_refused(dim):
    with pytest.raises(ValueError, match="expected 1 to 4096"):
        CodeStore(dim)

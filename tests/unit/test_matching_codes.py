from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.matching.codes import encode, inverse_norms, pair_dots, quantise


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

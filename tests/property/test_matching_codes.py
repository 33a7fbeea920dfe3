from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from stream_cluster.matching.codes import encode, inverse_norms, pair_dots, quantise, similarities
from stream_cluster.matching.store import CodeStore
from tests.support.descriptors import code_sets
from tests.support.oracle import naive_inverse_norms, naive_similarity

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = arrays.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 9)), elements=finite)


@given(vectors)
def test_quantised_vectors_stay_within_127_and_reach_it_unless_they_are_zero(values):
    codes = quantise(values)
    assert codes.dtype == np.int8
    assert codes.shape == values.shape
    for code, value in zip(codes, values, strict=True):
        assert np.abs(code.astype(int)).max() == (127 if value.any() else 0)
        assert (np.sign(code) * np.sign(value) >= 0).all()


@given(vectors, st.integers(-20, 20))
def test_a_scale_by_a_power_of_two_changes_no_code(values, exponent):
    values = np.clip(values, -1e30, 1e30)
    values[np.abs(values) < 1e-30] = 0
    assert np.array_equal(quantise(values * np.float32(2.0**exponent)), quantise(values))


@given(arrays.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 9))))
def test_int8_descriptors_keep_their_values_but_for_the_lowest(values):
    assert np.array_equal(encode(list(values)), np.clip(values, -127, 127))


@settings(deadline=None)
@given(code_sets())
def test_inverse_norms_and_similarities_are_those_of_the_oracle(codes):
    norms = inverse_norms(codes)
    assert np.array_equal(norms, naive_inverse_norms(codes))
    i, j = np.indices((len(codes), len(codes))).reshape(2, -1)
    similarity = similarities(pair_dots(codes[i], codes[j]), norms[i], norms[j])
    assert np.array_equal(similarity, naive_similarity(codes, codes).reshape(-1))


@given(st.lists(st.integers(0, 200), max_size=8), st.data())
def test_a_store_gives_back_its_rows_however_they_were_appended(lengths, data):
    random = np.random.default_rng(len(lengths))
    parts = [random.integers(-127, 128, (length, 3)).astype(np.int8) for length in lengths]
    store = CodeStore(3)
    for part in parts:
        store.append(part)
    everything = np.concatenate([np.empty((0, 3), np.int8), *parts])
    assert len(store) == len(everything)
    assert np.array_equal(store.gather(np.arange(len(store))), everything)
    if len(store):
        rows = np.array(data.draw(st.lists(st.integers(0, len(store) - 1), max_size=30)), np.uint32)
        assert np.array_equal(store.gather(rows), everything[rows])
        assert np.array_equal(store.gather_norms(rows), inverse_norms(everything[rows]))

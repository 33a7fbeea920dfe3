from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.matching.store import CodeStore
from tests.support.descriptors import code_sets, people, thresholds
from tests.support.engines import ENGINES, NATIVE, NUMPY
from tests.support.oracle import as_set, naive_hits, naive_links

every_engine = pytest.mark.parametrize("engine", ENGINES, ids=str)
every_path = pytest.mark.parametrize("engine", NATIVE, ids=str)


@every_engine
@settings(deadline=None)
@given(code_sets(), thresholds, st.booleans())
def test_all_pairs_are_those_of_the_naive_oracle_bit_for_bit(engine, codes, threshold, tiny):
    expected = naive_links(codes, threshold)
    with engine.use(max_hits=4 if tiny else None) as module:
        chunks = list(module.all_pairs(codes, threshold))
    assert as_set(chunks) == expected
    if tiny:
        assert all(0 < len(chunk) <= 4 for chunk in chunks)


@every_engine
@settings(deadline=None)
@given(code_sets(max_rows=20), thresholds, st.data())
def test_a_search_finds_what_the_naive_oracle_finds_bit_for_bit(engine, codes, threshold, data):
    cut = data.draw(st.integers(0, len(codes)))
    middle = data.draw(st.integers(0, cut))
    with engine.use(max_hits=4):
        matcher = engine.matcher(codes.shape[1])
        matcher.add(codes[:middle])
        matcher.add(codes[middle:cut])
        chunks = list(matcher.search(codes[cut:], threshold))
    assert as_set(chunks) == naive_hits(codes[cut:], codes[:cut], threshold)
    assert all(0 < len(chunk) <= 4 for chunk in chunks)


@every_engine
@settings(deadline=None)
@given(code_sets(dimensions=(1, 3, 65)), thresholds, st.data())
def test_pairs_of_selected_rows_are_those_of_a_copy_of_these_rows(engine, codes, threshold, data):
    rows = np.array(data.draw(st.lists(st.integers(0, max(len(codes) - 1, 0)), unique=True)), np.uint32)
    rows = rows[rows < len(codes)]
    expected = naive_links(codes[rows], threshold)
    with engine.use(max_hits=4) as module:
        store = CodeStore(codes.shape[1])
        store.append(codes)
        assert as_set(module.all_pairs(codes, threshold, rows=rows)) == expected
        assert as_set(module.all_pairs(store, threshold, rows=rows)) == expected
        assert as_set(module.all_pairs(store, threshold)) == naive_links(codes, threshold)


@every_engine
@settings(deadline=None)
@given(code_sets(dimensions=(1, 3, 65)), thresholds, st.data())
def test_removed_rows_are_never_found_at_any_threshold(engine, codes, threshold, data):
    removed = data.draw(st.lists(st.integers(0, len(codes) - 1)) if len(codes) else st.just([]))
    with engine.use() as module:
        matcher = engine.matcher(codes.shape[1])
        matcher.add(codes)
        matcher.remove(np.array(removed, np.uint32))
        found = as_set(matcher.search(codes, threshold))
        pairs = as_set(module.all_pairs(matcher.store, threshold))
    assert found == {hit for hit in naive_hits(codes, codes, threshold) if hit[1] not in removed}
    assert pairs == {hit for hit in found if hit[0] < hit[1] and hit[0] not in removed}


@every_path
@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 300),
    st.one_of(st.sampled_from([1, 3, 64, 65, 512, 4096]), st.integers(1, 600)),
    st.integers(0, 999),
    st.floats(0.0, 2.0),
    thresholds,
    st.data(),
)
def test_many_blocks_of_any_dimension_give_what_numpy_gives(engine, rows, dim, seed, noise, threshold, data):
    """Enough rows for whole and partial blocks; similar rows at all distances from the threshold."""
    codes = people(rows, dim, per_person=9, noise=noise, seed=seed)
    middle = data.draw(st.integers(0, rows))
    queries = codes[data.draw(st.integers(0, rows)) :][:30]
    store = CodeStore(dim)
    store.append(codes[:middle])
    store.append(codes[middle:])
    removed = data.draw(st.lists(st.integers(0, rows - 1), max_size=3))
    store.remove(np.array(removed, np.uint32))
    with NUMPY.use() as numpy_exact:
        hits = as_set(numpy_exact.scan(store, queries, threshold))
        links = as_set(numpy_exact.all_pairs(store, threshold))
    with engine.use(max_hits=1000) as native:
        assert as_set(native.scan(store, queries, threshold)) == hits
        assert as_set(native.all_pairs(store, threshold)) == links


@every_path
@settings(deadline=None, max_examples=30)
@given(st.sampled_from([64, 100, 257, 512]), st.integers(0, 999), st.data())
def test_pairs_at_the_very_threshold_are_decided_by_the_last_bit(engine, dim, seed, data):
    """The threshold is the similarity of one of the pairs, or the float next to it."""
    codes = people(80, dim, noise=0.4, seed=seed)
    everything = sorted({bits for _, _, bits in naive_links(codes, 0.0)})
    bits = data.draw(st.sampled_from(everything)) + data.draw(st.integers(-1, 0))
    threshold = float(np.array(bits, np.uint32).view(np.float32))
    with engine.use() as native:
        assert as_set(native.all_pairs(codes, threshold)) == naive_links(codes, threshold)

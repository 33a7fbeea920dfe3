from __future__ import annotations

from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.matching import codes as codes_module
from stream_cluster.matching import exact
from stream_cluster.matching.codes import CodeStore
from stream_cluster.matching.exact import ExactMatcher, all_pairs
from tests.support.descriptors import code_sets, thresholds
from tests.support.oracle import as_set, naive_hits, naive_links


def small_tiles():
    """Tiles and chunks so small that a dozen rows fill many of them."""
    return mock.patch.multiple(exact, TILE_ROWS=2, TILE_COLUMNS=3, MAX_HITS=4)


def small_blocks():
    return mock.patch.multiple(codes_module, _FIRST_BLOCK_ROWS=1, _BLOCK_ROWS=4, _CHUNK_ROWS=3)


@settings(deadline=None)
@given(code_sets(), thresholds, st.booleans())
def test_all_pairs_are_those_of_the_naive_oracle_bit_for_bit(codes, threshold, tiny):
    expected = naive_links(codes, threshold)
    if not tiny:
        assert as_set(all_pairs(codes, threshold)) == expected
        return
    with small_tiles():
        chunks = list(all_pairs(codes, threshold))
    assert as_set(chunks) == expected
    assert all(0 < len(chunk) <= 4 for chunk in chunks)


@settings(deadline=None)
@given(code_sets(max_rows=20), thresholds, st.data())
def test_a_search_finds_what_the_naive_oracle_finds_bit_for_bit(codes, threshold, data):
    cut = data.draw(st.integers(0, len(codes)))
    middle = data.draw(st.integers(0, cut))
    with small_tiles(), small_blocks():
        matcher = ExactMatcher(codes.shape[1])
        matcher.add(codes[:middle])
        matcher.add(codes[middle:cut])
        chunks = list(matcher.search(codes[cut:], threshold))
    assert as_set(chunks) == naive_hits(codes[cut:], codes[:cut], threshold)
    assert all(0 < len(chunk) <= 4 for chunk in chunks)


@settings(deadline=None)
@given(code_sets(dimensions=(1, 3, 65)), thresholds, st.data())
def test_pairs_of_selected_rows_are_those_of_a_copy_of_these_rows(codes, threshold, data):
    rows = np.array(data.draw(st.lists(st.integers(0, max(len(codes) - 1, 0)), unique=True)), np.uint32)
    rows = rows[rows < len(codes)]
    expected = naive_links(codes[rows], threshold)
    with small_tiles(), small_blocks():
        store = CodeStore(codes.shape[1])
        store.append(codes)
        assert as_set(all_pairs(codes, threshold, rows=rows)) == expected
        assert as_set(all_pairs(store, threshold, rows=rows)) == expected
        assert as_set(all_pairs(store, threshold)) == naive_links(codes, threshold)


@settings(deadline=None)
@given(code_sets(dimensions=(1, 3, 65)), thresholds, st.data())
def test_removed_rows_are_never_found_at_any_threshold(codes, threshold, data):
    removed = data.draw(st.lists(st.integers(0, len(codes) - 1)) if len(codes) else st.just([]))
    with small_blocks():
        matcher = ExactMatcher(codes.shape[1])
        matcher.add(codes)
        matcher.remove(np.array(removed, np.uint32))
        found = as_set(matcher.search(codes, threshold))
    assert found == {hit for hit in naive_hits(codes, codes, threshold) if hit[1] not in removed}

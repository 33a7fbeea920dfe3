from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from stream_cluster.errors import Cancelled
from stream_cluster.matching.exact import ExactMatcher, all_pairs
from stream_cluster.matching.protocol import MAX_HITS, Matcher
from stream_cluster.matching.threads import core_count, limit_threads, resolve_threads
from stream_cluster.model import Interrupt
from tests.support.descriptors import people
from tests.support.oracle import as_set, naive_hits, naive_links


def test_pairs_across_several_tiles_are_those_of_the_oracle():
    codes = people(1500, 16, noise=0.3)
    expected = naive_links(codes, 0.9)
    assert len(expected) > 2000
    assert as_set(all_pairs(codes, 0.9)) == expected


def test_streaming_and_all_pairs_find_the_same_links():
    codes = people(700, 65)
    matcher: Matcher = ExactMatcher(65)
    found = set()
    for start in range(0, 700, 100):
        batch = codes[start : start + 100]
        found |= {(row, start + query, bits) for query, row, bits in as_set(matcher.search(batch, 0.5))}
        found |= {(start + a, start + b, bits) for a, b, bits in as_set(all_pairs(batch, 0.5))}
        matcher.add(batch)
    assert found == as_set(all_pairs(codes, 0.5))
    assert (matcher.engine, matcher.dim, len(matcher)) == ("exact", 65, 700)


def test_a_sum_that_float32_would_round_is_exact_and_decides_the_link():
    one = np.full(4096, 127, np.int8)
    other = one.copy()
    other[::2] = 126
    assert as_set(all_pairs(np.array([one, other]), 0.5)) == naive_links(np.array([one, other]), 0.5)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_have_no_pairs(rows):
    done = []
    assert (
        list(all_pairs(np.ones((rows, 3), np.int8), -1, progress=lambda stage, share: done.append(share)))
        == []
    )
    assert done[-1] == 1.0


def test_identical_descriptors_come_in_bounded_chunks_within_bounded_memory():
    codes = np.full((6000, 16), 7, np.int8)
    tracemalloc.start()
    total = 0
    for chunk in all_pairs(codes, 0.99):
        assert len(chunk) <= MAX_HITS
        total += len(chunk)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 6000 * 5999 // 2
    # All links together would take 216 MB; a tile of dot products takes 16.
    assert peak_bytes < 120e6


def test_nothing_is_above_one_and_everything_but_the_opposite_above_minus_one():
    codes = np.array([[5], [9], [0], [-3]], np.int8)
    assert as_set(all_pairs(codes, 1.0)) == set()
    pairs = {(a, b) for a, b, _ in as_set(all_pairs(codes, -1.0))}
    assert pairs == {(0, 1), (0, 2), (1, 2), (2, 3)}


def test_progress_of_the_match_stage_rises_to_one():
    shares = []
    list(all_pairs(people(2500, 8), 0.9, progress=lambda stage, share: shares.append((stage, share))))
    assert [stage for stage, _ in shares] == ["match"] * 3
    assert [share for _, share in shares] == sorted({share for _, share in shares})
    assert shares[0][1] > 0.5  # the first strip of the triangle is the longest
    assert shares[-1][1] == 1.0


def test_an_interrupt_ends_pairs_and_search_at_the_next_tile():
    codes = people(3000, 8, noise=0.0)
    interrupt = Interrupt()
    links = all_pairs(codes, 0.9, interrupt=interrupt)
    next(links)
    interrupt.cancel()
    with pytest.raises(Cancelled):
        list(links)
    matcher = ExactMatcher(8)
    matcher.add(codes)
    with pytest.raises(Cancelled):
        list(matcher.search(codes, 0.9, interrupt))


def test_a_search_in_an_empty_space_or_for_nothing_finds_nothing():
    matcher = ExactMatcher(4)
    assert list(matcher.search(np.ones((2, 4), np.int8), -1)) == []
    matcher.add(np.ones((2, 4), np.int8))
    assert list(matcher.search(np.empty((0, 4), np.int8), -1)) == []


def test_codes_of_another_dimension_are_refused():
    matcher = ExactMatcher(4)
    with pytest.raises(ValueError, match="expected int8 of"):
        list(matcher.search(np.ones((2, 5), np.int8), 0.5))


def test_rows_that_were_removed_are_not_found_and_others_keep_their_numbers():
    codes = people(300, 16)
    matcher = ExactMatcher(16)
    matcher.add(codes)
    gone = np.arange(0, 300, 7)
    matcher.remove(gone)
    expected = {hit for hit in naive_hits(codes[:50], codes, 0.5) if hit[1] % 7}
    assert as_set(matcher.search(codes[:50], 0.5)) == expected


def test_the_limit_of_threads_holds_for_blas_and_zero_means_every_core():
    blas = {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}
    assert blas, "NumPy without a BLAS that can be limited"
    try:
        assert limit_threads(1) == 1
        assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {1}
    finally:
        assert limit_threads(0) == core_count()
    assert {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"} == {core_count()}


def test_a_negative_number_of_threads_is_refused():
    with pytest.raises(ValueError, match="found -1"):
        resolve_threads(-1)

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from stream_cluster.errors import Cancelled
from stream_cluster.matching.protocol import MAX_HITS
from stream_cluster.matching.store import CodeStore
from stream_cluster.model import Interrupt
from tests.support.descriptors import people
from tests.support.engines import ENGINES
from tests.support.oracle import as_set, naive_hits, naive_links


@pytest.fixture(params=ENGINES, ids=str)
def engine(request):
    with request.param.use():
        yield request.param


@pytest.fixture
def all_pairs(engine):
    return engine.module.all_pairs


def test_pairs_across_several_tiles_are_those_of_the_oracle(all_pairs):
    codes = people(1500, 16, noise=0.3)
    expected = naive_links(codes, 0.9)
    assert len(expected) > 2000
    assert as_set(all_pairs(codes, 0.9)) == expected


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_pairs_that_are_decided_before_the_last_dimension_are_those_of_the_oracle(all_pairs, threshold):
    codes = people(400, 512, noise=0.6)
    assert as_set(all_pairs(codes, threshold)) == naive_links(codes, threshold)


def test_links_that_only_the_last_dimensions_make_are_found(all_pairs):
    random = np.random.default_rng(0)
    codes = np.zeros((130, 256), np.int8)
    codes[:, :192] = random.integers(-20, 21, (130, 192))
    codes[:, 192:] = random.integers(100, 128, (130, 64))
    expected = naive_links(codes, 0.9)
    assert len(expected) > 1000
    assert as_set(all_pairs(codes, 0.9)) == expected


def test_streaming_and_all_pairs_find_the_same_links(engine, all_pairs):
    codes = people(700, 65)
    matcher = engine.matcher(65)
    found = set()
    for start in range(0, 700, 100):
        batch = codes[start : start + 100]
        found |= {(row, start + query, bits) for query, row, bits in as_set(matcher.search(batch, 0.5))}
        found |= {(start + a, start + b, bits) for a, b, bits in as_set(all_pairs(batch, 0.5))}
        matcher.add(batch)
    assert found == as_set(all_pairs(codes, 0.5))
    assert (matcher.engine, matcher.dim, len(matcher)) == ("exact", 65, 700)


def test_a_sum_that_float32_would_round_is_exact_and_decides_the_link(all_pairs):
    one = np.full(4096, 127, np.int8)
    other = one.copy()
    other[::2] = 126
    codes = np.array([one, other, -one, -other])
    for threshold in (-1.0, 0.5):
        assert as_set(all_pairs(codes, threshold)) == naive_links(codes, threshold)


@pytest.mark.parametrize("rows", [0, 1])
def test_fewer_than_two_rows_have_no_pairs(all_pairs, rows):
    done = []
    assert (
        list(all_pairs(np.ones((rows, 3), np.int8), -1, progress=lambda stage, share: done.append(share)))
        == []
    )
    assert done[-1] == 1.0


def test_identical_descriptors_come_in_bounded_chunks_within_bounded_memory(all_pairs):
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


def test_nothing_is_above_one_and_everything_but_the_opposite_above_minus_one(all_pairs):
    codes = np.array([[5], [9], [0], [-3]], np.int8)
    assert as_set(all_pairs(codes, 1.0)) == set()
    assert as_set(all_pairs(codes, np.nan)) == set()
    pairs = {(a, b) for a, b, _ in as_set(all_pairs(codes, -1.0))}
    assert pairs == {(0, 1), (0, 2), (1, 2), (2, 3)}


def test_progress_of_the_match_stage_rises_to_one(all_pairs):
    shares = []
    list(all_pairs(people(2500, 8), 0.9, progress=lambda stage, share: shares.append((stage, share))))
    assert {stage for stage, _ in shares} == {"match"}
    assert [share for _, share in shares] == sorted(share for _, share in shares)
    assert shares[-1][1] == 1.0


def test_an_interrupt_ends_pairs_and_search(engine, all_pairs):
    codes = people(3000, 8, noise=0.0)
    interrupt = Interrupt()
    with engine.use(max_hits=500 if engine.path else None):
        links = all_pairs(codes, 0.9, interrupt=interrupt)
        next(links)
        interrupt.cancel()
        with pytest.raises(Cancelled):
            list(links)
    matcher = engine.matcher(8)
    matcher.add(codes)
    with pytest.raises(Cancelled):
        list(matcher.search(codes, 0.9, interrupt))


def test_a_search_in_an_empty_space_or_for_nothing_finds_nothing(engine):
    matcher = engine.matcher(4)
    assert list(matcher.search(np.ones((2, 4), np.int8), -1)) == []
    matcher.add(np.ones((2, 4), np.int8))
    assert list(matcher.search(np.empty((0, 4), np.int8), -1)) == []


def test_codes_of_another_type_or_dimension_are_refused(engine, all_pairs):
    matcher = engine.matcher(4)
    with pytest.raises(ValueError, match="expected int8 of"):
        list(matcher.search(np.ones((2, 5), np.int8), 0.5))
    with pytest.raises(ValueError, match="expected int8 of"):
        list(all_pairs(np.ones((2, 5), np.uint8), 0.5))


def test_codes_that_are_not_contiguous_give_the_same_pairs(all_pairs):
    codes = people(150, 40)
    assert as_set(all_pairs(codes[::2, 4:20], 0.5)) == naive_links(codes[::2, 4:20], 0.5)
    assert as_set(all_pairs(np.asfortranarray(codes), 0.5)) == naive_links(codes, 0.5)


def test_rows_that_were_removed_are_in_no_hit_and_no_pair_and_others_keep_their_numbers(engine, all_pairs):
    codes = people(300, 16)
    matcher = engine.matcher(16)
    matcher.add(codes)
    matcher.remove(np.arange(0, 300, 7))
    for threshold in (0.5, 0.0, -1.0):
        expected = {hit for hit in naive_hits(codes[:50], codes, threshold) if hit[1] % 7}
        assert as_set(matcher.search(codes[:50], threshold)) == expected
        expected = {hit for hit in naive_links(codes, threshold) if hit[0] % 7 and hit[1] % 7}
        assert as_set(all_pairs(matcher.store, threshold)) == expected
        rows = np.arange(299, 0, -3)
        expected = {
            hit for hit in naive_links(codes[rows], threshold) if rows[hit[0]] % 7 and rows[hit[1]] % 7
        }
        assert as_set(all_pairs(matcher.store, threshold, rows=rows)) == expected


def test_a_row_that_is_not_there_is_refused(all_pairs):
    store = CodeStore(2)
    store.append(np.ones((3, 2), np.int8))
    for codes in (store, np.ones((3, 2), np.int8)):
        with pytest.raises(IndexError):
            list(all_pairs(codes, 0.5, rows=np.array([0, 3])))


def test_a_scan_from_a_row_on_leaves_out_the_rows_before_it(engine):
    codes = people(300, 24)
    store = CodeStore(24)
    store.append(codes)
    for first_row in (0, 1, 63, 64, 130, 299, 300):
        found = as_set(engine.module.scan(store, codes[:40], -0.1, first_row=first_row))
        assert found == {hit for hit in naive_hits(codes[:40], codes, -0.1) if hit[1] >= first_row}

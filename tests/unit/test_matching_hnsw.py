from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.errors import Cancelled
from stream_cluster.matching import hnsw
from stream_cluster.matching.cache_file import CacheRejected
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.matching.protocol import Matcher
from stream_cluster.matching.store import CodeStore
from stream_cluster.model import Interrupt
from tests.support.descriptors import people
from tests.support.oracle import as_set, naive_hits

DIM = 24


def matcher_of(codes, *, threads=1, **options):
    matcher = HnswMatcher(codes.shape[1], 8, 60, 60, threads, **options)
    matcher.add(codes)
    return matcher


def stored(codes):
    store = CodeStore(codes.shape[1])
    store.append(codes)
    return store


def load(path, codes, **options):
    return HnswMatcher.load(path, stored(codes), **{"m": 8, "ef_construction": 60, "threads": 1, **options})


def reason_of(path, codes, **options):
    with pytest.raises(CacheRejected) as caught:
        load(path, codes, **options)
    return caught.value.reason


def test_hits_of_a_small_space_are_the_exact_ones_bit_for_bit():
    codes = people(400, DIM)
    matcher: Matcher = matcher_of(codes)
    queries = people(400, DIM)[:50]
    assert as_set(matcher.search(queries, 0.6)) == naive_hits(queries, codes, 0.6)
    assert (matcher.engine, matcher.dim, len(matcher)) == ("hnsw", DIM, 400)
    assert matcher.nbytes > matcher_of(codes[:1]).store.nbytes


def test_the_radius_search_grows_k_far_beyond_the_first_one():
    codes = people(600, DIM, per_person=200, noise=0.3)
    found, expected = as_set(matcher_of(codes).search(codes[:20], 0.7)), naive_hits(codes[:20], codes, 0.7)
    assert len(expected) > 20 * 150 > 20 * hnsw.FIRST_K
    assert found <= expected
    assert len(found) > 0.98 * len(expected)


def test_more_hits_than_the_largest_k_are_found_by_exact_matching(monkeypatch):
    monkeypatch.setattr(hnsw, "MAX_K", 32)
    codes = people(300, DIM, per_person=100, noise=0.3)
    assert as_set(matcher_of(codes).search(codes[:20], 0.7)) == naive_hits(codes[:20], codes, 0.7)


def test_adding_and_searching_in_parallel_finds_nearly_all_and_nothing_else():
    codes = people(3000, DIM)
    matcher = HnswMatcher(DIM, 16, 100, 100, threads=2)
    for start in range(0, 3000, 700):
        matcher.add(codes[start : start + 700])
    found = as_set(matcher.search(codes, 0.6))
    expected = naive_hits(codes, codes, 0.6)
    assert found <= expected
    assert len(found) > 0.99 * len(expected)


def test_the_capacity_grows_past_the_first_one():
    codes = people(2500, 8)
    matcher = HnswMatcher(8, 8, 40, 40, 2)
    for start in range(0, 2500, 250):
        matcher.add(codes[start : start + 250])
    assert matcher.indexed == len(matcher) == 2500
    assert {row for _, row, _ in as_set(matcher.search(codes[-5:], 0.99))} >= set(range(2495, 2500))


@pytest.mark.parametrize("dim", [1, 3, 65, 4096])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.5, 1.0])
def test_identical_and_all_zero_descriptors_are_matched_exactly_at_any_dimension(dim, threshold):
    codes = np.zeros((90, dim), np.int8)
    codes[:60] = 3
    codes[60:70] = -3
    queries = codes[[0, 65, 80]]
    assert as_set(matcher_of(codes).search(queries, threshold)) == naive_hits(queries, codes, threshold)


def test_a_space_of_nothing_but_zeros_or_of_nothing_has_no_hits():
    assert as_set(HnswMatcher(4, threads=1).search(np.ones((3, 4), np.int8), 0.1)) == set()
    zeros = np.zeros((5, 4), np.int8)
    assert as_set(matcher_of(zeros).search(zeros, 0.0)) == set()


def test_removed_rows_are_not_found_even_when_nearly_all_are_removed():
    codes = people(300, DIM, per_person=30)
    matcher = matcher_of(codes)
    gone = np.arange(10, 300)
    matcher.remove(gone[:200])
    matcher.remove(gone)
    matcher.remove(gone)
    # Also what k is limited to: asked for more, the index would raise.
    assert matcher.live == 10
    assert as_set(matcher.search(codes, 0.3)) == naive_hits(codes, codes[:10], 0.3)
    matcher.remove(np.arange(10))
    assert as_set(matcher.search(codes, 0.0)) == set()


def test_rows_of_a_shared_store_that_are_not_in_the_graph_yet_are_found():
    codes = people(500, DIM)
    matcher = matcher_of(codes[:300])
    matcher.store.append(codes[300:])
    assert matcher.indexed == 300
    expected = naive_hits(codes[:40], codes, 0.6)
    assert as_set(matcher.search(codes[:40], 0.6)) == expected
    matcher.catch_up()
    assert matcher.indexed == 500
    assert as_set(matcher.search(codes[:40], 0.6)) == expected


def test_a_query_that_the_graph_cannot_answer_is_matched_exactly():
    codes = people(200, DIM)
    matcher = matcher_of(codes)

    class Refusing:
        """The real index, which finds too few whenever query 3 is in the batch."""

        def __init__(self, index):
            self.index = index
            self.batches = []

        def __getattr__(self, name):
            return getattr(self.index, name)

        def knn_query(self, data, k, num_threads):
            self.batches.append(len(data))
            if (data == codes[3]).all(axis=1).any():
                raise RuntimeError("Cannot return the results in a contiguous 2D array")
            return self.index.knn_query(data, k=k, num_threads=num_threads)

    matcher._index = refusing = Refusing(matcher._index)
    assert as_set(matcher.search(codes[:9], 0.6)) == naive_hits(codes[:9], codes, 0.6)
    assert 1 in refusing.batches


def test_an_interrupt_ends_a_search():
    interrupt = Interrupt()
    interrupt.cancel()
    codes = people(100, DIM)
    with pytest.raises(Cancelled):
        list(matcher_of(codes).search(codes, 0.5, interrupt))


def test_a_saved_graph_answers_as_before_and_goes_on_growing(tmp_path):
    codes = people(1500, DIM)
    matcher = matcher_of(codes[:1100])
    matcher.save(tmp_path / "graph")
    loaded = load(tmp_path / "graph", codes[:1100], ef_search=60)
    assert loaded.indexed == 1100
    queries = codes[1100:1160]
    assert as_set(loaded.search(queries, 0.6)) == as_set(matcher.search(queries, 0.6))
    loaded.add(codes[1100:])
    assert loaded.indexed == 1500
    hits = {(query, row) for query, row, _ in as_set(loaded.search(queries, 0.99))}
    assert hits >= {(i, 1100 + i) for i in range(60)}


def test_a_saved_graph_of_fewer_rows_than_the_store_catches_up(tmp_path):
    codes = people(300, DIM)
    matcher_of(codes[:200]).save(tmp_path / "graph")
    loaded = load(tmp_path / "graph", codes)
    assert (loaded.indexed, len(loaded)) == (200, 300)
    loaded.catch_up()
    assert as_set(loaded.search(codes[:30], 0.6)) == naive_hits(codes[:30], codes, 0.6)


def test_rows_removed_before_and_after_saving_are_not_found_after_loading(tmp_path):
    codes = people(200, DIM)
    matcher = matcher_of(codes)
    matcher.remove(np.arange(0, 200, 9))
    matcher.save(tmp_path / "graph")
    store = stored(codes)
    gone = [row for row in range(200) if row % 9 == 0 or row % 4 == 0]
    store.remove(np.array(gone))
    loaded = HnswMatcher.load(tmp_path / "graph", store, m=8, ef_construction=60, threads=1)
    assert loaded.live == 200 - len(gone)
    expected = {hit for hit in naive_hits(codes, codes, 0.6) if hit[1] not in gone}
    assert as_set(loaded.search(codes, 0.6)) == expected


def test_a_graph_of_other_parameters_or_of_other_rows_is_refused(tmp_path):
    codes = people(200, DIM)
    path = tmp_path / "graph"
    assert reason_of(path, codes) == "missing"
    matcher_of(codes).save(path)
    assert reason_of(path, codes, m=9) == "parameters"
    assert reason_of(path, codes, ef_construction=61) == "parameters"
    assert reason_of(path, people(200, DIM + 1)) == "parameters"
    assert reason_of(path, codes[:199]) == "rows"
    assert reason_of(path, people(200, DIM, seed=1)) == "rows"
    other = codes.copy()
    other[77] = codes[78]
    assert reason_of(path, other) == "rows"
    assert load(path, codes).indexed == 200


def test_a_row_that_is_alive_again_in_the_store_makes_the_graph_useless(tmp_path):
    codes = people(50, DIM)
    matcher = matcher_of(codes)
    matcher.remove(np.array([7]))
    matcher.save(tmp_path / "graph")
    assert reason_of(tmp_path / "graph", codes) == "rows"


def test_a_graph_cannot_be_saved_where_nothing_can_be_written(tmp_path):
    with pytest.raises(OSError, match="missing-folder"):
        matcher_of(people(10, 4)).save(tmp_path / "missing-folder" / "graph")

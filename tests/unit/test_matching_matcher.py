from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest

from stream_cluster.matching import hnsw_engine
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.matching.hnsw_engine import INLINE_ROWS
from stream_cluster.matching.matcher import RecallSample, SpaceMatcher
from stream_cluster.matching.protocol import Matcher
from tests.support.descriptors import people
from tests.support.oracle import as_set, naive_hits, naive_links

DIM = 16


@dataclass
class Settings:
    engine: str = "auto"
    hnsw_after: int = 0
    hnsw_m: int = 8
    hnsw_ef_construction: int = 60
    hnsw_ef_search: int = 60
    recall_sample_share: float = 0.0
    threads: int = 1
    cells_after: int = 10**9
    target_recall: float = 0.995
    cells_budget_share: float = 0.05
    cells_sample_share: float = 0.1
    map_codes: bool = False


class Events(list):
    def __call__(self, event, fields):
        self.append((event, dict(fields)))

    @property
    def names(self):
        return [event for event, _ in self]


def space(codes=None, cache_path=None, notify=None, **settings):
    matcher = SpaceMatcher(DIM, Settings(**settings), cache_path, notify=notify)
    if codes is not None:
        matcher.add(codes)
    return matcher


@pytest.fixture
def always_graph(monkeypatch):
    """No row is few enough to be compared with all, and every graph is built in the background."""
    monkeypatch.setattr(hnsw_engine, "INLINE_ROWS", -1)


@pytest.fixture
def gate(monkeypatch):
    """Holds a background build, with all rows of its beginning put in, until the first event is set."""
    opened, reached = threading.Event(), threading.Event()
    original = HnswMatcher.catch_up

    def held(self, should_stop=None):
        original(self, should_stop)
        if threading.current_thread() is not threading.main_thread():
            reached.set()
            assert opened.wait(20)

    monkeypatch.setattr(HnswMatcher, "catch_up", held)
    yield opened, reached
    opened.set()


def test_a_small_space_is_exact_and_a_space_with_engine_exact_stays_so():
    codes = people(60, DIM)
    for settings in ({"engine": "auto", "hnsw_after": 61}, {"engine": "exact"}):
        matcher: Matcher = space(codes, **settings)
        assert as_set(matcher.search(codes, 0.5)) == naive_hits(codes, codes, 0.5)
        assert (matcher.engine, matcher.dim, len(matcher)) == ("exact", DIM, 60)
        assert matcher.nbytes == matcher.store.nbytes


def test_engine_hnsw_is_in_use_from_the_first_search_on():
    matcher = space(engine="hnsw", hnsw_after=10**9)
    codes = people(300, DIM)
    assert as_set(matcher.search(codes[:5], 0.5)) == set()
    assert matcher.engine == "hnsw"
    matcher.add(codes)
    assert as_set(matcher.search(codes, 0.5)) == naive_hits(codes, codes, 0.5)


def test_an_unknown_engine_is_refused():
    with pytest.raises(ValueError, match="found 'fast', expected auto, exact, cells or hnsw"):
        space(engine="fast")


def test_links_within_a_batch_are_exact_with_either_engine():
    codes = people(200, DIM)
    for engine in ("exact", "hnsw"):
        assert as_set(space(engine=engine).within(codes, 0.5)) == naive_links(codes, 0.5)


def test_matching_is_exact_while_the_graph_is_built_and_nothing_waits_for_it(always_graph, gate):
    opened, reached = gate
    codes = people(900, DIM)
    events = Events()
    matcher = space(codes[:500], hnsw_after=500, notify=events)
    queries = codes[:30]
    assert as_set(matcher.search(queries, 0.5)) == naive_hits(queries, codes[:500], 0.5)
    assert reached.wait(20)
    matcher.add(codes[500:])
    matcher.remove(np.array([3, 700]))
    expected = {hit for hit in naive_hits(queries, codes, 0.5) if hit[1] not in {3, 700}}
    assert as_set(matcher.search(queries, 0.5)) == expected
    assert matcher.engine == "exact"
    opened.set()
    assert matcher.wait_until_built(20)
    assert matcher.engine == "hnsw"
    assert matcher._hnsw.live == 898
    assert as_set(matcher.search(queries, 0.5)) == expected
    assert events.names == ["hnsw_build_started", "hnsw_in_use"]
    assert matcher.nbytes > matcher.store.nbytes


def test_a_large_space_is_switched_in_the_background_and_keeps_its_answers():
    codes = people(INLINE_ROWS + 700, DIM)
    matcher = space(codes[:-100], hnsw_after=INLINE_ROWS)
    list(matcher.search(codes[:1], 0.5))
    assert matcher.wait_until_built(30)
    matcher.add(codes[-100:])
    found, expected = as_set(matcher.search(codes, 0.6)), naive_hits(codes, codes, 0.6)
    assert found <= expected
    assert len(found) > 0.99 * len(expected)
    matcher.close()
    assert matcher.engine == "hnsw"


@pytest.mark.parametrize("rows", [10, INLINE_ROWS + 1])
def test_a_failing_build_is_told_once_and_exact_matching_stays(monkeypatch, rows):
    def fail(*arguments, **options):
        raise MemoryError("no room for a graph")

    monkeypatch.setattr(hnsw_engine, "HnswMatcher", fail)
    codes = people(rows, DIM)
    events = Events()
    matcher = space(codes, engine="hnsw", notify=events)
    list(matcher.search(codes[:1], 0.5))
    assert not matcher.wait_until_built(20)
    for _ in range(2):
        assert as_set(matcher.search(codes[:20], 0.5)) == naive_hits(codes[:20], codes, 0.5)
    assert matcher.engine == "exact"
    assert events[-1] == ("hnsw_failed", {"error": "MemoryError: no room for a graph"})
    assert events.names.count("hnsw_failed") == 1


def test_a_graph_that_cannot_grow_gives_way_to_exact_matching_and_no_row_is_lost(monkeypatch):
    codes = people(200, DIM)
    matcher = space(codes[:100], engine="hnsw")
    list(matcher.search(codes[:1], 0.5))
    assert matcher.engine == "hnsw"

    def fail(self, should_stop=None):
        raise RuntimeError("Not enough memory: resizeIndex failed")

    monkeypatch.setattr(HnswMatcher, "catch_up", fail)
    matcher.add(codes[100:])
    assert (matcher.engine, len(matcher)) == ("exact", 200)
    assert as_set(matcher.search(codes, 0.5)) == naive_hits(codes, codes, 0.5)


def test_closing_ends_a_build_under_way_and_matching_goes_on(always_graph, gate):
    opened, reached = gate
    codes = people(300, DIM)
    matcher = space(codes)
    list(matcher.search(codes[:1], 0.5))
    assert reached.wait(20)
    threading.Timer(0.05, opened.set).start()
    matcher.close()
    assert not any(thread.name == "hnsw-build" for thread in threading.enumerate())
    assert as_set(matcher.search(codes, 0.5)) == naive_hits(codes, codes, 0.5)
    assert matcher.engine == "exact"


def test_the_recall_sample_counts_the_chosen_share_and_drains(always_graph):
    codes = people(400, DIM)
    matcher = space(codes, recall_sample_share=0.25)
    list(matcher.search(codes[:1], 0.5))
    assert matcher.take_recall() == RecallSample(0, 0)
    assert matcher.wait_until_built(20)
    found = as_set(matcher.search(codes[:100], 0.5))
    assert found == naive_hits(codes[:100], codes, 0.5)
    sampled = sum(query % 4 == 3 for query, _, _ in found)
    assert matcher.take_recall() == RecallSample(sampled, sampled)
    assert matcher.take_recall() == RecallSample(0, 0)


def test_the_recall_sample_shows_what_the_graph_misses_and_its_queries_miss_nothing(
    always_graph, monkeypatch
):
    codes = people(400, DIM)
    matcher = space(codes, recall_sample_share=1.0)
    matcher.prepare()
    assert matcher.wait_until_built(20)
    original = HnswMatcher.search
    monkeypatch.setattr(HnswMatcher, "search", lambda *arguments: list(original(*arguments))[1:])
    expected = naive_hits(codes[:100], codes, 0.5)
    assert as_set(matcher.search(codes[:100], 0.5)) == expected
    links_true, links_found = matcher.take_recall()
    assert links_true == len(expected) > links_found


def test_one_query_at_a_time_is_sampled_as_often_as_many_at_once(always_graph):
    codes = people(100, DIM)
    matcher = space(codes, recall_sample_share=0.1)
    matcher.prepare()
    assert matcher.wait_until_built(20)
    for query in codes[:50]:
        list(matcher.search(query[None], 0.99))
    assert matcher.take_recall().links_true == 5


def test_a_restart_takes_the_graph_from_the_cache(tmp_path):
    codes = people(INLINE_ROWS + 200, DIM)
    path = tmp_path / "spaces" / "graph"
    first = space(codes[:-50], path, engine="hnsw")
    assert not first.save_cache()
    first.prepare()
    assert first.wait_until_built(30)
    assert first.save_cache()
    events = Events()
    second = space(codes, path, events, engine="hnsw")
    second.prepare()
    assert second.wait_until_built(30)
    assert events == [
        ("hnsw_build_started", {"rows": len(codes)}),
        ("hnsw_cache_loaded", {"rows": len(codes) - 50}),
        ("hnsw_in_use", {"rows": len(codes)}),
    ]
    found, expected = as_set(second.search(codes, 0.6)), naive_hits(codes, codes, 0.6)
    assert found <= expected
    assert len(found) > 0.99 * len(expected)


def test_a_damaged_cache_is_told_and_the_graph_is_built_again(tmp_path):
    codes = people(100, DIM)
    path = tmp_path / "graph"
    first = space(codes, path, engine="hnsw")
    first.prepare()
    first.save_cache()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    events = Events()
    second = space(codes, path, events, engine="hnsw")
    assert as_set(second.search(codes, 0.5)) == naive_hits(codes, codes, 0.5)
    assert second.engine == "hnsw"
    assert events.names == ["hnsw_cache_rejected", "hnsw_in_use"]
    assert events[0][1]["reason"] == "damaged"


def test_a_graph_with_removed_rows_is_deleted_from_disk_and_not_saved_until_it_is_built_without(tmp_path):
    codes = people(100, DIM)
    path = tmp_path / "graph"
    first = space(codes, path, engine="hnsw")
    first.prepare()
    assert first.save_cache()
    first.remove(np.array([7]))
    assert list(tmp_path.iterdir()) == []
    assert not first.save_cache()
    codes[7] = 0
    second = space(codes[:0], path, engine="hnsw")
    second.restore([codes])
    assert second.store.is_removed(np.arange(100)).tolist() == [row == 7 for row in range(100)]
    second.prepare()
    assert second.save_cache()


def test_a_cached_graph_of_rows_that_were_removed_since_is_used_once_and_deleted(tmp_path):
    codes = people(100, DIM)
    path = tmp_path / "graph"
    first = space(codes, path, engine="hnsw")
    first.prepare()
    assert first.save_cache()
    codes[7] = 0
    events = Events()
    second = space(codes[:0], path, events, engine="hnsw")
    second.restore([codes])
    assert as_set(second.search(codes, 0.5)) == naive_hits(codes, codes, 0.5)
    assert events.names == ["hnsw_cache_loaded", "hnsw_in_use"]
    assert list(tmp_path.iterdir()) == []
    assert not second.save_cache()


def test_without_a_path_or_a_graph_nothing_is_saved(tmp_path):
    assert not space(people(10, DIM), tmp_path / "graph", engine="exact").save_cache()
    matcher = space(people(10, DIM), engine="hnsw")
    matcher.prepare()
    assert matcher.engine == "hnsw"
    assert not matcher.save_cache()
    assert list(tmp_path.iterdir()) == []

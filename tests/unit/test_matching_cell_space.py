"""Cells as an engine of a space: from exact to cells, across restarts, with second chances and costs."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest

from stream_cluster.matching import cell_cache, cell_engine, costs
from stream_cluster.matching.cell_cache import Restoring
from stream_cluster.matching.cell_control import WHOLE_MARGIN
from stream_cluster.matching.cell_doubts import Doubts
from stream_cluster.matching.cell_store import CellStore
from stream_cluster.matching.cell_trainer import FIRST_TRAINING, CellParameters
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.matching.costs import Costs
from stream_cluster.matching.matcher import SpaceMatcher
from stream_cluster.matching.store import CodeStore
from stream_cluster.model import Links
from tests.support.descriptors import people
from tests.support.oracle import as_set, naive_hits
from tests.unit.test_matching_cells import Events, matcher_of

DIM = 32


@dataclass
class Settings:
    engine: str = "auto"
    cells_after: int = 1000
    target_recall: float = 0.995
    cells_budget_share: float = 0.05
    cells_sample_share: float = 0.1
    map_codes: bool = False
    hnsw_after: int = 10**9
    hnsw_m: int = 8
    hnsw_ef_construction: int = 60
    hnsw_ef_search: int = 60
    recall_sample_share: float = 0.0
    threads: int = 1


def space(codes=None, cache_path=None, notify=None, **settings):
    matcher = SpaceMatcher(DIM, Settings(**settings), cache_path, notify=notify)
    if codes is not None:
        matcher.add(codes)
    return matcher


def test_a_space_goes_from_exact_to_cells_and_keeps_its_codes_once():
    codes = people(1600, DIM, seed=1)
    events = Events()
    matcher = space(codes[:900], notify=events)
    assert as_set(matcher.search(codes[:20], 0.5)) == naive_hits(codes[:20], codes[:900], 0.5)
    assert (matcher.engine, matcher.describe()) == ("exact", None)
    matcher.add(codes[900:1500])
    list(matcher.search(codes[:20], 0.5))
    # What comes and goes while cells are made is in them afterwards.
    matcher.add(codes[1500:])
    matcher.remove(np.array([3, 1510]))
    assert matcher.wait_until_built(60)
    assert matcher.engine == "cells"
    assert isinstance(matcher.store, CellStore)
    assert (len(matcher), matcher.store.removed_count) == (1600, 2)
    assert events.names[:2] == ["cells_build_started", "cells_training"]
    assert events.names[-1] == "cells_in_use"
    matcher.cells.check()
    found = as_set(matcher.cells.search_within(codes[:20], 0.5, WHOLE_MARGIN))
    assert found == {hit for hit in naive_hits(codes[:20], codes, 0.5) if hit[1] not in (3, 1510)}
    facts = matcher.describe()
    assert facts["engine"] == "cells"
    assert json.loads(json.dumps(facts)) == facts


def test_a_restart_trains_nothing(tmp_path):
    codes = people(2000, DIM, seed=2)
    path = tmp_path / "space.hnsw"
    first = space(codes, path)
    list(first.search(codes[:10], 0.5))
    assert first.wait_until_built(60)
    before = first.store.cell_of(np.arange(2000))
    names = first.cells.centroids.codes
    first.close()
    assert (tmp_path / "space.cells").exists(), "saved as soon as they were made, for a kill"
    events = Events()
    second = SpaceMatcher(DIM, Settings(), path, notify=events)
    gone = np.arange(0, 2000, 9)
    stored = codes.copy()
    stored[gone] = 0
    second.restore([stored, people(100, DIM, seed=3)])
    assert second.engine == "cells"
    list(second.search(codes[:10], 0.5))
    assert events.names == ["cells_cache_loaded"]
    assert np.array_equal(second.cells.centroids.codes, names)
    after = second.store.cell_of(np.arange(2000))
    kept = ~np.isin(np.arange(2000), gone)
    # Numbers of cells may differ, rows that were together still are.
    assert len(set(zip(before[kept].tolist(), after[kept].tolist(), strict=True))) == len(set(before[kept]))
    assert second.store.is_removed(gone).all()
    second.cells.check()


def test_cells_of_other_rows_are_made_anew(tmp_path):
    path = tmp_path / "space.hnsw"
    first = space(people(2000, DIM, seed=4), path)
    list(first.search(people(5, DIM), 0.5))
    assert first.wait_until_built(60)
    events = Events()
    other = people(2000, DIM, seed=5)
    second = SpaceMatcher(DIM, Settings(), path, notify=events)
    second.restore([other])
    list(second.search(other[:10], 0.5))
    assert ("cells_cache_rejected", "rows") in [(event, fields.get("reason")) for event, fields in events]
    assert second.wait_until_built(60)
    second.cells.check()
    assert np.array_equal(second.store.gather(np.arange(2000)), other)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\1" + data[1:]])
def test_a_damaged_file_is_told_and_not_used(tmp_path, damage):
    path = tmp_path / "space.hnsw"
    codes = people(1500, DIM, seed=6)
    first = space(codes, path)
    list(first.search(codes[:5], 0.5))
    assert first.wait_until_built(60)
    file = tmp_path / "space.cells"
    file.write_bytes(damage(file.read_bytes()))
    events = Events()
    second = space(codes, path, events)
    assert events[0][1]["reason"] == "damaged"
    assert as_set(second.search(codes[:5], 0.5)) == naive_hits(codes[:5], codes, 0.5)


def test_the_file_holds_no_descriptor(tmp_path):
    codes = people(2000, DIM, seed=7)
    matcher = matcher_of(codes)
    assert cell_cache.save(tmp_path / "cells", matcher)
    data = (tmp_path / "cells").read_bytes()
    assert not any(code.tobytes() in data for code in codes)


def test_rows_on_their_way_are_not_saved(tmp_path, monkeypatch):
    codes = people(1500, DIM, seed=8)
    matcher = matcher_of(codes)
    monkeypatch.setattr("stream_cluster.matching.cell_trainer._ASSIGNED_AT_ONCE", 256)
    steps = iter(range(100))
    matcher.train(lambda: len(matcher._sets) > 1 and next(steps) > 2)
    assert not cell_cache.save(tmp_path / "cells", matcher)


def test_rows_that_came_after_the_file_are_put_where_they_belong(tmp_path):
    codes = people(3000, DIM, seed=9)
    matcher = matcher_of(codes[:1000])
    cell_cache.save(tmp_path / "cells", matcher)
    again = CellMatcher(DIM)
    restoring = Restoring(again, cell_cache.load(tmp_path / "cells", DIM))
    for first in range(0, 3000, 700):
        restoring.add(codes[first : first + 700])
    assert restoring.fits
    again.check()
    assert np.array_equal(again.store.cell_of(np.arange(3000)), again.nearest_cells(codes))


def test_cells_can_be_asked_for_from_the_first_row(tmp_path):
    codes = people(500, DIM, seed=10)
    matcher = space(codes, engine="cells")
    assert (matcher.engine, FIRST_TRAINING > 500) == ("exact", True)
    assert as_set(matcher.search(codes[:20], 0.5)) == naive_hits(codes[:20], codes, 0.5)
    mapped = space(codes, tmp_path / "space.hnsw", engine="cells", map_codes=True)
    assert mapped.store.packed.file_bytes > 0


# -- second chances ----------------------------------------------------------------------------------------


def test_a_second_chance_finds_links_that_were_missed_and_only_those():
    codes = people(4000, DIM, noise=1.0, seed=11)
    matcher = CellMatcher(DIM, CellParameters(first_training=500, sample_share=0.0))
    missed, found = set(), set()
    for first in range(0, 4000, 250):
        batch = codes[first : first + 250]
        matcher.control.margin = 0.0
        hits = {(query + first, row) for query, row, _ in as_set(matcher.search(batch, 0.5))}
        all_hits = {(query + first, row) for query, row, _ in naive_hits(batch, codes[:first], 0.5)}
        missed |= all_hits - hits
        matcher.add(batch)
        assert matcher.wait_until_trained(60) or not matcher.cell_count
    assert len(matcher.doubts)
    rows = 0
    while len(matcher.doubts):
        searched, links = matcher.second_chance(64, 0.5)
        rows += searched
        found |= set(zip(links.b.tolist(), links.a.tolist(), strict=True))
    assert rows > 0
    assert found
    assert found <= missed


def test_the_least_covered_rows_come_first_and_the_best_covered_are_dropped(monkeypatch):
    monkeypatch.setattr("stream_cluster.matching.cell_doubts.MOST_DOUBTS", 3)
    doubts = Doubts()
    doubts.add(10, np.array([0.5, 0.1, np.inf, 0.3, 0.2], np.float32), 0.05)
    assert len(doubts) == 3
    assert [one.row for one in doubts.take(2)] == [11, 14]
    assert [one.row for one in doubts.take(2)] == [13]
    assert doubts.take(2) == []


def test_rows_with_links_just_below_the_threshold_are_doubtful_too_each_once():
    doubts = Doubts()
    doubts.add(100, np.array([0.002, np.inf, np.inf], np.float32), 0.05)
    pairs = [(3, 100, 0.4999), (4, 101, 0.6), (5, 102, 0.5), (6, 102, 0.48), (7, 101, 0.4951)]
    a, b, similarity = zip(*pairs, strict=True)
    links = Links(np.array(a, np.uint32), np.array(b, np.uint32), np.array(similarity, np.float32))
    doubts.add_near(links, 0.5, 100, 0.04)
    taken = doubts.take(100)
    assert [(one.row, one.first_row, one.margin) for one in taken] == [
        (3, 3, 0.04),
        (5, 5, 0.04),
        (7, 7, 0.04),
        (100, 100, 0.05),
        (101, 100, 0.04),
        (102, 100, 0.04),
    ]


def test_a_space_is_told_links_and_searches_again_for_those_just_below_its_own_threshold(monkeypatch):
    monkeypatch.setattr(cell_engine, "CELLS_FROM_ROWS", 400)
    codes = people(1000, DIM, seed=12)
    matcher = SpaceMatcher(DIM, Settings(engine="cells"), counted_cosine=0.6)
    matcher.add(codes)
    assert matcher.wait_until_built(60)
    before = matcher.doubts
    pairs = np.array([[1, 2, 3], [990, 991, 992]], np.uint32)
    matcher.doubt(Links(*pairs, np.array([0.595, 0.5, 0.7], np.float32)), 990)
    assert matcher.doubts == before + 2
    searched, links = matcher.second_chance(100, 0.5)
    assert searched == before + 2
    assert set(links.b.tolist()) <= {1, 990}


# -- what it costs -----------------------------------------------------------------------------------------


def made_up(**changes):
    figures = {
        "exact_row_ns": 1.0,
        "centroid_ns": 1.0,
        "cell_row_ns": 25.0,
        "hnsw_add_ns": 100_000.0,
        "hnsw_ask_ns": 50_000.0,
    }
    return Costs(**{**figures, **changes}, path="portable", threads=1)


def test_exact_matching_is_kept_while_it_fits_then_the_cheapest_is_taken():
    one = made_up()
    sizes = {"cells_after": 1, "hnsw_after": 1}
    assert one.choose(100_000, 512, **sizes) == "exact"
    assert one.choose(5_000_000, 512, **sizes) == "cells"
    assert made_up(cell_row_ns=5000.0).choose(5_000_000, 512, **sizes) == "hnsw"
    assert one.choose(5_000_000, 512, cells_after=10**8, hnsw_after=10**8) == "exact"
    # A quarter of the dimension, a quarter of the work.
    assert one.choose(1_500_000, 128, **sizes) == "exact"
    assert one.choose(1_500_000, 512, **sizes) == "cells"


def test_auto_follows_the_costs(monkeypatch):
    monkeypatch.setattr(cell_engine.CellEngine, "times_beside_exact", lambda *_: (1.0, 2.0))
    codes = people(600, DIM, seed=12)
    cheap = SpaceMatcher(DIM, Settings(cells_after=1), costs=made_up(exact_row_ns=1e-3))
    dear = SpaceMatcher(DIM, Settings(cells_after=1), costs=made_up(exact_row_ns=1e9))
    for matcher in (cheap, dear):
        matcher.add(codes)
        list(matcher.search(codes[:5], 0.5))
    assert dear.wait_until_built(60)
    assert (cheap.engine, dear.engine) == ("exact", "cells")


def test_cells_that_are_no_faster_with_the_rows_there_are_wait_for_twice_as_many(monkeypatch):
    times = [(2.0, 1.0), (1.0, 2.0)]
    monkeypatch.setattr(cell_engine.CellEngine, "times_beside_exact", lambda *_: times.pop(0))
    codes = people(2400, DIM, seed=13)
    events = Events()
    matcher = SpaceMatcher(DIM, Settings(), costs=made_up(exact_row_ns=1e9), notify=events)
    matcher.add(codes[:1200])
    list(matcher.search(codes[:5], 0.5))
    assert not matcher.wait_until_built(60)
    assert matcher.engine == "exact"
    assert events[-1] == ("cells_not_faster", {"rows": 1200, "cells_s": 2.0, "exact_s": 1.0})
    matcher.add(codes[1200:2399])
    assert as_set(matcher.search(codes[:20], 0.5)) == naive_hits(codes[:20], codes[:2399], 0.5)
    assert not matcher.wait_until_built(60)
    assert "cells_in_use" not in events.names
    matcher.add(codes[2399:])
    list(matcher.search(codes[:5], 0.5))
    assert matcher.wait_until_built(60)
    assert matcher.engine == "cells"


def test_a_batch_is_timed_in_cells_and_exactly():
    codes = people(1500, DIM, seed=14)
    engine = cell_engine.CellEngine(DIM, Settings(), None, 0.5, lambda *_: None)
    store = CodeStore(DIM)
    store.append(codes)
    cells = engine.new()
    cells.begin_with(store)
    compared = cells.rows_compared
    assert min(engine.times_beside_exact(cells, store)) > 0
    assert cells.rows_compared > compared


def test_costs_are_measured_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(costs, "_ROWS", 1024)
    monkeypatch.setattr(costs, "_CELLS", 32)
    monkeypatch.setattr(costs, "_QUERIES", 32)
    monkeypatch.setattr(costs, "GRAPH_ROWS", 64)
    assert costs.load(tmp_path) is None
    measured = costs.load_or_measure(tmp_path)
    assert min(measured.exact_row_ns, measured.centroid_ns, measured.cell_row_ns) > 0
    monkeypatch.setattr(costs, "measure", lambda: pytest.fail("measured again"))
    assert costs.load_or_measure(tmp_path) == measured == costs.load(tmp_path)
    for text in ("", "{}", "[1]", '{"format": 1}', '{"format": 99}'):
        costs.costs_path(tmp_path).write_text(text)
        assert costs.load(tmp_path) is None

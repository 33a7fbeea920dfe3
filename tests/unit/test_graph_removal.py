"""What removing rows does to a forest."""

from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.graph import removal
from stream_cluster.graph.forest import maximum_spanning_forest
from stream_cluster.graph.removal import marks, missing_links, tear, without
from stream_cluster.model import Links, no_links


def links(*triples):
    a, b, similarity = zip(*triples, strict=True) if triples else ((), (), ())
    return Links(np.array(a, np.uint32), np.array(b, np.uint32), np.array(similarity, np.float32))


def triples(found):
    return list(
        zip(found.a.tolist(), found.b.tolist(), [round(s, 3) for s in found.similarity.tolist()], strict=True)
    )


def test_a_leaf_leaves_its_component_whole_and_nothing_is_asked():
    torn = tear(links((0, 1, 0.9), (1, 2, 0.8)), marks(np.array([2]), 5))
    assert len(torn) == 0
    assert len(torn.forest) == 0


def test_a_row_without_links_and_all_rows_of_a_component_leave_nothing_to_ask():
    some = links((0, 1, 0.9), (1, 2, 0.8))
    assert len(tear(some, marks(np.array([4]), 5))) == 0
    assert len(tear(some, marks(np.array([0, 1, 2]), 5))) == 0
    assert len(tear(no_links(), marks(np.array([0]), 1))) == 0


@pytest.mark.parametrize("steps", [0, 1, 12])
def test_components_that_fall_apart_come_with_their_parts_and_the_largest_does_not_ask(monkeypatch, steps):
    monkeypatch.setattr(removal, "_STEPS", steps)
    star = [(0, 3, 0.9), (1, 3, 0.8), (2, 3, 0.7), (2, 4, 0.6), (4, 5, 0.6)]
    other = [(10, 11, 0.9), (11, 12, 0.9)]
    untouched = [(6, 7, 0.9), (7, 8, 0.9)]
    torn = tear(links(*star, *other, *untouched), marks(np.array([3, 11]), 13))
    assert torn.rows.tolist() == [0, 1, 2, 4, 5, 10, 12]
    assert [len(set(torn.part[torn.component == c])) for c in sorted(set(torn.component))] == [3, 2]
    assert torn.is_asking[:5].tolist() == [True, True, False, False, False]
    assert sorted(torn.is_asking[5:].tolist()) == [False, True]
    assert triples(torn.forest) == [(2, 4, 0.6), (4, 5, 0.6)]


def test_a_link_that_is_not_of_the_forest_holds_nothing_together():
    # 0-1 at 0.5 closes a cycle through 2; without 2, one of 0.6 that a batch dropped may be the better link.
    torn = tear(links((0, 1, 0.5), (0, 2, 0.9), (1, 2, 0.9)), marks(np.array([2]), 3))
    assert torn.rows.tolist() == [0, 1]
    assert len(torn.forest) == 0


def test_of_the_links_found_only_those_that_the_forest_needs_are_missing():
    torn = tear(links((0, 4, 0.9), (1, 4, 0.9), (2, 4, 0.9), (2, 3, 0.8)), marks(np.array([4]), 5))
    found = links((0, 1, 0.5), (0, 2, 0.6), (0, 3, 0.6), (1, 3, 0.7))
    assert triples(missing_links(torn, found)) == [(0, 2, 0.6), (1, 3, 0.7)]
    assert len(missing_links(torn, no_links())) == 0


def test_links_without_removed_rows_are_the_same_object_when_none_is_lost():
    some = links((0, 1, 0.9), (1, 2, 0.8))
    assert without(some, marks(np.array([3]), 4)) is some
    assert triples(without(some, marks(np.array([0]), 4))) == [(1, 2, 0.8)]


@pytest.mark.parametrize("seed", range(30))
def test_the_repaired_forest_is_that_of_the_graph_that_is_left(seed):
    random = np.random.default_rng(seed)
    n = 40
    pairs = [(a, b) for a in range(n) for b in range(a + 1, n) if random.random() < 0.06]
    graph = links(*((a, b, random.integers(5, 10) / 10) for a, b in pairs))
    is_removed = marks(random.permutation(n)[: random.integers(1, 8)], n)
    torn = tear(graph, is_removed)
    found = without(graph, is_removed)
    asking = marks(torn.rows[torn.is_asking], n)
    number = np.full(n, -1)
    number[torn.rows] = torn.part
    offered = (asking[found.a] | asking[found.b]) & (number[found.a] != number[found.b])
    repaired = missing_links(torn, Links(found.a[offered], found.b[offered], found.similarity[offered]))
    kept = without(maximum_spanning_forest(graph), is_removed)
    together = sorted(triples(kept) + triples(repaired))
    assert together == triples(maximum_spanning_forest(found))

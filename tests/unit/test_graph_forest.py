from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.graph.forest import ForestBuilder, check, maximum_spanning_forest
from stream_cluster.model import Links, no_links


def links(*triples):
    a, b, similarity = zip(*triples, strict=True)
    return Links(np.array(a, np.uint32), np.array(b, np.uint32), np.array(similarity, np.float32))


def triples(forest):
    return list(zip(forest.a.tolist(), forest.b.tolist(), forest.similarity.tolist(), strict=True))


def test_the_weakest_link_of_a_cycle_is_dropped():
    forest = maximum_spanning_forest(links((1, 2, 0.5), (0, 2, 0.25), (0, 1, 0.75)))
    assert triples(forest) == [(0, 1, 0.75), (1, 2, 0.5)]


def test_of_equal_links_the_one_with_lower_rows_is_kept():
    forest = maximum_spanning_forest(links((1, 2, 0.5), (0, 2, 0.5), (0, 1, 0.5)))
    assert triples(forest) == [(0, 1, 0.5), (0, 2, 0.5)]


def test_a_repeated_pair_counts_with_its_highest_similarity():
    forest = maximum_spanning_forest(links((0, 1, 0.25), (0, 1, 0.75), (0, 1, 0.5)))
    assert triples(forest) == [(0, 1, 0.75)]


def test_links_of_similarity_zero_and_below_are_links_too():
    forest = maximum_spanning_forest(links((0, 1, 0.0), (1, 2, -0.5), (2, 3, -1.0), (0, 2, -0.75)))
    assert triples(forest) == [(0, 1, 0.0), (1, 2, -0.5), (2, 3, -1.0)]


def test_minus_zero_ties_with_zero():
    forest = maximum_spanning_forest(links((1, 2, 0.0), (0, 2, -0.0), (0, 1, 0.0)))
    assert triples(forest) == [(0, 1, 0.0), (0, 2, 0.0)]


def test_row_numbers_at_the_end_of_their_range_cost_no_memory():
    last = 2**32 - 1
    forest = maximum_spanning_forest(links((7, last, 0.5), (0, 7, 0.5), (0, last, 0.5)))
    assert triples(forest) == [(0, 7, 0.5), (0, last, 0.5)]


def test_no_links_give_no_forest():
    assert len(maximum_spanning_forest(no_links())) == 0
    assert len(ForestBuilder().result()) == 0
    check(no_links())


def test_a_dense_stream_is_held_in_memory_bounded_by_the_buffer():
    rows, chunk = 300, 1000
    a, b = np.triu_indices(rows, 1)
    similarity = np.random.default_rng(3).random(len(a), dtype=np.float32)
    everything = Links(a.astype(np.uint32), b.astype(np.uint32), similarity)
    builder = ForestBuilder(max_buffered_links=2000)
    for start in range(0, len(a), chunk):
        part = slice(start, start + chunk)
        builder.add(Links(everything.a[part], everything.b[part], everything.similarity[part]))
        assert builder.nbytes <= (2000 + chunk + rows) * 12
    assert builder.links_seen == len(a) == 44_850
    assert triples(builder.result()) == triples(maximum_spanning_forest(everything))
    assert len(builder.result()) == rows - 1


def test_links_can_be_added_after_a_result_was_taken():
    builder = ForestBuilder()
    builder.add(links((0, 1, 0.25), (1, 2, 0.5)))
    assert len(builder.result()) == 2
    builder.add(links((0, 2, 0.75)))
    assert triples(builder.result()) == [(0, 2, 0.75), (1, 2, 0.5)]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (links((2, 1, 0.5)), "a >= b"),
        (links((1, 1, 0.5)), "a >= b"),
        (links((1, 2, 0.5), (0, 1, 0.5)), "not sorted"),
        (links((0, 1, 0.5), (0, 1, 0.5)), "repeated"),
        (links((0, 1, 0.5), (0, 2, 0.5), (1, 2, 0.5)), "cycle"),
        (Links(np.zeros(1, np.uint32), np.ones(2, np.uint32), np.ones(1, np.float32)), "length"),
        (Links(np.zeros(1, np.int64), np.ones(1, np.uint32), np.ones(1, np.float32)), "a is int64"),
    ],
)
def test_check_names_what_is_wrong_with_a_forest(broken, problem):
    with pytest.raises(AssertionError, match=problem):
        check(broken)

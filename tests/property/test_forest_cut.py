from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_cluster.graph.components import connected_components, track_pairs
from stream_cluster.graph.forest import ForestBuilder, check, maximum_spanning_forest
from stream_cluster.graph.links import pack_links, unpack_links
from stream_cluster.model import Links
from tests.support.oracle import naive_components

ROWS = 12

# Few similarities, so that ties are common; and neighbours that differ in the last bit.
similarities = st.one_of(
    st.sampled_from([-1.0, -0.0, 0.0, 0.25, 0.5, float(np.nextafter(np.float32(0.5), np.float32(1))), 1.0]),
    st.floats(-1, 1, width=32),
)
pairs = st.tuples(st.integers(0, ROWS - 1), st.integers(0, ROWS - 1)).filter(lambda pair: pair[0] != pair[1])
link_lists = st.lists(st.tuples(pairs, similarities), max_size=40)


def as_links(items):
    return Links(
        np.array([min(pair) for pair, _ in items], np.uint32),
        np.array([max(pair) for pair, _ in items], np.uint32),
        np.array([similarity for _, similarity in items], np.float32),
    )


def kruskal(items):
    """The forest by the definition: best first by (similarity, a, b), kept unless it closes a cycle."""
    kept = []
    for pair, similarity in sorted(items, key=lambda item: (-item[1], sorted(item[0]))):
        labels = naive_components(ROWS, [other for other, _ in kept])
        if labels[pair[0]] != labels[pair[1]]:
            kept.append((tuple(sorted(pair)), similarity))
    return sorted(kept)


def as_list(forest):
    return [
        ((a, b), similarity)
        for a, b, similarity in zip(
            forest.a.tolist(), forest.b.tolist(), forest.similarity.tolist(), strict=True
        )
    ]


@given(link_lists)
def test_the_forest_is_the_one_that_kruskal_finds(items):
    forest = maximum_spanning_forest(as_links(items))
    check(forest)
    assert as_list(forest) == kruskal(items)


@given(link_lists, similarities)
def test_a_cut_of_the_forest_has_the_components_of_all_links_above(items, threshold):
    everything = as_links(items).above(threshold)
    cut = maximum_spanning_forest(as_links(items)).above(threshold)
    expected = naive_components(ROWS, zip(everything.a.tolist(), everything.b.tolist(), strict=True))
    assert connected_components(ROWS, [(cut.a, cut.b)]).tolist() == expected
    assert connected_components(ROWS, [(everything.a, everything.b)]).tolist() == expected


@given(link_lists, st.integers(0, 20), st.data())
def test_neither_batches_nor_order_nor_repetition_change_the_forest(items, max_buffered, data):
    expected = as_list(maximum_spanning_forest(as_links(items)))
    shuffled = data.draw(st.permutations(items + items[::3]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(shuffled)), max_size=6)))
    builder = ForestBuilder(max_buffered)
    for start, stop in zip([0, *cuts], [*cuts, len(shuffled)], strict=True):
        builder.add(as_links(shuffled[start:stop]))
        if data.draw(st.booleans()):
            check(builder.result())
    assert builder.links_seen == len(shuffled)
    assert as_list(builder.result()) == expected


@given(link_lists, st.lists(st.integers(0, 2**32 - 1), min_size=ROWS, max_size=ROWS, unique=True).map(sorted))
def test_sparse_row_numbers_give_the_same_forest_renumbered(items, numbers):
    renumber = np.array(numbers, np.uint32)
    dense = as_links(items)
    forest = maximum_spanning_forest(dense)
    sparse = maximum_spanning_forest(Links(renumber[dense.a], renumber[dense.b], dense.similarity))
    assert np.array_equal(sparse.a, renumber[forest.a])
    assert np.array_equal(sparse.b, renumber[forest.b])
    assert np.array_equal(sparse.similarity, forest.similarity)


@given(link_lists)
def test_packing_and_unpacking_links_changes_no_bit(items):
    data = pack_links(as_links(items))
    assert len(data) == 12 * len(items)
    assert pack_links(unpack_links(data)) == data


@given(st.lists(st.integers(-1, 4), max_size=20))
def test_track_pairs_connect_exactly_the_members_of_each_track(tracks):
    a, b = track_pairs(np.array(tracks, np.int64))
    assert all(a < b)
    labels = connected_components(len(tracks), [(a, b)])
    for i, first in enumerate(tracks):
        for j, second in enumerate(tracks):
            assert (labels[i] == labels[j]) == (i == j or (first == second and first >= 0))

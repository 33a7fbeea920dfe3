"""The threshold curve and the bridges of a forest, against the definitions computed plainly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse import csgraph

from stream_cluster.errors import Cancelled
from stream_cluster.graph.bridges import smaller_sides
from stream_cluster.graph.components import track_pairs
from stream_cluster.graph.curve import threshold_curve
from stream_cluster.graph.forest import maximum_spanning_forest
from stream_cluster.model import Interrupt, Links

ROWS = 14

# Few similarities, so that ties are common; and neighbours that differ in the last bit.
HALF = float(np.float32(0.5))
similarities = st.one_of(
    st.sampled_from([-0.25, 0.0, 0.25, HALF, float(np.nextafter(np.float32(0.5), np.float32(1))), 0.9, 1.0]),
    st.floats(-1, 1, width=32),
)
pairs = st.tuples(st.integers(0, ROWS - 1), st.integers(0, ROWS - 1)).filter(lambda pair: pair[0] != pair[1])
link_lists = st.lists(st.tuples(pairs, similarities), max_size=60)
track_lists = st.none() | st.lists(st.integers(-1, 3), min_size=ROWS, max_size=ROWS)
lows = st.sampled_from([-1.0, 0.0, 0.2, 0.5, 1.0])


def as_links(items):
    return Links(
        np.array([min(pair) for pair, _ in items], np.uint32),
        np.array([max(pair) for pair, _ in items], np.uint32),
        np.array([similarity for _, similarity in items], np.float32),
    )


def curve_of(rows, links, low, tracks=None):
    together = None if tracks is None else track_pairs(np.array(tracks))
    forest = maximum_spanning_forest(links)
    return threshold_curve(rows, forest, low_cosine=low, together=together, interrupt=Interrupt())


def components_above(rows, links, cosine, tracks=None):
    """(clusters, largest, singletons) at one threshold, from all links and tracks, by SciPy."""
    above = links.similarity > np.float32(cosine)
    a, b = links.a[above].tolist(), links.b[above].tolist()
    for row, track in enumerate(tracks or []):
        if track >= 0:
            a.append(row)
            b.append(tracks.index(track))
    graph = sparse.coo_array((np.ones(len(a)), (a, b)), shape=(rows, rows))
    sizes = np.bincount(csgraph.connected_components(graph, directed=False)[1])
    return len(sizes), int(sizes.max()), int((sizes == 1).sum())


def said(curve, cosine):
    index = curve.index(cosine)
    return int(curve.clusters[index]), int(curve.largest[index]), int(curve.singletons[index])


@given(link_lists, track_lists, lows, st.lists(st.floats(-1, 1), max_size=5))
def test_the_curve_is_what_components_are_at_every_threshold(items, tracks, low, more):
    links = as_links(items)
    curve = curve_of(ROWS, links, low, tracks)
    assert curve.thresholds[0] == low
    assert curve.thresholds[-1] == 1
    assert (np.diff(curve.thresholds) > 0).all()
    between = (curve.thresholds[1:] + curve.thresholds[:-1]) / 2
    for cosine in [*curve.thresholds, *between, *more]:
        if cosine >= low:
            assert said(curve, cosine) == components_above(ROWS, links, cosine, tracks), cosine


@given(link_lists, track_lists)
def test_the_curve_has_no_threshold_at_which_nothing_changes(items, tracks):
    curve = curve_of(ROWS, as_links(items), -1.0, tracks)
    assert (np.diff(curve.clusters[:-1]) > 0).all()


def large_curve(seed=0, rows=4000):
    """A forest of clusters that hang together by a chain of weaker links."""
    random = np.random.default_rng(seed)
    b = np.arange(1, rows)
    a = np.where(b % 40, b - 1 - random.integers(0, np.maximum(b % 40, 1)), b - 40)
    similarity = np.where(b % 40, random.uniform(0.6, 0.95, rows - 1), random.uniform(0.45, 0.5, rows - 1))
    links = Links(a.astype(np.uint32), b.astype(np.uint32), similarity.astype(np.float32))
    return links, curve_of(rows, links, 0.4)


@pytest.mark.parametrize("most", [2, 3, 20, 300, 100_000])
def test_a_thinned_curve_is_exact_where_asked_and_bounded_everywhere(most):
    links, curve = large_curve()
    at = (0.4, 0.47, 0.6, 0.75, 0.1, 1.2)
    thin = curve.thinned(most, at)
    assert len(thin) <= most + 4
    assert (thin.thresholds[0], thin.thresholds[-1]) == (0.4, 1)
    assert (np.diff(thin.thresholds) > 0).all()
    for cosine in at[:4]:
        assert cosine in thin.thresholds
        assert said(thin, cosine) == components_above(4000, links, cosine)
    for cosine in thin.thresholds:
        assert said(thin, cosine) == said(curve, cosine)
    # What is left out differs from what stands before it by no more than was promised.
    before = np.searchsorted(thin.thresholds, curve.thresholds, side="right") - 1
    for name in ("clusters", "largest", "singletons"):
        exact, shown = getattr(curve, name), getattr(thin, name)
        whole = np.ptp(exact)
        assert np.abs(exact - shown[before]).max() <= 8 / most * whole + 1e-9


def test_a_thinned_curve_keeps_the_step_at_which_one_link_joins_two_halves():
    rows = 1000
    b = np.arange(1, rows)
    similarity = np.where(b == 500, 0.5, np.linspace(0.8, 0.9, rows - 1))
    links = Links((b - 1).astype(np.uint32), b.astype(np.uint32), similarity.astype(np.float32))
    curve = curve_of(rows, links, 0.4)
    thin = curve.thinned(40)
    assert said(thin, 0.49999) == (1, 1000, 0)
    assert said(thin, 0.5) == (2, 500, 0)
    assert len(thin) <= 40


def test_chaining_sets_in_below_the_link_that_makes_the_largest_half_as_large_again():
    _, curve = large_curve()
    cliff = curve.cliff()
    assert 0.45 < cliff <= 0.5
    at = curve.index(cliff)
    assert curve.thresholds[at] == cliff
    # The highest below the peak: right below it the largest has grown by half within 0.05.
    several = (curve.clusters - curve.singletons).tolist()
    peak = several.index(max(several))
    assert at < peak
    for index in range(at, peak + 1):
        here = curve.largest[index - 1]
        ahead = curve.largest[np.flatnonzero(curve.thresholds < curve.thresholds[index] + 0.05)[-1]]
        has_grown = here >= 1.5 * ahead and here >= 40
        assert has_grown == (index == at)


def test_clusters_that_form_are_no_chaining():
    # Twenty people of a hundred: each forms around its first photograph between 0.9 and 0.7, and none is
    # linked to another.
    b = np.arange(2000)[np.arange(2000) % 100 > 0]
    similarity = np.random.default_rng(0).uniform(0.7, 0.9, len(b))
    links = Links((b - b % 100).astype(np.uint32), b.astype(np.uint32), similarity.astype(np.float32))
    curve = curve_of(2000, links, 0.3)
    assert said(curve, 0.6) == (20, 100, 0)
    assert curve.cliff() is None


def test_objects_that_are_all_alike_or_all_alone_have_a_curve_without_a_cliff():
    alone = curve_of(5, as_links([]), 0.3)
    assert alone.thresholds.tolist() == [0.3, 1]
    assert (alone.clusters.tolist(), alone.largest.tolist()) == ([5, 5], [1, 1])
    assert alone.cliff() is None
    assert alone.thinned(2, (0.3, 0.5)).thresholds.tolist() == [0.3, 0.5, 1]
    alike = curve_of(3, as_links([((0, 1), 1.0), ((1, 2), 1.0)]), 0.3)
    assert (alike.clusters.tolist(), alike.singletons.tolist()) == ([1, 3], [0, 3])
    assert curve_of(3, as_links([]), 1.0).thresholds.tolist() == [1]
    assert curve_of(0, as_links([]), 0.5).largest.tolist() == [0, 0]


def test_a_curve_can_be_cancelled():
    interrupt = Interrupt()
    interrupt.cancel()
    forest = maximum_spanning_forest(as_links([((0, 1), 0.5)]))
    with pytest.raises(Cancelled):
        threshold_curve(2, forest, low_cosine=0.1, together=None, interrupt=interrupt)


@given(link_lists)
def test_the_smaller_side_of_every_link_is_what_is_left_without_it(items):
    forest = maximum_spanning_forest(as_links(items))
    sides = smaller_sides(ROWS, forest, Interrupt())
    assert len(sides) == len(forest)
    for removed, side in enumerate(sides.tolist()):
        kept = np.arange(len(forest)) != removed
        graph = sparse.coo_array(
            (np.ones(len(forest) - 1), (forest.a[kept], forest.b[kept])), shape=(ROWS, ROWS)
        )
        labels = csgraph.connected_components(graph, directed=False)[1]
        ends = (labels == labels[forest.a[removed]]).sum(), (labels == labels[forest.b[removed]]).sum()
        assert side == min(ends)

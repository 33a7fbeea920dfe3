"""Average linkage against SciPy, over sets without similarities that nearly tie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.cluster import hierarchy

from stream_cluster.graph import average
from stream_cluster.graph.groups import Groups
from stream_cluster.graph.strongest import StrongestLinks
from stream_cluster.matching import all_pairs, quantise
from stream_cluster.matching.codes import inverse_norms
from stream_cluster.messages import Filters
from stream_cluster.model import Interrupt, Links, concatenate_links, no_progress
from stream_cluster.snapshot import linkage
from tests.support.partitions import chosen, directory, message, partition_of, vectors

sets = st.tuples(st.integers(2, 90), st.integers(1, 9), st.sampled_from([4, 16, 70]), st.integers(0, 2**32))
thresholds = st.sampled_from([-0.3, 0.0, 0.2, 0.35, 0.5, 0.62, 0.8])


def average_linkage(vectors, threshold):
    """SciPy's clusters as sets of positions; assumes that no average nearly ties with the threshold."""
    codes = quantise(vectors)
    units = codes / np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    distance = 1 - units @ units.T
    merges = hierarchy.linkage(distance[np.triu_indices(len(codes), 1)], "average")
    heights = np.sort(merges[:, 2])
    assume(abs(heights - (1 - threshold)).min() > 1e-5)
    assume(np.diff(heights).min(initial=1) > 1e-6)
    return as_sets(hierarchy.fcluster(merges, 1 - threshold, "distance"))


def as_sets(labels):
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def made(given_set):
    count, people, dim, seed = given_set
    return vectors(count, people=people, dim=dim, seed=seed)


@pytest.fixture(params=["rounds", "matrix", "both", "strongest first"])
def way(request, monkeypatch):
    """Merges by rounds alone, by matrix after one round, as it is, or where no component is small."""
    monkeypatch.setattr(average, "_ROUNDS", {"rounds": 10_000, "both": 3}.get(request.param, 1))
    monkeypatch.setattr(average, "_ENOUGH", 0.0 if request.param == "rounds" else 0.1)
    if request.param == "strongest first":
        monkeypatch.setattr(average, "DENSE_GROUPS", 4)


@pytest.mark.usefixtures("way")
def test_rounds_and_matrices_give_the_clusters_of_scipy():
    @settings(deadline=None)
    @given(sets, thresholds)
    def check(given_set, threshold):
        points = made(given_set)
        expected = average_linkage(points, threshold)
        codes = quantise(points)
        groups = Groups(codes, inverse_norms(codes))
        links = concatenate_links(list(all_pairs(codes, threshold)))
        average.merge_above(groups, links, threshold, interrupt=Interrupt(), progress=no_progress)
        assert as_sets(groups.group_of()) == expected
        assert len(groups) == len(expected)

    check()


@settings(deadline=None)  # a small capacity takes many passes
@given(sets, thresholds, st.sampled_from([2, 7, 40, 10**6]), st.booleans())
def test_clusters_are_those_of_scipy(given_set, threshold, capacity, from_forest):
    points = made(given_set)
    expected = average_linkage(points, threshold)
    with directory() as folder:
        partition = partition_of(folder, [message(n, point) for n, point in enumerate(points)])
        _, selection = chosen(partition, Filters())
        with partition.view() as view:
            found = linkage.labels_by_average(
                view,
                selection,
                threshold,
                from_forest=from_forest and threshold >= selection.space.floor_cosine,
                interrupt=Interrupt(),
                progress=no_progress,
                capacity=capacity,
            )
        partition.close()
    assert as_sets(found.labels) == expected
    assert sorted(set(found.labels.tolist())) == list(range(len(expected)))


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60), st.integers(2, 20), st.randoms())
def test_the_strongest_links_do_not_depend_on_the_order_and_are_all_above_the_level(values, capacity, random):
    links = Links(
        np.arange(len(values), dtype=np.uint32),
        np.arange(1, len(values) + 1, dtype=np.uint32),
        np.array(values, np.float32),
    )
    results = []
    for _ in range(2):
        order = random.sample(range(len(values)), len(values))
        strongest = StrongestLinks(-1.0, capacity)
        for position in order:
            at = slice(position, position + 1)
            strongest.add(Links(links.a[at], links.b[at], links.similarity[at]))
        kept, level = strongest.result()
        assert strongest.complete == (len(values) <= capacity + capacity // 2)
        assert (kept.similarity > np.float32(level)).all()
        above = np.count_nonzero(links.similarity > np.float32(level))
        one_value = len(set(kept.similarity.tolist())) == 1
        assert len(kept) == above or (one_value and 0 < len(kept) < above)
        results.append((set(kept.a.tolist()), level))
    assert results[0] == results[1]

"""The spanning trees of clusters that are parts of components, against a tree of each cluster's own pairs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_cluster.graph.forest import check, maximum_spanning_forest
from stream_cluster.matching import all_pairs, encode
from stream_cluster.model import Interrupt, Links, concatenate_links, no_links
from stream_cluster.snapshot import trees
from stream_cluster.snapshot.clusters import number_clusters
from tests.support.descriptors import code_sets


class View:
    """What the trees ask of a partition: codes by row."""

    def __init__(self, codes):
        self.all = codes
        self.read = 0

    def codes(self, space, rows):
        self.read = max(self.read, len(rows))
        return self.all[rows]


def selection_of(codes, tracks=None, low=None):
    """All of the codes, each a row."""
    space = SimpleNamespace(dim=codes.shape[1])
    return SimpleNamespace(space=space, rows=np.arange(len(codes)), tracks=tracks, low=low)


def links_among(codes, cosine):
    return concatenate_links([no_links(), *all_pairs(codes, cosine)])


def expected_trees(every, tracks, clusters):
    """The tree of each cluster by itself, as sorted (a, b, similarity)."""
    found = []
    for number in range(len(clusters)):
        members = set(clusters.members(number).tolist())
        inside = [at for at, (a, b) in enumerate(zip(every.a, every.b, strict=True)) if {a, b} <= members]
        links = Links(every.a[inside], every.b[inside], every.similarity[inside])
        mine = sorted(members)
        pairs = [
            (a, b)
            for at, a in enumerate(mine)
            for b in mine[at + 1 :]
            if tracks is not None and tracks[a] == tracks[b] >= 0
        ]
        ends = np.array(pairs, np.uint32).reshape(-1, 2)
        together = Links(ends[:, 0], ends[:, 1], np.full(len(ends), trees.OF_A_TRACK))
        tree = maximum_spanning_forest(concatenate_links([links, together]))
        found += list(zip(tree.a.tolist(), tree.b.tolist(), tree.similarity.tolist(), strict=True))
    return sorted(found)


@pytest.mark.parametrize("block_rows", [1, 5, 1024])
@given(data=st.data(), codes=code_sets(max_rows=24))
def test_every_cluster_has_the_tree_of_its_own_links_and_tracks(block_rows, data, codes):
    count = len(codes)
    drawn = data.draw(st.lists(st.integers(0, 4), min_size=count, max_size=count))
    labels = np.unique(np.array(drawn, np.int32), return_inverse=True)[1].astype(np.int32)
    clusters = number_clusters(labels)
    tracks = data.draw(
        st.none()
        | st.lists(st.integers(-1, 3), min_size=count, max_size=count).map(lambda x: np.array(x, np.int64))
    )
    cosine = data.draw(st.sampled_from([-0.5, 0.0, 0.3, 0.7]))
    selection = selection_of(codes, tracks)
    every = links_among(codes, cosine)
    view = View(codes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "_BLOCK_ROWS", block_rows)
        found = trees.spanning_trees(
            view, selection, clusters, maximum_spanning_forest(every), cosine=cosine, interrupt=Interrupt()
        )
    assert not found.sampled.any()
    found = found.links
    weight = dict(
        zip(zip(found.a.tolist(), found.b.tolist(), strict=True), found.similarity.tolist(), strict=True)
    )
    assert len(weight) == len(found)
    # Two objects of a track hang together by it, whichever of its pairs are taken.
    weights = sorted(weight.values())
    expected = expected_trees(every, tracks, clusters)
    assert weights == sorted(similarity for _, _, similarity in expected)
    for number in range(len(clusters)):
        mine = clusters.numbers[found.a] == number
        ends = list(zip(found.a[mine].tolist(), found.b[mine].tolist(), strict=True))
        assert ends == sorted(ends)
    order = np.lexsort((found.b, found.a))
    check(Links(found.a[order], found.b[order], found.similarity[order]))
    assert bool((clusters.numbers[found.a] == clusters.numbers[found.b]).all())
    if tracks is None:
        assert sorted((a, b, similarity) for (a, b), similarity in weight.items()) == expected


@given(data=st.data(), codes=code_sets(max_rows=24))
def test_objects_that_the_forest_has_no_links_of_are_in_the_trees(data, codes):
    count = len(codes)
    low = np.array(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)), bool)
    labels = np.unique(np.arange(count) % 3, return_inverse=True)[1].astype(np.int32)
    clusters = number_clusters(labels)
    every = links_among(codes, 0.2)
    forest = maximum_spanning_forest(trees.only(every, ~(low[every.a] | low[every.b])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "_BLOCK_ROWS", 1)
        found = trees.spanning_trees(
            View(codes), selection_of(codes, low=low), clusters, forest, cosine=0.2, interrupt=Interrupt()
        ).links
    # A tree that the forest holds together stays as it is, also where an object of low quality is closer.
    expected = expected_trees(every, None, clusters)
    made = list(zip(found.a.tolist(), found.b.tolist(), found.similarity.tolist(), strict=True))
    for number in range(len(clusters)):
        mine = [link for link in expected if clusters.numbers[link[0]] == number]
        assert sorted(link for link in made if clusters.numbers[link[0]] == number) == mine


def ring(count, dim=32, seed=3):
    """Codes around a circle: each is close to its neighbours alone."""
    angle = 2 * np.pi * np.arange(count) / count
    plane = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, 2)))[0].T
    return encode((np.stack((np.cos(angle), np.sin(angle)), axis=1) @ plane).astype(np.float32))


@pytest.mark.parametrize(("limit", "most"), [("_MOST_PAIRS", 9_000), ("_MOST_LINKS", 300)])
def test_beyond_a_limit_a_tree_is_of_a_sample_and_says_so(limit, most, monkeypatch):
    codes = ring(200)
    # Two clusters in one component, each in many parts: no two neighbours are in the same.
    clusters = number_clusters((np.arange(200) % 2).astype(np.int32))
    every = links_among(codes, 0.9)
    monkeypatch.setattr(trees, "_BLOCK_ROWS", 50)
    monkeypatch.setattr(trees, "_QUERY_ROWS", 10)
    selection = selection_of(codes)

    def made():
        forest = maximum_spanning_forest(every)
        return trees.spanning_trees(
            View(codes), selection, clusters, forest, cosine=0.9, interrupt=Interrupt()
        )

    whole = made()
    assert not whole.sampled.any()
    assert len(whole.links) == 198
    monkeypatch.setattr(trees, limit, most)
    part = made()
    assert part.sampled.any()
    assert 0 < len(part.links) <= 198
    check(part.links)
    # A sample never finds a stronger tree.
    assert part.links.similarity.sum() < whole.links.similarity.sum()
    for number in np.flatnonzero(~part.sampled):
        of_whole = whole.links.similarity[clusters.numbers[whole.links.a] == number]
        of_part = part.links.similarity[clusters.numbers[part.links.a] == number]
        assert sorted(of_part) == sorted(of_whole)

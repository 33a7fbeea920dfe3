"""The spanning trees of clusters that are parts of components, against a tree of each cluster's own pairs."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_cluster.graph.forest import check, maximum_spanning_forest
from stream_cluster.matching import all_pairs
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
    selection = SimpleNamespace(space=None, rows=np.arange(count), tracks=tracks)
    every = links_among(codes, cosine)
    view = View(codes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trees, "_BLOCK_ROWS", block_rows)
        found = trees.spanning_trees(
            view, selection, clusters, maximum_spanning_forest(every), cosine=cosine, interrupt=Interrupt()
        )
    weight = dict(
        zip(zip(found.a.tolist(), found.b.tolist(), strict=True), found.similarity.tolist(), strict=True)
    )
    assert len(weight) == len(found)
    # Two objects of a track hang together by it, whichever of its pairs are taken.
    weights = sorted(weight.values())
    expected = expected_trees(every, tracks, clusters)
    assert weights == sorted(similarity for _, _, similarity in expected)
    order = np.lexsort((found.b, found.a))
    check(Links(found.a[order], found.b[order], found.similarity[order]))
    assert bool((clusters.numbers[found.a] == clusters.numbers[found.b]).all())
    if tracks is None:
        assert sorted((a, b, similarity) for (a, b), similarity in weight.items()) == expected
    assert view.read <= max(block_rows, int(clusters.sizes.max(initial=0)))

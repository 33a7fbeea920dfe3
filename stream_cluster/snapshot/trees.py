"""The spanning tree of each cluster over its own links, also where clusters are parts of components."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import track_pairs
from stream_cluster.graph.forest import ForestBuilder, maximum_spanning_forest
from stream_cluster.matching import all_pairs
from stream_cluster.model import Interrupt, Links, concatenate_links
from stream_cluster.snapshot.clusters import Clusters
from stream_cluster.snapshot.selection import Selection
from stream_cluster.state.view import PartitionView

OF_A_TRACK = np.float32(2.0)
"""Stands for the similarity of two objects of one track: above all others."""
_BLOCK_ROWS = 1024
"""Objects of small clusters that are compared in one go, across clusters too: to the kernel these pairs cost
less than a call for each cluster."""


def spanning_trees(
    view: PartitionView,
    selection: Selection,
    clusters: Clusters,
    forest: Links,
    *,
    cosine: float,
    interrupt: Interrupt,
) -> Links:
    """The maximum spanning tree of each cluster over its own links above a cosine, and its tracks.

    Args:
        forest: spanning forest of the links of the selection above `cosine` at least, by position.

    Returns:
        Links between positions; two objects of a track that hang together by it have `OF_A_TRACK`. Of a
        cluster that its links do not hold together, the trees of its parts.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    tracks = None
    links = forest.above(cosine)
    if selection.tracks is not None:
        # By cluster, too: the next object of a track that is in the cluster may not be the next of the track.
        inside = selection.tracks * len(clusters) + clusters.numbers
        a, b = track_pairs(np.where(selection.tracks >= 0, inside, -1))
        tracks = Links(a, b, np.full(len(a), OF_A_TRACK))
        links = maximum_spanning_forest(concatenate_links([links, tracks]))
    links = _inside(links, clusters)
    found = np.bincount(clusters.numbers[links.a], minlength=len(clusters))
    lacking = found < clusters.sizes - 1
    if not lacking.any():
        return links
    # Clusters that are parts of components: the paths of the forest may run outside of them.
    of_lacking = ForestBuilder()
    if tracks is not None:
        of_lacking.add(only(tracks, lacking[clusters.numbers[tracks.a]]))
    for positions in _blocks(clusters, np.flatnonzero(lacking)):
        codes = view.codes(selection.space, selection.rows[positions])
        for some in all_pairs(codes, cosine, interrupt=interrupt):
            of_lacking.add(_inside(_between(positions, some), clusters))
    return concatenate_links([only(links, ~lacking[clusters.numbers[links.a]]), of_lacking.result()])


def only(links: Links, keep: npt.NDArray[np.bool_]) -> Links:
    """Some of the links. `keep`: shape (len(links),)."""
    return Links(links.a[keep], links.b[keep], links.similarity[keep])


def _inside(links: Links, clusters: Clusters) -> Links:
    return only(links, clusters.numbers[links.a] == clusters.numbers[links.b])


def _between(positions: npt.NDArray[np.int64], links: Links) -> Links:
    """Links of a block, with the positions that its rows stand for; a < b as everywhere."""
    a, b = positions[links.a].astype(np.uint32), positions[links.b].astype(np.uint32)
    return Links(np.minimum(a, b), np.maximum(a, b), links.similarity)


def _blocks(clusters: Clusters, numbers: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Positions of whole clusters, up to `_BLOCK_ROWS` at a time; a larger cluster is a block of its own."""
    waiting: list[npt.NDArray[np.int64]] = []
    count = 0
    for number in numbers.tolist():
        members = clusters.members(number)
        if waiting and count + len(members) > _BLOCK_ROWS:
            yield np.concatenate(waiting)
            waiting, count = [], 0
        waiting.append(members)
        count += len(members)
    if waiting:
        yield np.concatenate(waiting)

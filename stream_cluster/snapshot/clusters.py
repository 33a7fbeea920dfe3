"""Clusters of selected objects: components at a threshold, then their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import connected_components, track_pairs
from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.graph.strongest import StrongestLinks
from stream_cluster.model import Labels, Links
from stream_cluster.snapshot.rematch import Matching
from stream_cluster.snapshot.selection import Selection
from stream_cluster.state.view import PartitionView


@dataclass(frozen=True, slots=True)
class Clusters:
    """A partition of the positions 0..n-1 of a selection, which are in order of age.

    Clusters are numbered from 0 by size descending, then by their oldest member.
    """

    numbers: Labels
    """Cluster number of each position, shape (n,)."""
    sizes: npt.NDArray[np.int64]
    """Objects of each cluster, shape (k,)."""
    order: npt.NDArray[np.int64]
    """All positions, sorted by cluster number, then by age. Cluster c is the run that begins at starts[c]."""
    starts: npt.NDArray[np.int64]
    """Shape (k + 1,); the last value is n."""

    def members(self, cluster: int) -> npt.NDArray[np.int64]:
        """Positions of one cluster's objects, the oldest first."""
        return self.order[self.starts[cluster] : self.starts[cluster + 1]]

    def __len__(self) -> int:
        return len(self.sizes)


def number_clusters(labels: Labels) -> Clusters:
    """Give components their public numbers. `labels`: component of each position, numbered without gaps."""
    n = len(labels)
    count = int(labels.max()) + 1 if n else 0
    oldest = np.empty(count, np.int64)
    # Assigned from the youngest to the oldest, so that the oldest position of each label stays.
    oldest[labels[::-1]] = np.arange(n - 1, -1, -1)
    sizes = np.bincount(labels, minlength=count)
    ranking = np.lexsort((oldest, -sizes))
    number_of = np.empty(count, np.int32)
    number_of[ranking] = np.arange(count, dtype=np.int32)
    numbers = number_of[labels]
    sizes = sizes[ranking]
    starts = np.zeros(count + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    return Clusters(numbers, sizes, np.argsort(numbers, kind="stable"), starts)


def labels_from_forest(view: PartitionView, selection: Selection, threshold_cosine: float) -> Labels:
    """Components of a whole space, from one pass over its spanning forest.

    The components of {links > t} are those of {forest links > t}, for every t at or above the floor.
    Returns a label for each position of the selection.
    """
    links = view.links(selection.space.space_id, threshold_cosine)
    pairs = [(links.a, links.b)]
    if selection.tracks is not None:
        a, b = track_pairs(selection.tracks)
        pairs.append((selection.rows[a], selection.rows[b]))
    labels = connected_components(selection.space.next_row, pairs)[selection.rows]
    if not selection.space.deleted:
        return labels
    # Each row of a deleted object is a component of nobody: close the gaps between the numbers.
    is_used = np.bincount(labels) > 0
    return (np.cumsum(is_used, dtype=np.int32) - np.int32(1))[labels]


def links_of_positions(view: PartitionView, selection: Selection, above_cosine: float) -> Links:
    """The links that a whole space keeps, between positions instead of rows."""
    links = view.links(selection.space.space_id, above_cosine)
    position_of = np.zeros(selection.space.next_row, np.uint32)
    position_of[selection.rows] = np.arange(len(selection), dtype=np.uint32)
    a, b = position_of[links.a], position_of[links.b]
    return Links(np.minimum(a, b), np.maximum(a, b), links.similarity)


def labels_by_matching(
    matching: Matching,
    selection: Selection,
    threshold_cosine: float,
    strongest: StrongestLinks | None = None,
    *,
    forest: ForestBuilder | None = None,
) -> Labels:
    """Components of exactly the selected objects, matched again with one another.

    Needed where the forest has no answer: a filter cuts paths that ran through excluded objects, and links
    at or below the floor were never kept. `matching` has the codes of the selection; what it finds goes to
    `forest`, and what of it is above the threshold to `strongest`.
    Returns a label for each position of the selection.
    """
    forest = ForestBuilder() if forest is None else forest
    for links in matching.links():
        forest.add(links)
        if strongest is not None:
            strongest.add(links.above(threshold_cosine))
    links = forest.result().above(threshold_cosine)
    return connected_components(len(selection), [_pairs(links), *_tracks(selection)])


def _pairs(links: Links) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    return links.a, links.b


def _tracks(selection: Selection) -> list[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]]:
    return [] if selection.tracks is None else [track_pairs(selection.tracks)]

"""Average linkage of a selection: which pairs it needs, and from where."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.average import merge_above
from stream_cluster.graph.groups import Groups
from stream_cluster.graph.strongest import CAPACITY, StrongestLinks
from stream_cluster.matching import all_pairs, quantise
from stream_cluster.matching.codes import inverse_norms
from stream_cluster.model import Codes, Interrupt, Labels, Links, Progress
from stream_cluster.snapshot.clusters import labels_by_matching, labels_from_forest
from stream_cluster.snapshot.rematch import Matching, Rematch
from stream_cluster.snapshot.selection import Selection
from stream_cluster.state.view import PartitionView

_SMALL_COMPONENT = 64
"""Pairs of components up to this many groups are listed, not searched for."""
_BLOCK_PAIRS = 1 << 20
_ROUNDING_ANGLE = 1e-3
"""More than float32 can be wrong about the angle between two directions."""

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AverageLabels:
    """Clusters by average linkage, and the components that they are parts of."""

    labels: Labels
    """Cluster of each position of the selection, numbered without gaps."""
    components: Labels
    """Connected component of each at the same threshold."""


def labels_by_average(
    view: PartitionView,
    selection: Selection,
    threshold_cosine: float,
    *,
    from_forest: bool,
    interrupt: Interrupt,
    progress: Progress,
    capacity: int = CAPACITY,
) -> AverageLabels:
    """Average linkage of the selected objects, cut at a threshold; members of a track begin as one group.

    Every cluster lies inside a connected component, so only components of three and more are looked into.
    Those come from the forest (`from_forest`), or from matching, whose links then serve for both. With many
    more than `capacity` links, the strongest are merged first, and the rest is searched for between groups.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    strongest = None
    if from_forest:
        components = labels_from_forest(view, selection, threshold_cosine)
        rest = np.flatnonzero(np.bincount(components)[components] > 2)
        codes = view.codes(selection.space, selection.rows[rest])
    else:
        rest = np.arange(len(selection))
        codes = view.codes(selection.space, selection.rows)
        # Links between objects are of no use when groups of several are there from the start.
        strongest = StrongestLinks(threshold_cosine, capacity) if selection.tracks is None else None
        # Exactly: an average needs all of its links.
        matching = Matching(codes, threshold_cosine, Rematch("exact"), interrupt, progress)
        components = labels_by_matching(matching, selection, strongest)
    groups = Groups(codes, inverse_norms(codes))
    if selection.tracks is not None:
        tracks = selection.tracks[rest]
        on_track = np.flatnonzero(tracks >= 0)
        groups.join(on_track, tracks[on_track], interrupt)
    merge_inside(
        groups,
        components[rest],
        threshold_cosine,
        strongest,
        capacity=capacity,
        interrupt=interrupt,
        progress=progress,
    )
    return AverageLabels(_labels(components, rest, groups), components)


def merge_inside(
    groups: Groups,
    components: Labels,
    threshold_cosine: float,
    strongest: StrongestLinks | None = None,
    *,
    interrupt: Interrupt,
    progress: Progress,
    capacity: int = CAPACITY,
) -> None:
    """Merge groups by average linkage until no average is above the threshold; stage `linkage`.

    Args:
        groups: changed in place. What they were merged of must have been closer than what is left to merge.
        components: connected component of each object at the threshold, shape (n,).
        strongest: average similarities of the groups, all that are above the threshold or the strongest of
            them; None to search for them.

    Raises:
        Cancelled, TaskError: by `interrupt`; the groups are then of no use.
    """
    forward = _forward(progress)
    search = _Search(groups, components, threshold_cosine, capacity, interrupt, forward)
    if strongest is None:
        strongest = search.links()
    while True:
        links, level = strongest.result()
        merge_above(groups, links, level, interrupt=interrupt, progress=forward)
        if strongest.complete:
            return
        strongest = search.links()


def _forward(progress: Progress) -> Progress:
    """Progress of several passes, none of which knows of the others: it never goes back."""
    furthest = 0.0

    def tell(stage: str, share: float) -> None:
        nonlocal furthest
        furthest = max(furthest, share)
        progress(stage, furthest)

    return tell


def _labels(components: Labels, rest: Ids, groups: Groups) -> Labels:
    """Clusters of all positions: groups of the rest, and components of the others. int32, without gaps."""
    cluster = components.astype(np.int64)
    cluster[rest] = len(components) + groups.group_of()
    _, labels = np.unique(cluster, return_inverse=True)
    return labels.astype(np.int32)


@dataclass(frozen=True, slots=True)
class _Search:
    """Finds the pairs of groups above the threshold, inside of components."""

    groups: Groups
    components: Labels
    """Component of each object of the groups."""
    threshold_cosine: float
    capacity: int
    interrupt: Interrupt
    progress: Progress

    def links(self) -> StrongestLinks:
        """Average similarities of groups, as they are now."""
        found = StrongestLinks(self.threshold_cosine, self.capacity)
        names = self.groups.names()
        component = self.components[names]
        order = np.argsort(component, kind="stable")
        names = names[order]
        _, begins, sizes = np.unique(component[order], return_index=True, return_counts=True)
        for a, b in self._listed(names, begins, sizes):
            found.add(self._above(a, b))
        large = sizes > _SMALL_COMPONENT
        work = np.cumsum(sizes[large].astype(np.float64) ** 2)
        for number, (begin, size) in enumerate(zip(begins[large], sizes[large], strict=True)):
            for links in self._matched(names[begin : begin + size]):
                found.add(links)
            self.progress("linkage", float(work[number] / work[-1]) / 2)
        return found

    def _listed(self, names: Ids, begins: Ids, sizes: Ids) -> Iterator[tuple[Ids, Ids]]:
        """All pairs inside each small component."""
        for size in range(2, _SMALL_COMPONENT + 1):
            first, second = np.triu_indices(size, 1)
            at = begins[sizes == size]
            step = max(1, _BLOCK_PAIRS // len(first))
            for block in range(0, len(at), step):
                rows = at[block : block + step, None]
                yield names[rows + first].ravel(), names[rows + second].ravel()

    def _matched(self, names: Ids) -> Iterator[Links]:
        """Pairs of one component's groups above the threshold, searched for among their directions."""
        several = self.groups.sizes[names] > 1
        if not several.any():
            yield from self._pairs(self.groups.codes, self.threshold_cosine, names)
            return
        codes, angle = _directions(self.groups, names, self.interrupt)
        for links in self._pairs(codes, _lowered(self.threshold_cosine, 2 * angle), None):
            exact = ~(several[links.a] | several[links.b])
            exact &= links.similarity > np.float32(self.threshold_cosine)
            yield Links(
                names[links.a[exact]].astype(np.uint32),
                names[links.b[exact]].astype(np.uint32),
                links.similarity[exact],
            )
            other = several[links.a] | several[links.b]
            yield self._above(names[links.a[other]], names[links.b[other]])

    def _pairs(self, codes: Codes, threshold_cosine: float, names: Ids | None) -> Iterator[Links]:
        for links in all_pairs(codes, threshold_cosine, rows=names, interrupt=self.interrupt):
            if names is None:
                yield links
            else:
                yield Links(
                    names[links.a].astype(np.uint32), names[links.b].astype(np.uint32), links.similarity
                )

    def _above(self, a: Ids, b: Ids) -> Links:
        similarity = self.groups.similarities(a, b, self.interrupt)
        keep = similarity > np.float32(self.threshold_cosine)
        return Links(a[keep].astype(np.uint32), b[keep].astype(np.uint32), similarity[keep])


def _directions(groups: Groups, names: Ids, interrupt: Interrupt) -> tuple[Codes, float]:
    """The mean of each group as a code, shape (k, dim), and the largest angle between a mean and its code.

    A group of one has its own code.
    """
    codes = np.empty((len(names), groups.dim), np.int8)
    angle = 0.0
    for first in range(0, len(names), 4096):
        some = names[first : first + 4096]
        part = codes[first : first + 4096]
        part[:] = groups.codes[some]
        several = np.flatnonzero(groups.sizes[some] > 1)
        if len(several):
            means, _ = groups.vectors(some[several])
            rounded = quantise(means)
            part[several] = rounded
            angle = max(angle, _largest_angle(means, rounded))
        interrupt.check()
    return codes, angle


def _largest_angle(means: npt.NDArray[np.float32], codes: Codes) -> float:
    dots = np.einsum("ij,ij->i", means, codes, dtype=np.float64)
    squares = np.einsum("ij,ij->i", means, means, dtype=np.float64) * np.einsum(
        "ij,ij->i", codes, codes, dtype=np.float64
    )
    # A mean of zero has no direction, and an average of 0 with everything.
    cosines = dots[squares > 0] / np.sqrt(squares[squares > 0])
    return math.acos(min(1.0, float(cosines.min(initial=1.0)))) + _ROUNDING_ANGLE


def _lowered(threshold_cosine: float, angle: float) -> float:
    """A cosine that the codes of two groups exceed when their average similarity is above the threshold.

    The average is the cosine of the means times their lengths, which are at most 1; directions that are
    rounded by an angle in all are at most that angle further apart. A negative average says nothing.
    """
    if threshold_cosine < 0:
        return -2.0
    return math.cos(min(math.pi, math.acos(min(1.0, threshold_cosine)) + angle))

"""Average linkage of a selection: which pairs it needs, and from where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.apart import Apart
from stream_cluster.graph.average import merge_above
from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.graph.groups import Groups
from stream_cluster.graph.strongest import CAPACITY, StrongestLinks
from stream_cluster.matching import all_pairs
from stream_cluster.matching.codes import inverse_norms
from stream_cluster.model import Codes, Interrupt, Labels, Links, Progress
from stream_cluster.snapshot.clusters import labels_by_matching, labels_from_forest
from stream_cluster.snapshot.directions import directions, lowered
from stream_cluster.snapshot.gate import Gate, attach_by_average
from stream_cluster.snapshot.rematch import Matching, Rematch
from stream_cluster.snapshot.selection import Selection
from stream_cluster.state.view import PartitionView

_SMALL_COMPONENT = 64
"""Pairs of components up to this many groups are listed, not searched for."""
_BLOCK_PAIRS = 1 << 20

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class AverageLabels:
    """Clusters by average linkage, and the components that they are parts of."""

    labels: Labels
    """Cluster of each position of the selection, numbered without gaps."""
    components: Labels
    """Connected component of each at the same threshold."""
    merges_prevented: int
    """Pairs of clusters, without what was attached, above the threshold that only `apart` keeps apart."""


def labels_by_average(
    view: PartitionView,
    selection: Selection,
    threshold_cosine: float,
    gate: Gate | None = None,
    *,
    from_forest: bool,
    interrupt: Interrupt,
    progress: Progress,
    capacity: int = CAPACITY,
    forest: ForestBuilder | None = None,
    low_cosine: float | None = None,
) -> AverageLabels:
    """Average linkage of the selected objects, cut at a threshold; members of a track begin as one group.

    Every cluster lies inside a connected component, so only components of three and more are looked into, and
    those of two where objects are to be kept apart. They come from the forest (`from_forest`), or from
    matching, whose links then serve for both. With many more than `capacity` links, the strongest are merged
    first, and the rest is searched for between groups. Objects that do not pass the `gate`, which needs
    matching, are attached at the end.

    What is matched goes to `forest` too, from `low_cosine` on, which may be lower than the threshold.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    strongest = None
    apart = selection.apart
    if from_forest and gate is None:
        components = labels_from_forest(view, selection, threshold_cosine)
        rest = np.flatnonzero(np.bincount(components)[components] > (2 if apart is None else 1))
        codes = view.codes(selection.space, selection.rows[rest])
    else:
        rest = np.arange(len(selection))
        codes = view.codes(selection.space, selection.rows)
        # Links between objects are of no use when groups of several are there from the start.
        strongest = StrongestLinks(threshold_cosine, capacity) if selection.tracks is None else None
        # Exactly: an average needs all of its links.
        matching = Matching(
            codes,
            threshold_cosine if low_cosine is None else min(low_cosine, threshold_cosine),
            Rematch("exact"),
            interrupt,
            progress,
            passing=None if gate is None else gate.passing(),
        )
        components = labels_by_matching(matching, selection, threshold_cosine, strongest, forest=forest)
    groups = Groups(codes, inverse_norms(codes), _apart_in(apart, rest, len(selection), gate))
    if selection.tracks is not None:
        _join_tracks(groups, selection.tracks[rest], gate, interrupt)
    prevented = merge_inside(
        groups,
        components[rest],
        threshold_cosine,
        strongest,
        None if gate is None else gate.low,
        capacity=capacity,
        interrupt=interrupt,
        progress=progress,
    )
    labels = _labels(components, rest, groups)
    if gate is not None:
        labels = attach_by_average(groups, gate, threshold_cosine, interrupt)
        # What was attached belongs to the component of its cluster, whatever links it has.
        components = components[labels]
    return AverageLabels(_numbered(labels), _numbered(components), prevented)


def _apart_in(apart: Apart | None, rest: Ids, count: int, gate: Gate | None) -> Apart | None:
    """Who is to be kept apart, by position in `rest`. A low object that follows its track stands for it."""
    if apart is None:
        return None
    names = np.full(count, -1)
    names[rest] = np.arange(len(rest))
    return apart.renamed(names if gate is None else names[gate.leaders()])


def _join_tracks(groups: Groups, tracks: Ids, gate: Gate | None, interrupt: Interrupt) -> None:
    """Make a group of each track, without the low objects of a track that has others."""
    on_track = np.flatnonzero(tracks >= 0 if gate is None else (tracks >= 0) & (gate.leader < 0))
    groups.join(on_track, tracks[on_track], interrupt)


def merge_inside(
    groups: Groups,
    components: Labels,
    threshold_cosine: float,
    strongest: StrongestLinks | None = None,
    low: npt.NDArray[np.bool_] | None = None,
    *,
    interrupt: Interrupt,
    progress: Progress,
    capacity: int = CAPACITY,
) -> int:
    """Merge groups by average linkage until no average is above the threshold; stage `linkage`.

    Args:
        groups: changed in place. What they were merged of must have been closer than what is left to merge.
        components: connected component of each object at the threshold, shape (n,).
        strongest: average similarities of the groups, all that are above the threshold or the strongest of
            them; None to search for them.
        low: objects whose groups stay as they are, shape (n,).

    Returns:
        How many pairs of groups are above the threshold and may not merge.

    Raises:
        Cancelled, TaskError: by `interrupt`; the groups are then of no use.
    """
    forward = _forward(progress)
    search = _Search(groups, components, threshold_cosine, low, capacity, interrupt, forward)
    if strongest is None:
        strongest = search.links()
    while True:
        links, level = strongest.result()
        # Held by nobody but the merge, which lets go of them as it goes: they may be hundreds of megabytes.
        handed_over = [links]
        del links
        merge_above(groups, handed_over.pop(), level, interrupt=interrupt, progress=forward)
        if strongest.complete:
            return search.prevented()
        strongest = search.links()


def _forward(progress: Progress) -> Progress:
    """Progress of several passes, none of which knows of the others: it never goes back."""
    furthest = 0.0

    def tell(stage: str, share: float) -> None:
        nonlocal furthest
        furthest = max(furthest, share)
        progress(stage, furthest)

    return tell


def _labels(components: Labels, rest: Ids, groups: Groups) -> Ids:
    """Clusters of all positions: groups of the rest, and components of the others."""
    cluster = components.astype(np.int64)
    cluster[rest] = len(components) + groups.group_of()
    return cluster


def _numbered(labels: npt.NDArray[np.integer]) -> Labels:
    """The same labels without gaps, int32."""
    numbered: Labels = np.unique(labels, return_inverse=True)[1].astype(np.int32)
    return numbered


@dataclass(frozen=True, slots=True)
class _Search:
    """Finds the pairs of groups above the threshold, inside of components."""

    groups: Groups
    components: Labels
    """Component of each object of the groups."""
    threshold_cosine: float
    low: npt.NDArray[np.bool_] | None
    """Objects whose groups are not looked at."""
    capacity: int
    interrupt: Interrupt
    progress: Progress

    def links(self) -> StrongestLinks:
        """Average similarities of groups that may merge, as they are now."""
        found = StrongestLinks(self.threshold_cosine, self.capacity)
        for links in self._found(self.groups.names()):
            found.add(self.groups.allowed(links))
        return found

    def prevented(self) -> int:
        """Pairs of groups above the threshold that may not merge."""
        occupied = self.groups.occupied()
        if occupied is None:
            return 0
        return sum(len(links) - len(self.groups.allowed(links)) for links in self._found(occupied.names()))

    def _found(self, names: Ids) -> Iterator[Links]:
        """All pairs of the groups above the threshold, inside of components."""
        if self.low is not None:
            names = names[~self.low[names]]
        component = self.components[names]
        order = np.argsort(component, kind="stable")
        names = names[order]
        _, begins, sizes = np.unique(component[order], return_index=True, return_counts=True)
        for a, b in self._listed(names, begins, sizes):
            yield self._above(a, b)
        large = sizes > _SMALL_COMPONENT
        work = np.cumsum(sizes[large].astype(np.float64) ** 2)
        for number, (begin, size) in enumerate(zip(begins[large], sizes[large], strict=True)):
            yield from self._matched(names[begin : begin + size])
            self.progress("linkage", float(work[number] / work[-1]) / 2)

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
        codes, angle = directions(self.groups, names, self.interrupt)
        for links in self._pairs(codes, lowered(self.threshold_cosine, 2 * angle), None):
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

"""Clusters of the same objects at many thresholds and by both linkages; all pairs are compared once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from stream_cluster.evaluation.measures import Quality
from stream_cluster.graph.average import merge_above
from stream_cluster.graph.components import connected_components
from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.graph.groups import Groups
from stream_cluster.graph.strongest import CAPACITY, StrongestLinks
from stream_cluster.matching import all_pairs
from stream_cluster.matching.codes import inverse_norms
from stream_cluster.model import Codes, Interrupt, Labels, Linkage, Links, Progress, no_progress
from stream_cluster.snapshot.linkage import merge_inside

GOOD = 0.95
"""BCubed F that counts as good when the range of good thresholds is measured."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Clusters at one threshold."""

    linkage: Linkage
    place: int
    """Of the threshold, in the order given."""
    labels: Labels
    """Cluster of each object."""


@dataclass(frozen=True, slots=True)
class Point:
    """How good one cut is."""

    linkage: Linkage
    threshold: float
    """On the scale."""
    cosine: float
    quality: Quality


def cuts(
    codes: Codes,
    cosines: Sequence[float],
    linkages: Sequence[Linkage],
    *,
    interrupt: Interrupt,
    progress: Progress,
    capacity: int = CAPACITY,
) -> Iterator[Cut]:
    """The clusters of all objects for each linkage and threshold, as a task makes them.

    Links above the lowest threshold are found once and serve all cuts. Where there are many more than
    `capacity`, average linkage keeps the strongest, and below these searches again between groups.

    Args:
        codes: shape (n, dim).
        cosines: thresholds.
        progress: told of the stages `match` and `cut`.

    Raises:
        Cancelled: asked to stop.
    """
    forest, strongest = ForestBuilder(), StrongestLinks(min(cosines), capacity)
    for links in all_pairs(codes, min(cosines), interrupt=interrupt, progress=progress):
        forest.add(links)
        if "average" in linkages:
            strongest.add(links)
    tree = forest.result()
    average = _Average(codes, *strongest.result(), strongest.complete, interrupt)
    wanted = list(itertools.product(linkages, range(len(cosines))))
    for number, (linkage, place) in enumerate(wanted):
        above = tree.above(cosines[place])
        labels = connected_components(len(codes), [(above.a, above.b)])
        if linkage == "average":
            labels = average.labels(cosines[place], labels)
        interrupt.check()
        yield Cut(linkage, place, labels)
        progress("cut", (number + 1) / len(wanted))


@dataclass(frozen=True, slots=True)
class _Average:
    """Makes clusters by average linkage from links that serve for all thresholds."""

    codes: Codes
    links: Links
    """Of all links those above `level`, see `StrongestLinks.result`."""
    level: float
    is_complete: bool
    """Whether no link above the lowest threshold is missing."""
    interrupt: Interrupt

    def labels(self, cosine: float, components: Labels) -> Labels:
        """Cluster of each object. `components`: connected component of each at the same threshold."""
        groups = Groups(self.codes, inverse_norms(self.codes))
        start = max(cosine, self.level)
        merge_above(groups, self.links, start, interrupt=self.interrupt, progress=no_progress)
        # At the level itself, links may be missing among equally strong ones.
        if not self.is_complete and np.float32(cosine) <= np.float32(self.level):
            merge_inside(groups, components, cosine, interrupt=self.interrupt, progress=no_progress)
        return np.unique(groups.group_of(), return_inverse=True)[1].astype(np.int32)


def best(points: Sequence[Point]) -> Point:
    """The cut with the highest pairwise F; of equal ones that with the highest BCubed F, then the lowest."""
    return max(points, key=lambda point: (point.quality.pairwise.f, point.quality.bcubed.f, -point.threshold))


def good_range(points: Sequence[Point]) -> tuple[float, float] | None:
    """Ends of the longest run of thresholds whose BCubed F is at least `GOOD`; None when there is none.

    `points`: of one linkage, by ascending threshold.
    """
    runs: list[list[float]] = [[]]
    for point in points:
        if point.quality.bcubed.f >= GOOD:
            runs[-1].append(point.threshold)
        else:
            runs.append([])
    longest = max(runs, key=lambda run: run[-1] - run[0] if run else -1.0)
    return (longest[0], longest[-1]) if longest else None

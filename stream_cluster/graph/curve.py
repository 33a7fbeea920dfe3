"""Clusters at every threshold, from one pass over a spanning forest, and where they chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import Rows, connected_components
from stream_cluster.graph.forest import descending_bits, maximum_spanning_forest
from stream_cluster.model import Interrupt, Links

_CLIFF_WIDTH = 0.05
_CLIFF_GROWTH = 1.5
_CLIFF_SHARE = 0.01
_CHECK_LINKS = 1 << 16

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Connected components of the links strictly above each threshold. Arrays of shape (k,).

    Steps: what is true of a threshold is true up to the next one.
    """

    thresholds: npt.NDArray[np.float64]
    """Cosines, ascending, each once; the first is the lowest that the forest is complete for, the last 1."""
    clusters: Counts
    largest: Counts
    """Objects of the largest component."""
    singletons: Counts
    """Components of one object."""

    def __len__(self) -> int:
        return len(self.thresholds)

    def index(self, cosine: float) -> int:
        """Where the curve says what is true of a threshold; below its beginning, where it begins."""
        # As links are compared with a threshold: both as float32.
        as_compared = self.thresholds.astype(np.float32)
        return max(0, int(np.searchsorted(as_compared, np.float32(cosine), side="right")) - 1)

    def cliff(self) -> float | None:
        """Where chaining sets in: below it the largest component is half as large again as 0.05 higher.

        The highest such cosine below the peak, where most components have several objects: above the peak
        components grow because they form, below it because they merge. The largest has to hold a hundredth of
        the objects at least. None when there is no such cosine.
        """
        peak = int(np.argmax(self.clusters - self.singletons))  # the lowest of several
        # Just below the next threshold: where a step ends, the look ahead has gone furthest.
        ends = self.thresholds[1 : peak + 1]
        here = self.largest[:peak]
        ahead = self.largest[np.searchsorted(self.thresholds, ends + _CLIFF_WIDTH) - 1]
        large = here >= _CLIFF_SHARE * max(1, int(self.clusters[-1]))
        grown = np.flatnonzero((here >= _CLIFF_GROWTH * ahead) & large)
        return float(ends[grown[-1]]) if len(grown) else None

    def thinned(self, most_points: int, at: tuple[float, ...] = ()) -> ThresholdCurve:
        """The same curve at no more than `most_points` thresholds and those of `at`, where it stays exact.

        From one threshold that is kept to the next, each of the three figures changes by no more than
        8 / `most_points` of its whole range, and so does the threshold; what changes by more in a single step
        of the curve keeps that step as it is.

        Args:
            most_points: at least 2.
            at: cosines of which the curve says what is true exactly; those outside of it are left out.
        """
        kept = np.arange(len(self))
        if len(self) > most_points:
            # Each rises from 0 to 1 along the curve, so the sum cuts it where any of them changes most.
            height = _risen(self.thresholds)
            for figure in (self.clusters, self.singletons, -self.largest):
                height += _risen(figure)
            cell = np.minimum(height * (most_points // 2) / 4, most_points // 2 - 1).astype(np.int64)
            begins = np.diff(cell, prepend=-1) > 0
            ends = np.diff(cell, append=cell[-1] + 1) > 0
            kept = np.flatnonzero(begins | ends)
        low, high = self.thresholds[0], self.thresholds[-1]
        exact = np.setdiff1d([cosine for cosine in at if low <= cosine <= high], self.thresholds[kept])
        index = np.concatenate((kept, [self.index(cosine) for cosine in exact])).astype(np.int64)
        thresholds = np.concatenate((self.thresholds[kept], exact))
        order = np.argsort(thresholds)
        index = index[order]
        return ThresholdCurve(
            thresholds[order], self.clusters[index], self.largest[index], self.singletons[index]
        )


def _risen(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """How far values that never fall have risen, from 0 to 1; 0 when they never rise."""
    whole = float(values[-1] - values[0])
    return (values - values[0]) / whole if whole else np.zeros(len(values))


def threshold_curve(
    n_rows: int,
    forest: Links,
    *,
    low_cosine: float,
    together: tuple[Rows, Rows] | None,
    interrupt: Interrupt,
) -> ThresholdCurve:
    """The curve from `low_cosine` to 1, exact at every threshold: it has all at which anything changes.

    One pass over the links, the strongest first. Time O(m log m) for m links, two seconds for a million.

    Args:
        forest: spanning forest of the links of rows 0..n_rows-1, complete above `low_cosine`.
        low_cosine: at most 1.
        together: pairs of rows that are in one component whatever the threshold.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    links = forest.above(low_cosine)
    if together is None:
        sizes = np.ones(n_rows, np.int64)
    else:
        # What is together is one row of a smaller graph, in which some links are one too many.
        labels = connected_components(n_rows, [together], interrupt)
        sizes = np.bincount(labels) if n_rows else np.zeros(0, np.int64)
        a, b = labels[links.a].astype(np.uint32), labels[links.b].astype(np.uint32)
        apart = a != b
        links = maximum_spanning_forest(
            Links(np.minimum(a, b)[apart], np.maximum(a, b)[apart], links.similarity[apart])
        )
    interrupt.check()
    thresholds = np.unique(np.concatenate(([low_cosine, 1.0], links.similarity.astype(np.float64))))
    thresholds = thresholds[thresholds <= 1.0]
    as_compared = thresholds.astype(np.float32)
    above = len(links) - np.searchsorted(np.sort(links.similarity), as_compared, side="right")
    singles = np.sort(_strongest(len(sizes), links)[sizes == 1])
    return ThresholdCurve(
        thresholds=thresholds,
        clusters=len(sizes) - above,
        largest=_largest(sizes, links, interrupt)[above],
        singletons=np.searchsorted(singles, as_compared, side="right").astype(np.int64),
    )


def _strongest(count: int, links: Links) -> npt.NDArray[np.float32]:
    """The highest similarity of a link of each row; -inf for a row without one. Shape (count,)."""
    strongest = np.full(count, -np.inf, np.float32)
    for ends in (links.a, links.b):
        np.maximum.at(strongest, ends, links.similarity)
    return strongest


def _largest(sizes: Counts, links: Links, interrupt: Interrupt) -> Counts:
    """Size of the largest component with the first 0..m of the links, the strongest first. Shape (m + 1,).

    `sizes`: of the components that there are without links. The links have no cycles.
    """
    order = np.argsort(descending_bits(links.similarity), kind="stable")
    # A union-find by size on plain integers: each step needs the one before, and a link takes a microsecond.
    size: list[int] = sizes.tolist()
    parent = list(range(len(size)))
    most = max(size, default=0)
    grown = [most]
    for number, (a, b) in enumerate(zip(links.a[order].tolist(), links.b[order].tolist(), strict=True)):
        x, y = a, b
        while (above := parent[x]) != x:
            parent[x] = x = parent[above]
        while (above := parent[y]) != y:
            parent[y] = y = parent[above]
        if size[x] < size[y]:
            x, y = y, x
        parent[y] = x
        size[x] = both = size[x] + size[y]
        most = max(most, both)
        grown.append(most)
        if number % _CHECK_LINKS == 0:
            interrupt.check()
    return np.array(grown, np.int64)

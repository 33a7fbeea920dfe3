"""Clusters at every threshold, from one pass over a spanning forest, and where they chain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import Rows, connected_components
from stream_cluster.model import Interrupt, Links

_STEPS = 120
_CLIFF_WIDTH = 0.05
_CLIFF_GROWTH = 1.5
_CLIFF_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class ThresholdCurve:
    """Connected components of the links above each of some thresholds. Arrays of shape (k,)."""

    thresholds: npt.NDArray[np.float64]
    """Cosines, ascending; the last is 1."""
    clusters: npt.NDArray[np.int64]
    largest: npt.NDArray[np.int64]
    """Objects of the largest component."""
    singletons: npt.NDArray[np.int64]
    """Components of one object."""

    def cliff(self) -> float | None:
        """The highest cosine at which chaining shows: the largest component has grown by half within 0.05.

        It has to hold a hundredth of the objects at least. None when that is nowhere.
        """
        if len(self.thresholds) < 2:
            return None
        higher = np.searchsorted(self.thresholds, self.thresholds + _CLIFF_WIDTH)
        before = self.largest[np.minimum(higher, len(self.largest) - 1)]
        # Near 1 hardly anything is linked, and the first real clusters look like growth.
        large = self.largest >= _CLIFF_SHARE * max(1, int(self.clusters[-1]))
        grown = np.flatnonzero((self.largest >= _CLIFF_GROWTH * before) & large & (before > 1))
        return float(self.thresholds[grown[-1]]) if len(grown) else None


def threshold_curve(
    n_rows: int,
    forest: Links,
    *,
    low_cosine: float,
    chosen_cosine: float,
    together: tuple[Rows, Rows] | None,
    interrupt: Interrupt,
) -> ThresholdCurve:
    """The curve from `low_cosine` to 1 at even steps, and at `chosen_cosine`.

    Args:
        forest: spanning forest of the links of rows 0..n_rows-1, complete above `low_cosine`.
        together: pairs of rows that are in one component whatever the threshold.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    thresholds = np.union1d(
        np.linspace(low_cosine, 1.0, _STEPS + 1), min(1.0, max(low_cosine, chosen_cosine))
    )
    labels = np.arange(n_rows) if together is None else connected_components(n_rows, [together])
    sizes = np.bincount(labels) if n_rows else np.zeros(0, np.int64)
    order = np.argsort(-forest.similarity, kind="stable")
    a, b, similarity = labels[forest.a[order]], labels[forest.b[order]], forest.similarity[order]
    clusters, largest, singletons = (np.zeros(len(thresholds), np.int64) for _ in range(3))
    for index in range(len(thresholds) - 1, -1, -1):
        # What is above this threshold joins components; those become the rows of a smaller graph.
        end = int(np.searchsorted(-similarity, -np.float32(thresholds[index]), side="left"))
        if end:
            joined = connected_components(
                len(sizes), [(a[:end].astype(np.uint32), b[:end].astype(np.uint32))], interrupt
            )
            sizes = np.bincount(joined, weights=sizes).astype(np.int64)
            a, b, similarity = joined[a[end:]], joined[b[end:]], similarity[end:]
        clusters[index] = len(sizes)
        largest[index] = sizes.max(initial=0)
        singletons[index] = int((sizes == 1).sum())
        interrupt.check()
    return ThresholdCurve(thresholds, clusters, largest, singletons)

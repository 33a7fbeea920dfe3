"""Rows that may have links which were missed: those to search for again when there is time.

A row is doubtful when its next cell, not searched, lay hardly further away than the margin; or when it has a
link just below the threshold to another cluster, for then one of the two may have one just above it.
"""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_cluster.model import Links

MOST_DOUBTS = 100_000
NEAR = 0.01
"""So far behind the margin, or below the threshold, is near."""


class Doubt(NamedTuple):
    """A row to search for again."""

    excess: float
    """Margin at which the next cell would have been searched - the margin, or threshold - similarity of the
    link. Small: doubtful."""
    row: int
    margin: float
    """The margin that it was searched with."""
    first_row: int
    """First row that was added with it: it was compared with those all the same, whatever their cells."""


class Doubts:
    """The most doubtful rows, at most `MOST_DOUBTS` of them, each once."""

    def __init__(self) -> None:
        # By excess, the largest first: those go when there are too many.
        self._heap: list[tuple[float, int, float, int]] = []
        self._rows: set[int] = set()

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, first_row: int, excess: npt.NDArray[np.float32], margin: float) -> None:
        """Take rows from `first_row` on; an excess of infinity is no doubt."""
        for place in np.flatnonzero(np.isfinite(excess)).tolist():
            self._push(Doubt(float(excess[place]), first_row + place, margin, first_row))

    def add_near(self, links: Links, threshold_cosine: float, first_row: int, margin: float) -> None:
        """Take both ends of links between clusters that are just below the threshold of each other.

        Args:
            links: spanning forest of the links of new rows; so one at or below the threshold joins what no
                links above it join.
            threshold_cosine: that of the clusters.
            first_row: the first of the new rows.
            margin: that they were searched with.
        """
        excess = np.float32(threshold_cosine) - links.similarity
        for place in np.flatnonzero((excess >= 0) & (excess < NEAR)).tolist():
            for row in (int(links.a[place]), int(links.b[place])):
                self._push(Doubt(float(excess[place]), row, margin, min(row, first_row)))

    def _push(self, doubt: Doubt) -> None:
        if doubt.row in self._rows:
            return
        self._rows.add(doubt.row)
        one = (-doubt.excess, doubt.row, doubt.margin, doubt.first_row)
        if len(self._heap) < MOST_DOUBTS:
            heapq.heappush(self._heap, one)
        else:
            self._rows.discard(heapq.heappushpop(self._heap, one)[1])

    def take(self, count: int) -> list[Doubt]:
        """Take out the most doubtful rows, by row."""
        chosen = heapq.nlargest(count, self._heap)
        gone = {one[1] for one in chosen}
        self._rows -= gone
        self._heap = [one for one in self._heap if one[1] not in gone]
        heapq.heapify(self._heap)
        doubts = [Doubt(-one[0], one[1], one[2], one[3]) for one in chosen]
        return sorted(doubts, key=lambda one: one.row)

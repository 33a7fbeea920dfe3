"""Rows whose search covered them least: those to search for again when there is time."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

MOST_DOUBTS = 100_000


class Doubt(NamedTuple):
    """A row whose next cell, not searched, lay hardly further away than the margin."""

    excess: float
    """Margin at which the next cell would have been searched - the margin. Small: covered badly."""
    row: int
    margin: float
    """The margin that it was searched with."""
    first_row: int
    """First row that was added with it: it was compared with those all the same, whatever their cells."""


class Doubts:
    """The rows covered least, at most `MOST_DOUBTS` of them."""

    def __init__(self) -> None:
        # By excess, the largest first: those go when there are too many.
        self._heap: list[tuple[float, int, float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, first_row: int, excess: npt.NDArray[np.float32], margin: float) -> None:
        """Take rows from `first_row` on; an excess of infinity is no doubt."""
        for place in np.flatnonzero(np.isfinite(excess)).tolist():
            one = (-float(excess[place]), first_row + place, margin, first_row)
            if len(self._heap) < MOST_DOUBTS:
                heapq.heappush(self._heap, one)
            else:
                heapq.heappushpop(self._heap, one)

    def take(self, count: int) -> list[Doubt]:
        """Take out the rows with the smallest excess, by row."""
        chosen = heapq.nlargest(count, self._heap)
        gone = set(chosen)
        self._heap = [one for one in self._heap if one not in gone]
        heapq.heapify(self._heap)
        doubts = [Doubt(-one[0], one[1], one[2], one[3]) for one in chosen]
        return sorted(doubts, key=lambda one: one.row)

"""How many cells a query is compared with: as few as hold a target recall.

A query goes to each cell whose centroid is less than a margin less similar to it than the most similar one.
Each true link of a sampled query tells the margin at which it is found, so that the sample gives the recall
of every margin, and the smallest that holds the target is taken. Nothing is tried out.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.recall import RecallEstimate, estimate

WHOLE_MARGIN = 3.0
"""Every cell: two cosines never differ by more than 2."""

_FIRST_MARGIN = 0.3
_MOST_QUERIES = 8192
_MOVING_QUERIES = 1024
_MOST_LINKS = 50_000
_FEWEST_LINKS = 200
_TOGETHER = 2.0
"""How much more a sample scatters than independent links would: those of one object hang together."""
_ROUNDING = 1e-6

Float32s = npt.NDArray[np.float32]


class MarginControl:
    """The margin, and what the latest samples say of it.

    A sample of few links does not narrow a margin, and widens it when it shows more missed links than chance.
    """

    def __init__(self, target_recall: float) -> None:
        self.target_recall = target_recall
        self.margin = _FIRST_MARGIN
        self._least = 0.0  # margin that is never gone below
        self._needed: deque[Float32s] = deque()
        self._searched: deque[float | None] = deque()
        self._links = 0
        self._window = _MOST_QUERIES

    def __len__(self) -> int:
        """Links that the margin rests on."""
        return self._links

    def begin_move(self, needed: list[Float32s]) -> None:
        """Rows begin to move to other cells. Until the last has, the margin holds the target in both.

        Args:
            needed: of each sampled query with links: for each link the margin that will find it there.
        """
        self.forget()
        if sum(map(len, needed)):
            self.margin = max(self.margin, self._margin_for(needed))
        self._least = self.margin
        self._window = _MOVING_QUERIES

    def end_move(self) -> None:
        """All rows are in the cells that samples from now on are of."""
        self.forget()
        self._least = 0.0
        self._window = _MOST_QUERIES

    def forget(self) -> None:
        """Begin anew, for other cells; the margin stays until there are enough samples."""
        self._needed.clear()
        self._searched.clear()
        self._links = 0

    def take(self, needed: list[Float32s], *, searched: float | None) -> None:
        """Take a sample, and set the margin.

        Args:
            needed: of each sampled query with links: for each link the margin that finds it.
            searched: the margin that these queries were searched with; None: with the one that is set.
        """
        for one in needed:
            if len(one):
                self._needed.append(one)
                self._searched.append(searched)
                self._links += len(one)
        while len(self._needed) > self._window or (self._links > _MOST_LINKS and len(self._needed) > 1):
            self._links -= len(self._needed.popleft())
            self._searched.popleft()
        if needed:
            self._choose()

    def recall(self) -> RecallEstimate:
        """Recall of the searches that the samples were taken from."""
        return self._estimate([self.margin if one is None else one for one in self._searched])

    def recall_of(self, margin: float) -> RecallEstimate:
        """Recall of a margin on the sampled queries."""
        return self._estimate([margin] * len(self._needed))

    def _estimate(self, margins: list[float]) -> RecallEstimate:
        true = np.array([len(one) for one in self._needed], np.int64)
        pairs = zip(self._needed, margins, strict=True)
        found = np.array([int((one < margin).sum()) for one, margin in pairs], np.int64)
        return estimate(true, found)

    def _choose(self) -> None:
        if self._links >= _FEWEST_LINKS:
            self.margin = max(self._margin_for(self._needed), self._least)
        elif self.recall_of(self.margin).high < self.target_recall:
            self.margin = max(self.margin, self._margin_for(self._needed))

    def _margin_for(self, needed: Iterable[Float32s]) -> float:
        """The least margin that finds enough of the links of some queries."""
        margins = np.concatenate(list(needed))
        # Its share in the sample is not that of all links: one standard error above the target.
        misses = (1.0 - self.target_recall) * len(margins)
        allowed = int(max(misses - math.sqrt(_TOGETHER * misses), 0.0))
        place = len(margins) - 1 - allowed
        # A margin finds what needs less than it, and its rounding is not ours.
        return min(float(np.partition(margins, place)[place]) + _ROUNDING, WHOLE_MARGIN)

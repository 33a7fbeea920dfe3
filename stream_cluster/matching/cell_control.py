"""How many cells a query is compared with: as few as hold a target recall.

A query goes to each cell whose centroid is less than a margin less similar to it than the most similar one.
Each true link of a sampled query tells the margin at which it is found, so that the sample gives the recall
of every margin, and the smallest that holds the target is taken, for all samples and for the latest ones
alone. Nothing is tried out.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.recall import RecallEstimate, estimate

WHOLE_MARGIN = 3.0
"""Every cell: two cosines never differ by more than 2."""

_FIRST_MARGIN = 0.3
_HEADROOM = 0.6
_MOST_QUERIES = 4096
_MOVING_QUERIES = 512
_LATEST = (4, 16)
"""Shares of the sampled queries, the latest ones, that have to reach the target by themselves too."""
_WIDER_WHILE_MOVING = 1.5
_MOST_LINKS = 50_000
_FEWEST_LINKS = 200
_ROUNDING = 1e-6

Float32s = npt.NDArray[np.float32]


class MarginControl:
    """The margin, and what the latest samples say of it.

    A sample of few links does not narrow a margin, and widens it as soon as it shows missed links.
    """

    def __init__(self, target_recall: float) -> None:
        self.target_recall = target_recall
        self.margin = _FIRST_MARGIN
        self._needed: deque[Float32s] = deque()
        self._searched: deque[float | None] = deque()
        self._links = 0
        self._window = _MOST_QUERIES

    def __len__(self) -> int:
        """Links that the margin rests on."""
        return self._links

    def begin_move(self) -> None:
        """Rows begin to move to cells that no sample knows of: search wider, and look at the latest only."""
        self.forget()
        self.margin = min(self.margin * _WIDER_WHILE_MOVING, WHOLE_MARGIN)
        self._window = _MOVING_QUERIES

    def end_move(self) -> None:
        """All rows are in the cells that samples from now on are of."""
        self.forget()
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
        parts = list(self._needed)
        margins = [self._margin_for(parts)] if parts else []
        for share in _LATEST:
            # What has become harder of late must not be averaged away.
            latest = parts[-(len(parts) // share) :]
            if sum(map(len, latest)) >= _FEWEST_LINKS:
                margins.append(self._margin_for(latest))
        if margins:
            wanted = max(margins)
            self.margin = wanted if self._links >= _FEWEST_LINKS else max(self.margin, wanted)

    def _margin_for(self, parts: list[Float32s]) -> float:
        """The least margin that finds enough of some queries' links."""
        margins = np.sort(np.concatenate(parts))
        # A sample scatters, and what comes is a little harder than what was: aim above the target.
        aim = 1.0 - (1.0 - self.target_recall) * _HEADROOM
        place = min(int(np.ceil(aim * len(margins))), len(margins)) - 1
        # A margin finds what needs less than it, and its rounding is not ours.
        return min(float(margins[place]) + _ROUNDING, WHOLE_MARGIN)

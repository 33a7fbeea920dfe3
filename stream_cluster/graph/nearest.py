"""The most similar of many candidates, for each of many objects, within bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BUFFER = 1 << 22
"""Candidates that are held before those that are of no use are dropped: 80 MB."""

Ids = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


class NearestGroups:
    """Keeps the `limit` most similar groups of each unit, of equally similar ones the lowest numbers.

    What is kept does not depend on the order in which candidates come; no pair may come twice.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[tuple[Ids, Ids, Floats]] = []
        self._count = 0

    def add(self, units: Ids, groups: Ids, similarity: Floats) -> None:
        """Take more candidates, as parallel arrays."""
        self._parts.append((units, groups, similarity))
        self._count += len(units)
        if self._count > _BUFFER:
            self._parts = [self._kept()]
            # What stays is bounded by the units; the next look is worth it when as much again has come.
            self._count = 0

    def result(self) -> tuple[Ids, Ids, Floats]:
        """Units, groups and similarities, the highest similarity first, then the lowest unit and group."""
        units, groups, similarity = self._kept()
        order = np.lexsort((groups, units, -similarity))
        return units[order], groups[order], similarity[order]

    def _kept(self) -> tuple[Ids, Ids, Floats]:
        if not self._parts:
            return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
        units, groups, similarity = map(np.concatenate, zip(*self._parts, strict=True))
        order = np.lexsort((groups, -similarity, units))
        units, groups, similarity = units[order], groups[order], similarity[order]
        begins = np.searchsorted(units, units)
        keep = np.arange(len(units)) - begins < self._limit
        return units[keep], groups[keep], similarity[keep]

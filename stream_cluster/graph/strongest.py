"""The strongest of a stream of links, within bounded memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_cluster.model import Links, concatenate_links

CAPACITY = 1 << 24
"""Links that are kept of too many: 200 MB. Half as many again are held before some are left out."""


class StrongestLinks:
    """Keeps all links of a stream as long as they are few, and the strongest of them beyond that.

    Links are compared by higher similarity, then lower a, then lower b. What is kept depends on the set of
    links alone, not on their order or batches; no pair may come twice.
    """

    def __init__(self, threshold_cosine: float, capacity: int = CAPACITY) -> None:
        """`threshold_cosine`: all links that come are above it. `capacity`: at least 2."""
        self._threshold_cosine = threshold_cosine
        self._capacity = capacity
        self._parts: list[Links] = []
        self._count = 0
        self._complete = True

    @property
    def complete(self) -> bool:
        """Whether no link was left out."""
        return self._complete

    def add(self, links: Links) -> None:
        """Take more links. The arrays are kept, not copied."""
        self._parts.append(links)
        self._count += len(links)
        if self._count > self._capacity + self._capacity // 2:
            self._keep([_strongest(self._take(), self._capacity)])
            self._complete = False

    def result(self) -> tuple[Links, float]:
        """The links and a level: every link of the stream above the level is among them, and no other is.

        The level is the threshold when nothing was left out. Else it is that of the strongest half of the
        capacity; when these all have one similarity, it is just below it, and links of that very similarity
        may be missing. Ends the collection.
        """
        links = self._take()
        if self._complete:
            return links, self._threshold_cosine
        # Half of the capacity, because beyond it the order in which links came would show.
        half = self._capacity // 2
        level = _value_at(links.similarity, half)
        above = links.similarity > level
        if above.any():
            return _select(links, above), float(level)
        return _strongest(links, half), float(np.nextafter(level, np.float32(-2.0)))

    def _take(self) -> Links:
        links = concatenate_links(self._parts)
        self._keep([])
        return links

    def _keep(self, parts: list[Links]) -> None:
        self._parts = parts
        self._count = sum(map(len, parts))


def _value_at(similarity: npt.NDArray[np.float32], rank: int) -> np.float32:
    """The similarity of which `rank` links, or fewer, are above it."""
    place = len(similarity) - 1 - rank
    return np.float32(np.partition(similarity, place)[place])


def _strongest(links: Links, count: int) -> Links:
    level = _value_at(links.similarity, count)
    keep = links.similarity > level
    ties = np.flatnonzero(links.similarity == level)
    keys = (links.a[ties].astype(np.uint64) << np.uint64(32)) | links.b[ties]
    wanted = count - int(np.count_nonzero(keep))
    keep[ties[np.argpartition(keys, wanted)[:wanted]]] = True
    return _select(links, keep)


def _select(links: Links, keep: npt.NDArray[np.bool_]) -> Links:
    return Links(links.a[keep], links.b[keep], links.similarity[keep])

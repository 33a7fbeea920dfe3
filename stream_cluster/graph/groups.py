"""Disjoint groups of objects and their average similarity."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.apart import Apart, Occupied
from stream_cluster.model import Codes, Interrupt, InverseNorms, Links

Ids = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float32]

_BLOCK_BYTES = 1 << 23
_EXACT_DIMENSIONS = 1024
"""Up to this many dimensions a float32 sum of products of two codes is exact."""


class Groups:
    """Groups of the objects 0..n-1, which are in order of age. A group is named by its oldest member.

    The average similarity of two groups, the mean over all pairs of their members, is the dot product of
    their mean vectors. A group of one needs no vector but its code; the others keep the sum of their members'
    normalised codes, so memory grows with the groups of two and more: 4 bytes a dimension each.
    """

    def __init__(self, codes: Codes, inverse_norms: InverseNorms, apart: Apart | None = None) -> None:
        """Each object alone. `codes`: shape (n, dim); kept, not copied, as are their inverse norms.

        `apart`: which of them may never be in one group.
        """
        count, self._dim = codes.shape
        self.codes = codes
        self.inverse_norms = inverse_norms
        self._apart = apart
        self._occupied: Occupied | None = None
        self.parent = np.arange(count, dtype=np.int32)
        """Of each object that names no group any more, an older one of its group; of the others, itself."""
        self.sizes = np.ones(count, np.int64)
        """Objects of the group that each object names, 0 where it names none; shape (n,)."""
        self._place = np.full(count, -1, np.int32)
        # Groups of two and more never outnumber half of the objects. Pages that no group uses cost nothing.
        self._sums = np.empty((count // 2 + 1, self._dim), np.float32)
        self._spare = np.arange(count // 2, -1, -1, dtype=np.int32)
        self._spares = len(self._spare)
        self._block = max(1, _BLOCK_BYTES // (4 * self._dim))

    def __len__(self) -> int:
        return int(np.count_nonzero(self.sizes))

    @property
    def dim(self) -> int:
        """Dimension of the codes."""
        return int(self._dim)

    def names(self) -> npt.NDArray[np.int64]:
        """The groups, the oldest first."""
        return np.flatnonzero(self.sizes)

    def group_of(self) -> npt.NDArray[np.int32]:
        """Group of each object, shape (n,)."""
        found = self.parent
        while not np.array_equal(further := found[found], found):
            found = further
        return found.copy()

    def merge(self, older: Ids, younger: Ids, interrupt: Interrupt) -> None:
        """Merge pairs of groups; no group may occur twice, and older < younger."""
        self._occupied = None
        for part in self._blocks(len(older)):
            into, out_of = older[part], younger[part]
            total = self._sums_of(into) + self._sums_of(out_of)
            self._free_places(out_of)
            self._give_places(into[self._place[into] < 0])
            self._sums[self._place[into]] = total
            self.sizes[into] += self.sizes[out_of]
            self.sizes[out_of] = 0
            self.parent[out_of] = into
            interrupt.check()

    def join(self, groups: Ids, labels: npt.NDArray[np.integer], interrupt: Interrupt) -> None:
        """Merge all of the groups that have one label. Each group may occur once."""
        order = np.lexsort((groups, labels))
        groups, labels = groups[order], labels[order]
        # Neighbours first, then pairs of them, and so on: sums of many vectors lose little that way.
        while True:
            begins = np.flatnonzero(np.concatenate(([True], labels[1:] != labels[:-1])))
            lengths = np.diff(np.append(begins, len(labels)))
            place = np.arange(len(labels)) - np.repeat(begins, lengths)
            is_right = place % 2 == 1
            right = np.flatnonzero(is_right)
            if not len(right):
                return
            self.merge(groups[right - 1], groups[right], interrupt)
            groups, labels = groups[~is_right], labels[~is_right]

    def occupied(self) -> Occupied | None:
        """Who may not be put together, as the groups are now; None when all may."""
        if self._apart is None or not len(self._apart):
            return None
        if self._occupied is None:
            self._occupied = self._apart.among(self.group_of())
        return self._occupied

    def allowed(self, links: Links) -> Links:
        """Those of the links between groups that may merge."""
        occupied = self.occupied()
        if occupied is None:
            return links
        keep = ~occupied.conflict(links.a, links.b)
        return Links(links.a[keep], links.b[keep], links.similarity[keep])

    def similarities(self, a: Ids, b: Ids, interrupt: Interrupt) -> Floats:
        """Average similarity of the groups a[i] and b[i], float32 in [-1, 1].

        Of two groups of one object it is their similarity bit by bit (`stream_cluster.matching.codes`).
        """
        result = np.empty(len(a), np.float32)
        for part in self._blocks(len(a)):
            left, left_scale = self.vectors(a[part])
            right, right_scale = self.vectors(b[part])
            dots = np.zeros(len(left))
            for first in range(0, self._dim, _EXACT_DIMENSIONS):
                dims = slice(first, first + _EXACT_DIMENSIONS)
                dots += np.einsum("ij,ij->i", left[:, dims], right[:, dims])
            result[part] = dots.astype(np.float32) * (left_scale * right_scale)
            interrupt.check()
        return np.minimum(result, np.float32(1.0))

    def matrix(self, groups: Ids, interrupt: Interrupt) -> npt.NDArray[np.float64]:
        """Average similarity of each of the groups to each, float64 of shape (k, k)."""
        vectors, scale = self.vectors(groups)
        vectors *= scale[:, None]
        result = np.empty((len(groups), len(groups)))
        for first in range(0, len(groups), 1024):
            result[first : first + 1024] = vectors[first : first + 1024] @ vectors.T
            interrupt.check()
        return result

    def vectors(self, groups: Ids) -> tuple[Floats, Floats]:
        """What a group's mean is a multiple of, shape (k, dim), and the multiple, shape (k,)."""
        places = self._place[groups]
        single = places < 0
        if single.all():
            return self.codes[groups].astype(np.float32), self.inverse_norms[groups]
        values = np.empty((len(groups), self._dim), np.float32)
        values[single] = self.codes[groups[single]]
        values[~single] = self._sums[places[~single]]
        scale = np.where(single, self.inverse_norms[groups], 1 / self.sizes[groups]).astype(np.float32)
        return values, scale

    def _blocks(self, count: int) -> Iterator[slice]:
        return (slice(first, first + self._block) for first in range(0, count, self._block))

    def _sums_of(self, groups: Ids) -> Floats:
        """Sum of the normalised codes of each group, shape (k, dim)."""
        values, scale = self.vectors(groups)
        single = self._place[groups] < 0
        values[single] *= scale[single, None]
        return values

    def _give_places(self, groups: Ids) -> None:
        self._spares -= len(groups)
        self._place[groups] = self._spare[self._spares : self._spares + len(groups)]

    def _free_places(self, groups: Ids) -> None:
        places = self._place[groups]
        places = places[places >= 0]
        self._spare[self._spares : self._spares + len(places)] = places
        self._spares += len(places)
        self._place[groups] = -1

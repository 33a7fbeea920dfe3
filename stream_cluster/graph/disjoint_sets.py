"""A union-find over rows in two flat arrays: what belongs together, and one chosen member of each set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import Rows
from stream_cluster.model import Labels


class DisjointSets:
    """A partition of the rows 0..n-1 into sets, each with a chosen member; eight bytes a row.

    A set is named by one of its rows, its root. Which one it is means nothing, and it may change.
    """

    def __init__(self, labels: Labels, chosen: Rows) -> None:
        """From each row's number of its set, shape (n,), 0..k-1, and each set's chosen row, shape (k,)."""
        roots = np.zeros(len(chosen), np.uint32)
        roots[labels] = np.arange(len(labels), dtype=np.uint32)
        self._parent: Rows = roots[labels]
        self._chosen: Rows = chosen[labels].astype(np.uint32)
        """Meant only at roots."""
        self._count = len(labels)

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays."""
        return self._parent.nbytes + self._chosen.nbytes

    def find(self, rows: npt.NDArray[np.integer]) -> Rows:
        """Root of each row's set, shape (n,). Shortens the paths that it walks, which changes no set."""
        parent: Rows = self._parent[rows]
        while True:
            above: Rows = self._parent[parent]
            if bool((above == parent).all()):
                return parent
            self._parent[rows] = above
            parent = above

    def find_all(self) -> Rows:
        """Root of every row's set, shape (len(self),)."""
        return self.find(np.arange(self._count))

    def chosen(self, roots: npt.NDArray[np.integer]) -> Rows:
        """The chosen member of each root's set."""
        chosen: Rows = self._chosen[roots]
        return chosen

    def append(self, count: int) -> None:
        """Add rows, each a set of its own."""
        end = self._count + count
        if end > len(self._parent):
            room = max(end, len(self._parent) + len(self._parent) // 2)
            self._parent = np.resize(self._parent, room)
            self._chosen = np.resize(self._chosen, room)
        new = np.arange(self._count, end, dtype=np.uint32)
        self._parent[self._count : end] = new
        self._chosen[self._count : end] = new
        self._count = end

    def join(self, rows: npt.NDArray[np.integer], roots: npt.NDArray[np.integer]) -> None:
        """Put what hangs on each row under a root. `rows` are roots, or move with all that hangs on them."""
        self._parent[rows] = roots

    def choose(self, roots: npt.NDArray[np.integer], chosen: npt.NDArray[np.integer]) -> None:
        """Choose a member for each root's set."""
        self._chosen[roots] = chosen

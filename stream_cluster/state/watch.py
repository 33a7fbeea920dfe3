"""What cluster updates need to know of a batch's links, taken from them while they stream by."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import Rows
from stream_cluster.graph.disjoint_sets import DisjointSets
from stream_cluster.graph.forest import ForestBuilder, descending_bits
from stream_cluster.graph.removal import marks
from stream_cluster.model import Links

_NONE = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_LOW_32_BITS = np.uint64(0xFFFF_FFFF)


class Watch:
    """Sees all links of a space's new rows to lower rows, not only those that the forest keeps.

    It keeps the strongest one of each new row; and, of those above the threshold of updates, enough to tell
    which rows each new row connects when it comes: the spanning forest that prefers links that came earlier.
    """

    def __init__(
        self,
        first_row: int,
        count: int,
        threshold_cosine: float,
        sets: DisjointSets,
        removed: Collection[int],
    ) -> None:
        """For the new rows first_row..first_row+count-1.

        `sets` are the clusters of the rows before them. Links of the rows in `removed` are passed over.
        """
        self._first_row = np.uint32(first_row)
        self.threshold_cosine = threshold_cosine
        self.sets = sets
        rows = np.fromiter(removed, np.int64, len(removed))
        self._is_removed = marks(rows, first_row + count) if removed else None
        self._is_torn = marks(sets.find(rows[rows < first_row]), first_row) if removed else None
        """By root: whether the cluster may fall apart."""
        self._best = np.full(count, _NONE, np.uint64)
        """Bits of the similarity, descending, then the row: the least is the strongest, then by row."""
        self._similarity = np.zeros(count, np.float32)
        self._arrivals = ForestBuilder()

    def see(self, links: Links) -> None:
        """Take links whose b are new rows."""
        links = links.above(self.threshold_cosine)
        if self._is_removed is not None:
            kept = ~(self._is_removed[links.a] | self._is_removed[links.b])
            links = Links(links.a[kept], links.b[kept], links.similarity[kept])
        if len(links) == 0:
            return
        new = links.b - self._first_row
        strength = descending_bits(links.similarity).astype(np.uint64) << np.uint64(32) | links.a
        np.minimum.at(self._best, new, strength)
        is_best = self._best[new] == strength
        self._similarity[new[is_best]] = links.similarity[is_best]
        pairs = np.unique(links.b.astype(np.uint64) << np.uint64(32) | self._roots(links.a))
        b = (pairs >> np.uint64(32)).astype(np.uint32)
        # What comes earlier counts as more similar. float32 holds these numbers exactly: batches are small.
        earliness = -(b - self._first_row).astype(np.float32)
        self._arrivals.add(Links((pairs & _LOW_32_BITS).astype(np.uint32), b, earliness))

    def _roots(self, rows: Rows) -> Rows:
        """Resident rows replaced by the root of their cluster: several links to one cluster say the same.

        But for clusters that may fall apart.
        """
        named = rows.copy()
        resident = np.flatnonzero(rows < self._first_row)
        roots = self.sets.find(rows[resident])
        if self._is_torn is not None:
            is_whole = ~self._is_torn[roots]
            resident, roots = resident[is_whole], roots[is_whole]
        named[resident] = roots
        return named

    def strongest(self) -> tuple[npt.NDArray[np.bool_], Rows, npt.NDArray[np.float32]]:
        """Of each new row: whether it has a link, the row of the strongest one, and its similarity."""
        return self._best != _NONE, (self._best & _LOW_32_BITS).astype(np.uint32), self._similarity

    def arrivals(self) -> Links:
        """Links with the property that those with b <= r connect what all links with b <= r connect.

        Ordered by b. The similarities mean nothing.
        """
        links = self._arrivals.result()
        order = np.argsort(links.b, kind="stable")
        return Links(links.a[order], links.b[order], links.similarity[order])

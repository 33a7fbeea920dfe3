"""Codes of objects in another order than the state's, read in large pieces."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_cluster.model import Codes
from stream_cluster.snapshot.selection import Selection
from stream_cluster.state.view import PartitionView

_PIECE_BYTES = 256 << 20


class OrderedCodes:
    """Codes of positions, in the order given, for whoever goes through them from the first to the last.

    Members of a cluster lie scattered over their space, so that every read, however small, goes through most
    of it: 4096 of a million objects at a time read half a gigabyte two hundred times.
    """

    def __init__(
        self,
        view: PartitionView,
        selection: Selection,
        positions: npt.NDArray[np.int64],
        piece_bytes: int = _PIECE_BYTES,
    ) -> None:
        """Nothing is read yet. `positions`: shape (n,). `piece_bytes`: bytes of codes that are held."""
        self._view = view
        self._selection = selection
        self._positions = positions
        self._piece_rows = max(1, piece_bytes // selection.space.dim)
        self._begin = 0
        self._codes: Codes = np.empty((0, selection.space.dim), np.int8)

    def between(self, begin: int, end: int) -> Codes:
        """Codes of positions[begin:end], shape (end - begin, dim); more than a piece when that is longer.

        Raises:
            StateError: the state cannot be read.
        """
        if begin < self._begin or end > self._begin + len(self._codes):
            piece = self._positions[begin : max(end, begin + self._piece_rows)]
            self._codes = self._codes[:0]  # two pieces are never held
            self._codes = self._view.codes(self._selection.space, self._selection.rows[piece])
            self._begin = begin
        return self._codes[begin - self._begin : end - self._begin]

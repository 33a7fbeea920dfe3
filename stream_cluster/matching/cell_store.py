"""The codes of one space in cells, in memory or in a mapped file. There is no second copy of them."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream_cluster import files
from stream_cluster.matching.codes import check_codes
from stream_cluster.matching.kernel import CellRows
from stream_cluster.matching.store import row_numbers
from stream_cluster.model import MAX_DIMENSION, Codes, InverseNorms

REMOVED = np.uint32(2**32 - 1)
"""The cell of a removed row."""

Cells = npt.NDArray[np.uint32]


class CellStore:
    """The codes of one space, by row; each row in one cell. Offers what `CodeStore` does.

    A row takes `dim` bytes rounded up to a multiple of four and 24 more; a cell wastes half a block of 64
    rows on average. `lock` is held by each method, and by whoever searches, so that rows may move between
    cells in another thread.
    """

    def __init__(self, dim: int, folder: Path | None = None) -> None:
        """Without rows. The codes are in memory, or in a file without a name in `folder`.

        Raises:
            OSError: the file cannot be made.
        """
        if not 1 <= dim <= MAX_DIMENSION:
            raise ValueError(f"dim: found {dim}, expected 1 to {MAX_DIMENSION}")
        self.dim = dim
        self.packed = CellRows(dim, -1 if folder is None else _nameless_file(folder))
        self.lock = threading.RLock()
        self._free: list[int] = []

    def __len__(self) -> int:
        """Rows ever appended, removed ones included."""
        return len(self.packed)

    @property
    def removed_count(self) -> int:
        """How many of the rows are removed."""
        return self.packed.removed_count

    @property
    def nbytes(self) -> int:
        """Bytes allocated, those of a file included."""
        return self.packed.nbytes

    @property
    def sizes(self) -> Cells:
        """Rows of each cell, by its number."""
        with self.lock:
            return self.packed.sizes()

    def take_cells(self, count: int) -> Cells:
        """Numbers of so many empty cells, new ones or such that were given back."""
        with self.lock:
            again = [self._free.pop() for _ in range(min(count, len(self._free)))]
            first = self.packed.cell_count
            self.packed.add_cells(count - len(again))
            return np.array([*again, *range(first, self.packed.cell_count)], np.uint32)

    def give_back(self, cells: Cells) -> None:
        """Cells that are empty and not used any more."""
        with self.lock:
            self._free.extend(cells.tolist())

    def append(self, codes: Codes, cells: Cells) -> None:
        """Add rows at the end, each to a cell; row numbers continue from `len`. `REMOVED`: a removed row.

        Raises:
            ValueError: not int8 of shape (n, dim), or a value of -128. Nothing is added then.
            MemoryError: no memory, or no room for the file.
        """
        check_codes(codes, self.dim)
        with self.lock:
            self.packed.append(np.ascontiguousarray(codes), np.ascontiguousarray(cells, np.uint32))

    def move(self, rows: npt.NDArray[np.integer], cells: Cells) -> None:
        """Move rows to other cells. Removed rows stay removed."""
        with self.lock:
            self.packed.move(self._numbers(rows), np.ascontiguousarray(cells, np.uint32))

    def rows_of(self, cell: int) -> npt.NDArray[np.uint32]:
        """The rows of a cell, in the order in which they lie."""
        with self.lock:
            return self.packed.rows_of(cell)

    def cell_of(self, rows: npt.NDArray[np.integer]) -> Cells:
        """The cell of each of these rows, `REMOVED` for removed ones."""
        with self.lock:
            return self.packed.cell_of(self._numbers(rows))

    def gather(self, rows: npt.NDArray[np.integer]) -> Codes:
        """A copy of the codes of these rows, in the order given. Removed rows are zeros.

        Raises:
            IndexError: a row that is not there; so do the other methods that take rows.
        """
        with self.lock:
            return self.packed.gather(self._numbers(rows))

    def gather_norms(self, rows: npt.NDArray[np.integer]) -> InverseNorms:
        """A copy of the inverse norms of these rows, in the order given. Removed rows have 0."""
        with self.lock:
            return self.packed.gather_norms(self._numbers(rows))

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """Erase rows: no byte of their codes is left. Repeating it is harmless."""
        with self.lock:
            self.packed.remove(self._numbers(rows))

    def is_removed(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether each of these rows was removed."""
        with self.lock:
            return self.packed.is_removed(self._numbers(rows))

    def _numbers(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
        return row_numbers(rows, len(self.packed))


def _nameless_file(folder: Path) -> int:
    """An open file that nobody else finds, and whose room is free again however the process ends."""
    files.make_folder(folder)
    descriptor, name = tempfile.mkstemp(prefix="codes-", suffix=".mapped", dir=folder)
    Path(name).unlink()
    return descriptor

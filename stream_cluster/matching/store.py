"""The codes of one space in memory, laid out for the kernel. There is no second copy of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.codes import check_codes
from stream_cluster.matching.kernel import PackedRows
from stream_cluster.matching.sketch import learn_sketch, sample_rows
from stream_cluster.matching.threads import thread_limit
from stream_cluster.model import MAX_DIMENSION, Codes, InverseNorms

FIRST_SKETCH = 16_384
"""Rows at which sketches are made for the first time: with fewer, there is little to save."""

_RELEARN_FACTOR = 4
# Searches in a space are at its floor, which is seldom higher.
_SKETCH_THRESHOLD = 0.7


class CodeStore:
    """The codes of one space, by row.

    A row takes `dim` bytes rounded up to a multiple of four, 14 for its norms, and with a sketch up to 160
    more. Rows lie in blocks of 64, in chunks of blocks that grow from one block to 4 MB. Appending never
    moves what is there. Rows may be read from any thread; append and remove must not overlap with a search.

    From `FIRST_SKETCH` rows on there are sketches (see `native/sketch.h`), which spare a search most of its
    work. Their rotation is learned from a sample, and anew whenever there are four times as many rows, which
    takes about a microsecond for each row.
    """

    def __init__(self, dim: int) -> None:
        if not 1 <= dim <= MAX_DIMENSION:
            raise ValueError(f"dim: found {dim}, expected 1 to {MAX_DIMENSION}")
        self.dim = dim
        self.packed = PackedRows(dim)
        self._learn_at = FIRST_SKETCH

    def __len__(self) -> int:
        """Rows ever appended, removed ones included."""
        return len(self.packed)

    @property
    def removed_count(self) -> int:
        """How many of the rows are removed."""
        return self.packed.removed_count

    @property
    def nbytes(self) -> int:
        """Bytes allocated for codes, norms and marks."""
        return self.packed.nbytes

    def append(self, codes: Codes, *, learn: bool = True) -> None:
        """Add rows at the end; row numbers continue from `len`.

        With `learn` = False more rows follow at once, and no rotation is learned in between: that would be
        done several times over, and the sketches of what follows would be made by one thread.

        Raises:
            ValueError: not int8 of shape (n, dim), or a value of -128. Nothing is added then.
        """
        check_codes(codes, self.dim)
        self.packed.append(np.ascontiguousarray(codes))
        if learn and len(self) >= self._learn_at:
            self._learn()

    def _learn(self) -> None:
        while self._learn_at <= len(self):
            self._learn_at *= _RELEARN_FACTOR
        sketch = learn_sketch(self.gather(sample_rows(len(self))), _SKETCH_THRESHOLD)
        if sketch is not None:
            self.packed.use_sketch(sketch, threads=thread_limit())

    def gather(self, rows: npt.NDArray[np.integer]) -> Codes:
        """A copy of the codes of these rows, in the order given. Removed rows are zeros.

        Raises:
            IndexError: a row that is not there; so do the other methods that take rows.
        """
        return self.packed.gather(self._numbers(rows))

    def gather_norms(self, rows: npt.NDArray[np.integer]) -> InverseNorms:
        """A copy of the inverse norms of these rows, in the order given. Removed rows have 0."""
        return self.packed.gather_norms(self._numbers(rows))

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """Erase rows: code and inverse norm become 0 and no search returns them. Repeating it is harmless."""
        self.packed.remove(self._numbers(rows))

    def is_removed(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether each of these rows was removed."""
        return self.packed.is_removed(self._numbers(rows))

    def _numbers(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.uint32]:
        return row_numbers(rows, len(self))


def row_numbers(rows: npt.NDArray[np.integer], count: int) -> npt.NDArray[np.uint32]:
    """The rows as the kernel takes them. Raises IndexError unless all are in 0..count - 1."""
    if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= count):
        raise IndexError(f"rows: found {rows.min()}..{rows.max()}, expected 0..{count - 1}")
    return np.ascontiguousarray(rows, np.uint32)

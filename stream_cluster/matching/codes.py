"""Descriptors as int8 codes, and the one definition of similarity.

For two codes with inverse norms (`inverse_norms`):

    dot        = exact integer dot product
    scale      = float32(inverse norm a) * float32(inverse norm b)      float32 multiplication
    similarity = min(float32(dot) * scale, 1)                           float32 multiplication

Every step is exact or one correctly rounded IEEE 754 operation that commutes, so any engine on any
machine gets the same bits for a pair, whichever of the two is the query. An all-zero code has the inverse
norm 0 and therefore similarity 0 to everything. A link is similarity > float32(threshold), strictly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_cluster.model import MAX_DIMENSION, Codes, InverseNorms

CODE_MAX = 127

EXACT_DIMENSIONS = 1024
"""Up to this many dimensions |dot| <= 127 * 127 * 1024 < 2**24, so float32 sums of products are exact."""

_CHUNK_ROWS = 4096
_FIRST_BLOCK_ROWS = 64
_BLOCK_ROWS = 4096

Int32s = npt.NDArray[np.int32]


def quantise(vectors: npt.NDArray[np.float32]) -> Codes:
    """Scale each row so that its largest magnitude becomes 127, and round to the nearest integer.

    Args:
        vectors: float32, shape (n, dim), finite. The scale of a row does not matter, only its direction.

    Returns:
        Codes, shape (n, dim). A row of zeros stays zeros.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    values = np.asarray(vectors, np.float32)
    peak = np.abs(values).max(axis=1, keepdims=True, initial=0)
    if not bool(np.isfinite(peak).all()):
        raise ValueError("vectors: found NaN or infinity, expected finite numbers")
    tiny = (peak > 0) & (peak < np.float32(1e-30))
    if bool(tiny.any()):
        # 127 / peak would overflow; a power of two changes no bit of the result.
        lift = np.where(tiny, np.float32(2.0**100), np.float32(1.0))
        values = values * lift
        peak = peak * lift
    factor = np.divide(np.float32(CODE_MAX), peak, out=np.zeros_like(peak), where=peak > 0)
    codes: Codes = np.rint(values * factor).astype(np.int8)
    return codes


def encode(vectors: Sequence[npt.NDArray[np.float32 | np.int8]]) -> Codes:
    """Codes of descriptors that arrived as floats (quantised) or as int8 (kept, -128 becoming -127).

    Args:
        vectors: at least one array of shape (dim,), all of the same dimension.

    Raises:
        ValueError: no vectors, different dimensions, or a NaN or infinity.
    """
    dims = {vector.shape for vector in vectors}
    if len(dims) != 1 or len(next(iter(dims))) != 1:
        raise ValueError(f"vectors: found the shapes {sorted(dims)}, expected one shape (dim,)")
    codes = np.empty((len(vectors), vectors[0].shape[0]), np.int8)
    integers = [i for i, vector in enumerate(vectors) if vector.dtype == np.int8]
    floats = [i for i, vector in enumerate(vectors) if vector.dtype != np.int8]
    if integers:
        codes[integers] = np.maximum(np.stack([vectors[i] for i in integers]), np.int8(-CODE_MAX))
    if floats:
        codes[floats] = quantise(np.stack([vectors[i].astype(np.float32, copy=False) for i in floats]))
    return codes


def inverse_norms(codes: Codes) -> InverseNorms:
    """1 / Euclidean norm of each row, computed in float64 and rounded once; 0 for an all-zero row."""
    result = np.zeros(len(codes), np.float32)
    for start in range(0, len(codes), _CHUNK_ROWS):
        squares = pair_dots(codes[start : start + _CHUNK_ROWS], codes[start : start + _CHUNK_ROWS])
        norms = np.sqrt(squares.astype(np.float64))
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        result[start : start + _CHUNK_ROWS] = inverse.astype(np.float32)
    return result


def pair_dots(a: Codes, b: Codes) -> Int32s:
    """Exact dot product of row i of `a` with row i of `b`; at most 127 * 127 * 4096 < 2**31."""
    dots = np.zeros(len(a), np.int32)
    for start in range(0, len(a), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        for first in range(0, a.shape[1], EXACT_DIMENSIONS):
            dims = slice(first, first + EXACT_DIMENSIONS)
            left = a[rows, dims].astype(np.float32)
            dots[rows] += np.einsum("ij,ij->i", left, b[rows, dims].astype(np.float32)).astype(np.int32)
    return dots


def similarities(
    dots: npt.NDArray[np.int32 | np.float32], norms_a: InverseNorms, norms_b: InverseNorms
) -> npt.NDArray[np.float32]:
    """Similarity from exact dot products and inverse norms, by the module's definition.

    Args:
        dots: exact integers, as int32 or as float32 (rounded once from the exact integer).
        norms_a, norms_b: inverse norms, of shapes that broadcast with `dots`.
    """
    scale = np.multiply(norms_a, norms_b, dtype=np.float32)
    return np.minimum(dots.astype(np.float32, copy=False) * scale, np.float32(1.0))


class Block(NamedTuple):
    """Consecutive rows of a `CodeStore`, as views."""

    first_row: int
    codes: Codes
    norms: InverseNorms


class CodeStore:
    """The codes of one space, by row, in blocks: appending never copies or moves what is there.

    Blocks grow from 64 to 4096 rows, so a small space stays small and a large one wastes under a block.
    One thread may append and remove while others read rows below a length they have seen.
    """

    def __init__(self, dim: int) -> None:
        if not 1 <= dim <= MAX_DIMENSION:
            raise ValueError(f"dim: found {dim}, expected 1 to {MAX_DIMENSION}")
        self.dim = dim
        self._codes: list[Codes] = []
        self._norms: list[InverseNorms] = []
        self._removed: list[npt.NDArray[np.bool_]] = []
        self._starts: list[int] = []  # first row of each block
        self._capacity = 0
        self._rows = 0
        self._removed_count = 0

    def __len__(self) -> int:
        """Rows ever appended, removed ones included."""
        return self._rows

    @property
    def removed_count(self) -> int:
        """How many of the rows are removed."""
        return self._removed_count

    @property
    def nbytes(self) -> int:
        """Bytes allocated for codes, norms and marks."""
        return self._capacity * (self.dim + 4 + 1)

    def append(self, codes: Codes) -> None:
        """Add rows at the end; row numbers continue from `len`.

        Raises:
            ValueError: not int8 of shape (n, dim).
        """
        check_codes(codes, self.dim)
        self.append_with_norms(codes, inverse_norms(codes))

    def append_with_norms(self, codes: Codes, norms: InverseNorms) -> None:
        """`append` for a caller that has the inverse norms of the codes already."""
        done = 0
        while done < len(codes):
            if self._rows == self._capacity:
                self._grow()
            at = self._rows - self._starts[-1]
            count = min(len(codes) - done, self._capacity - self._rows)
            self._codes[-1][at : at + count] = codes[done : done + count]
            self._norms[-1][at : at + count] = norms[done : done + count]
            # Last, so that a reader in another thread never sees rows that are not filled in.
            self._rows += count
            done += count

    def blocks(self, first_row: int = 0) -> Iterator[Block]:
        """Views of all rows from `first_row` on, in order of row; each at most 4096 rows."""
        rows = self._rows
        for start, codes, norms in zip(self._starts, self._codes, self._norms, strict=False):
            stop = min(len(codes), rows - start)
            skip = max(first_row - start, 0)
            if skip < stop:
                yield Block(start + skip, codes[skip:stop], norms[skip:stop])

    def gather(self, rows: npt.NDArray[np.integer]) -> Codes:
        """A copy of the codes of these rows, in the order given. Removed rows are zeros."""
        result = np.empty((len(rows), self.dim), np.int8)
        for block, picked, local in self._locate(rows):
            result[picked] = self._codes[block][local]
        return result

    def gather_norms(self, rows: npt.NDArray[np.integer]) -> InverseNorms:
        """A copy of the inverse norms of these rows, in the order given. Removed rows have 0."""
        result = np.empty(len(rows), np.float32)
        for block, picked, local in self._locate(rows):
            result[picked] = self._norms[block][local]
        return result

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """Erase rows: code and inverse norm become 0 and no search returns them. Repeating it is harmless."""
        for block, _, local in self._locate(rows):
            self._removed[block][local] = True
            self._codes[block][local] = 0
            self._norms[block][local] = 0
        self._removed_count = sum(int(marks.sum()) for marks in self._removed)

    def is_removed(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
        """Whether each of these rows was removed."""
        result = np.empty(len(rows), np.bool_)
        for block, picked, local in self._locate(rows):
            result[picked] = self._removed[block][local]
        return result

    def _grow(self) -> None:
        rows = min(max(self._capacity, _FIRST_BLOCK_ROWS), _BLOCK_ROWS)
        self._codes.append(np.empty((rows, self.dim), np.int8))
        self._norms.append(np.empty(rows, np.float32))
        self._removed.append(np.zeros(rows, np.bool_))
        self._starts.append(self._capacity)
        self._capacity += rows

    def _locate(
        self, rows: npt.NDArray[np.integer]
    ) -> Iterator[tuple[int, npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """For each block that holds some of the rows: its number, positions in `rows`, rows inside it."""
        if len(rows) == 0:
            return
        wanted = np.asarray(rows).astype(np.intp)
        if int(wanted.min()) < 0 or int(wanted.max()) >= self._rows:
            raise IndexError(f"rows: found {wanted.min()}..{wanted.max()}, expected 0..{self._rows - 1}")
        starts = np.array(self._starts, np.intp)
        block_of = np.searchsorted(starts, wanted, side="right") - 1
        order = np.argsort(block_of, kind="stable")
        cuts = np.flatnonzero(np.diff(block_of[order])) + 1
        for picked in np.split(order, cuts):
            block = int(block_of[picked[0]])
            yield block, picked, wanted[picked] - starts[block]


def check_codes(codes: Codes, dim: int) -> None:
    """Raise ValueError unless the codes are int8 of shape (n, dim)."""
    if codes.dtype != np.int8 or codes.ndim != 2 or codes.shape[1] != dim:
        raise ValueError(f"codes: found {codes.dtype} of shape {codes.shape}, expected int8 of (n, {dim})")

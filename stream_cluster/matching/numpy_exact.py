"""Exact matching in NumPy: the readable form of what the native kernel does, and the oracle of its tests.

Tiles of BLAS products of int8 codes are tested against the threshold.
A tile is 1024 x 4096 pairs. float32 products of int8 codes are exact while every partial sum stays below
2**24, so the dimension is cut into slices of 1024 whose exact results are added as integers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.codes import (
    EXACT_DIMENSIONS,
    Int32s,
    check_codes,
    inverse_norms,
    similarities,
)
from stream_cluster.matching.exact import ExactMatcher
from stream_cluster.matching.protocol import MAX_HITS, Hits
from stream_cluster.matching.store import CodeStore
from stream_cluster.model import Codes, Interrupt, InverseNorms, Links, Progress, no_progress

TILE_ROWS = 1024
TILE_COLUMNS = 4096

Float32s = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


class NumpyMatcher(ExactMatcher):
    """The matcher over the same store, searched in NumPy; the oracle for all others."""

    def search(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """See `Matcher.search`."""
        return scan(self.store, codes, threshold_cosine, interrupt=interrupt)


def scan(
    store: CodeStore,
    codes: Codes,
    threshold_cosine: float,
    *,
    first_row: int = 0,
    interrupt: Interrupt | None = None,
) -> Iterator[Hits]:
    """Hits of the codes among the rows of the store from `first_row` on. See `Matcher.search`."""
    check_codes(codes, store.dim)
    tiles = _Tiles(threshold_cosine)
    norms = inverse_norms(codes)
    for start in range(0, len(codes), TILE_ROWS):
        queries = _Side(codes[start : start + TILE_ROWS], norms[start : start + TILE_ROWS])
        for left in range(first_row, len(store), TILE_COLUMNS):
            if interrupt is not None:
                interrupt.check()
            rows = np.arange(left, min(left + TILE_COLUMNS, len(store)))
            columns = _Side(store.gather(rows), store.gather_norms(rows))
            for query, column, similarity in tiles.hits(queries, columns):
                hits = Hits(_uint32(query, start), _uint32(column, left), similarity)
                if threshold_cosine < 0 and store.removed_count:
                    hits = _without_removed(hits, store)
                if len(hits):
                    yield hits


def all_pairs(
    codes: Codes | CodeStore,
    threshold_cosine: float,
    *,
    rows: npt.NDArray[np.integer] | None = None,
    interrupt: Interrupt | None = None,
    progress: Progress | None = None,
) -> Iterator[Links]:
    """All links among the codes, each pair compared once, in chunks of at most `MAX_HITS`.

    Args:
        codes: codes, or a store of them; never copied as a whole.
        threshold_cosine: a link has a similarity strictly above it.
        rows: compare only these rows; a and b of the links are then positions in `rows`. Removed rows of a
            store are in no link.
        interrupt: checked before each tile.
        progress: called with the stage "match".
    """
    report = no_progress if progress is None else progress
    source = _Source(codes, rows)
    tiles = _Tiles(threshold_cosine)
    pairs_total = len(source) * len(source) / 2 or 1
    for top in range(0, len(source), TILE_ROWS):
        upper = source.side(top, top + TILE_ROWS)
        for left in range(top, len(source), TILE_COLUMNS):
            if interrupt is not None:
                interrupt.check()
            # The first tile of a strip holds the diagonal; only what is right of it counts.
            for i, j, similarity in tiles.hits(upper, source.side(left, left + TILE_COLUMNS)):
                a, b = _uint32(i, top), _uint32(j, left)
                kept = np.ones(len(a), np.bool_)
                if left < top + TILE_ROWS:
                    kept &= a < b
                if threshold_cosine < 0:
                    kept &= source.live(a) & source.live(b)
                if kept.any():
                    yield Links(a[kept], b[kept], similarity[kept])
        remaining = max(len(source) - top - TILE_ROWS, 0)
        report("match", 1.0 - remaining * remaining / 2 / pairs_total)
    if len(source) == 0:
        report("match", 1.0)


class _Side:
    """One side of a tile: codes with norms, and their float32 slices of at most 1024 dimensions."""

    def __init__(self, codes: Codes, norms: InverseNorms) -> None:
        self.norms = norms
        self.slices: list[Float32s] = [
            codes[:, first : first + EXACT_DIMENSIONS].astype(np.float32)
            for first in range(0, codes.shape[1], EXACT_DIMENSIONS)
        ]

    def __len__(self) -> int:
        return len(self.norms)


class _Source:
    """The codes that `all_pairs` compares, by position, wherever they lie."""

    def __init__(self, codes: Codes | CodeStore, rows: npt.NDArray[np.integer] | None) -> None:
        self._codes = codes
        self._rows = rows
        self._length = len(codes) if rows is None else len(rows)
        if isinstance(codes, CodeStore):
            self._norms = codes.gather_norms(np.arange(self._length) if rows is None else rows)
        elif rows is None:
            check_codes(codes, codes.shape[1])
            self._norms = inverse_norms(codes)
        else:
            check_codes(codes, codes.shape[1])
            self._norms = np.empty(len(rows), np.float32)
            for start in range(0, len(rows), TILE_COLUMNS):
                part = slice(start, start + TILE_COLUMNS)
                self._norms[part] = inverse_norms(codes[rows[part]])

    def __len__(self) -> int:
        return self._length

    def live(self, positions: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
        """Whether what is there was not removed."""
        if not isinstance(self._codes, CodeStore):
            return np.ones(len(positions), np.bool_)
        return ~self._codes.is_removed(positions if self._rows is None else self._rows[positions])

    def side(self, start: int, stop: int) -> _Side:
        """Positions start..stop, cut at the end."""
        stop = min(stop, self._length)
        norms = self._norms[start:stop]
        if isinstance(self._codes, CodeStore):
            rows = np.arange(start, stop) if self._rows is None else self._rows[start:stop]
            return _Side(self._codes.gather(rows), norms)
        if self._rows is None:
            return _Side(self._codes[start:stop], norms)
        return _Side(self._codes[self._rows[start:stop]], norms)


class _Tiles:
    """Finds the hits of one tile after another, with buffers that are allocated once."""

    def __init__(self, threshold_cosine: float) -> None:
        self._threshold = np.float32(threshold_cosine)
        self._dots = np.empty(0, np.float32)
        self._sums = np.empty(0, np.int32)

    def hits(self, rows: _Side, columns: _Side) -> Iterator[tuple[Indices, Indices, Float32s]]:
        """Positions in `rows`, positions in `columns` and similarities above the threshold, in chunks."""
        dots = self._products(rows, columns)
        bound = self._bound(rows, columns)
        strip = max(MAX_HITS // max(len(columns), 1), 1)
        for start in range(0, len(rows), strip):
            part = dots[start : start + strip]
            if bound is None:
                candidates = np.arange(part.size)
            else:
                candidates = np.flatnonzero(part > bound[start : start + strip, None])
                if len(candidates) == 0:
                    continue
            i, j = np.divmod(candidates, len(columns))
            i += start
            similarity = similarities(part.reshape(-1)[candidates], rows.norms[i], columns.norms[j])
            above = similarity > self._threshold
            if bool(above.any()):
                yield i[above], j[above], similarity[above]

    def _products(self, rows: _Side, columns: _Side) -> Float32s:
        """Exact dot products, rounded to float32 once, shape (rows, columns)."""
        shape = (len(rows), len(columns))
        size = shape[0] * shape[1]
        if len(self._dots) < size:
            self._dots = np.empty(size, np.float32)
        dots = self._dots[:size].reshape(shape)
        np.matmul(rows.slices[0], columns.slices[0].T, out=dots)
        if len(rows.slices) == 1:
            return dots
        sums = self._sums_of(shape)
        sums[:] = dots
        for left, right in zip(rows.slices[1:], columns.slices[1:], strict=True):
            np.matmul(left, right.T, out=dots)
            np.add(sums, dots, out=sums, casting="unsafe", dtype=np.int32)
        dots[:] = sums
        return dots

    def _sums_of(self, shape: tuple[int, int]) -> Int32s:
        size = shape[0] * shape[1]
        if len(self._sums) < size:
            self._sums = np.empty(size, np.int32)
        return self._sums[:size].reshape(shape)

    def _bound(self, rows: _Side, columns: _Side) -> Float32s | None:
        """A dot product that a hit of each row must exceed in this tile; None where nothing can be said.

        similarity > t >= 0 means dot > t / (norm of row * norm of column), and the largest inverse norm
        of the tile gives the lowest such bound: one comparison per pair, and the exact test is left to
        the few that pass. The margin is far above the rounding of three float32 operations.
        """
        threshold = float(self._threshold)
        if threshold < 0 or len(columns) == 0:
            return None
        scale = rows.norms.astype(np.float64) * float(columns.norms.max())
        bound = np.full(len(rows), np.inf)
        np.divide(threshold * (1.0 - 1e-5), scale, out=bound, where=scale > 0)
        return bound.astype(np.float32)


def _uint32(positions: Indices, first: int) -> npt.NDArray[np.uint32]:
    return (positions + first).astype(np.uint32)


def _without_removed(hits: Hits, store: CodeStore) -> Hits:
    """Removed rows have similarity 0, which only a negative threshold lets through."""
    keep = ~store.is_removed(hits.row)
    return Hits(hits.query[keep], hits.row[keep], hits.similarity[keep])

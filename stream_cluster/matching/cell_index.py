"""Rows of a space in cells, and which cells a query goes to. Knows nothing of trainings and of recall."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_cluster.matching import kernel
from stream_cluster.matching.cell_doubts import NEAR
from stream_cluster.matching.cell_store import REMOVED, Cells, CellStore
from stream_cluster.matching.cell_training import Centroids, split_in_two
from stream_cluster.matching.codes import check_codes, inverse_norms, pair_dots, similarities
from stream_cluster.matching.exact import CHECK_EVERY_S
from stream_cluster.matching.protocol import MAX_HITS, Hits
from stream_cluster.matching.threads import thread_limit
from stream_cluster.model import Codes, Interrupt

_SPLIT_ROWS = 2048
_SPLIT_TIMES = 8

Float32s = npt.NDArray[np.float32]


class Probes(NamedTuple):
    """The cells that each query goes to: those of query q are cells[offsets[q]:offsets[q + 1]]."""

    offsets: npt.NDArray[np.uint64]
    cells: Cells


class CellIndex:
    """Rows in the cells of their most similar centroids.

    Before there are centroids all rows are in one cell, the home. While rows move to new cells there are two
    sets of centroids, and a query goes to cells of both; new rows go to those of the newest.
    """

    def __init__(self, dim: int, folder: Path | None) -> None:
        """Without rows. The codes lie in memory, or in a mapped file in `folder`."""
        self.store = CellStore(dim, folder)
        self._sets: list[Centroids] = []
        self._home: Cells | None = None
        self._trained_rows = 0
        self._excess = np.empty(0, np.float32)  # of the last codes probed, see `Doubt`
        self._last: tuple[Codes, Cells] | None = None  # the last codes probed: most often added next

    @property
    def dim(self) -> int:
        """Dimension of the codes."""
        return self.store.dim

    @property
    def nbytes(self) -> int:
        """Bytes held, those of a mapped file included."""
        return self.store.nbytes + sum(one.packed.nbytes + one.codes.nbytes for one in self._sets)

    def __len__(self) -> int:
        return len(self.store)

    @property
    def cell_count(self) -> int:
        """Cells that new rows go to; 0 before the first training."""
        return len(self._sets[-1]) if self._sets else 0

    @property
    def centroids(self) -> Centroids | None:
        """The centroids new rows go to."""
        return self._sets[-1] if self._sets else None

    @property
    def is_settled(self) -> bool:
        """Whether all rows are in the cells that new rows go to."""
        return len(self._sets) == 1 and self._home is None

    @property
    def trained_rows(self) -> int:
        """Rows that the cells were made for."""
        return self._trained_rows

    def append(self, codes: Codes, cells: Cells) -> None:
        """Add rows whose cells are known; `REMOVED`: rows that are removed already."""
        self.store.append(codes, cells)
        self._split(np.unique(cells[cells != REMOVED]))

    def cells_for(self, codes: Codes) -> Cells:
        """The cells that these codes belong to."""
        check_codes(codes, self.dim)
        if self._last is not None and np.array_equal(self._last[0], codes):
            return self._last[1]
        return self.nearest_cells(codes)

    def nearest_cells(self, codes: Codes) -> Cells:
        """The cell of the centroid most similar to each of these codes."""
        if not self._sets:
            return np.full(len(codes), self._home_cell(), np.uint32)
        return self._sets[-1].cells_of(codes)

    def probes(self, codes: Codes, margin: float, most: int | None = None) -> Probes:
        """The cells that codes are compared with at a margin, and the nearest of them at most."""
        parts = []
        self._excess = np.full(len(codes), np.inf, np.float32)
        for one in self._sets:
            # A little further than is searched: the nearest cell left out tells how well a code is covered.
            offsets, numbers, similarity = kernel.nearest(
                one.packed, codes, margin + NEAR, most=most or len(one), threads=thread_limit(), path=""
            )
            code = np.repeat(np.arange(len(codes)), counts_of(offsets))
            first = offsets[:-1].astype(np.intp)
            beyond = similarity[first][code] - similarity - np.float32(margin)
            is_near = beyond < 0
            is_near[first] = True
            np.minimum.at(self._excess, code[~is_near], beyond[~is_near])
            parts.append(Probes(_offsets_of(code[is_near], len(codes)), one.cells[numbers[is_near]]))
        if parts:
            # The most similar centroid comes first: the cell of the code itself.
            self._last = codes.copy(), parts[-1].cells[parts[-1].offsets[:-1].astype(np.intp)]
        if self._home is not None and len(self.store.rows_of(int(self._home[0]))):
            everyone = np.arange(len(codes) + 1, dtype=np.uint64)
            parts.append(Probes(everyone, np.full(len(codes), self._home[0], np.uint32)))
        if not parts:
            return Probes(np.zeros(len(codes) + 1, np.uint64), np.empty(0, np.uint32))
        return parts[0] if len(parts) == 1 else _together(parts)

    def scan(
        self,
        codes: Codes,
        threshold_cosine: float,
        blocks: npt.NDArray[np.uint32] | None,
        interrupt: Interrupt | None,
    ) -> Iterator[Hits]:
        run = kernel.scan_cells(
            self.store.packed,
            codes,
            blocks,
            threshold_cosine,
            threads=thread_limit(),
            max_hits=MAX_HITS,
            path="",
        )
        yield from hits_of(run, interrupt)

    def needed(self, codes: Codes, hits: Hits) -> tuple[Float32s, Cells]:
        """For each hit the margin above which its cell is searched, and the cell."""
        cells = self.store.packed.cell_of(np.ascontiguousarray(hits.row))
        result = np.zeros(len(hits), np.float32)  # of the cell that all go to
        for one in self._sets:
            place = self._places(one)[cells]
            inside = place >= 0
            if bool(inside.any()):
                result[inside] = _margins(one, codes, hits.query[inside], place[inside])
        return result, cells

    def needed_among(self, one: Centroids, codes: Codes, hits: Hits) -> Float32s:
        """For each hit the margin above which it would be found if all rows were in the cells of `one`."""
        cells = one.cells_of(self.store.gather(hits.row))
        return _margins(one, codes, hits.query, self._places(one)[cells])

    def _places(self, one: Centroids) -> npt.NDArray[np.int64]:
        """By cell: its place among these centroids, -1 for others."""
        place = np.full(self.store.packed.cell_count, -1, np.int64)
        place[one.cells] = np.arange(len(one))
        return place

    def with_cells(self, codes: Codes) -> Centroids:
        """Centroids with empty cells of their own, which no row goes to before `adopt`."""
        return Centroids(codes, self.store.take_cells(len(codes)))

    def adopt(self, centroids: Centroids, trained_rows: int | None = None) -> None:
        """New rows go to the cells of these from now on."""
        with self.store.lock:
            self._last = None
            self._sets = [*self._sets, centroids]
            if trained_rows is not None:
                self._trained_rows = trained_rows

    def _split(self, touched: Cells) -> None:
        """Split the cells among these that are far larger than the others."""
        if len(self._sets) != 1 or self._home is not None or len(touched) == 0:
            return
        newest = self._sets[-1]
        with self.store.lock:
            sizes = self.store.packed.sizes()
            mean = max((len(self.store) - self.store.removed_count) / len(newest), 1)
            for cell in touched[sizes[touched] > max(_SPLIT_ROWS, _SPLIT_TIMES * mean)].tolist():
                self._split_one(cell)

    def _split_one(self, cell: int) -> None:
        newest = self._sets[-1]
        place = np.flatnonzero(newest.cells == cell)
        rows = self.store.rows_of(cell)
        codes = self.store.gather(rows)
        halves = split_in_two(codes)
        if len(place) == 0 or halves is None:
            return
        fresh = self.store.take_cells(1)
        pair = Centroids(halves, np.array([cell, fresh[0]], np.uint32))
        cells = pair.cells_of(codes)
        self.store.move(rows[cells != cell], cells[cells != cell])
        centroids = newest.codes.copy()
        centroids[place[0]] = halves[0]
        self._sets[-1] = Centroids(np.concatenate([centroids, halves[1:]]), np.append(newest.cells, fresh))
        self._last = None

    def _home_cell(self) -> int:
        if self._home is None:
            self._home = self.store.take_cells(1)
        return int(self._home[0])

    def check(self) -> None:
        """Raise AssertionError unless every live row is in a cell that is searched. For tests."""
        with self.store.lock:  # a training may be moving rows
            rows = np.arange(len(self.store))
            cells = self.store.cell_of(rows)
            removed = self.store.is_removed(rows)
            assert bool(((cells == REMOVED) == removed).all())
            known = [one.cells for one in self._sets] + ([] if self._home is None else [self._home])
            assert bool(np.isin(cells[~removed], np.concatenate([np.empty(0, np.uint32), *known])).all())
            sizes = self.store.sizes
            assert int(sizes.sum()) == len(rows) - int(removed.sum())
            counted = np.bincount(cells[~removed].astype(np.int64), minlength=len(sizes))
            assert bool((counted == sizes).all())


def _margins(
    one: Centroids, codes: Codes, queries: npt.NDArray[np.integer], places: npt.NDArray[np.int64]
) -> Float32s:
    """How much less similar queries are to the centroids at some places than to their best ones."""
    norms = inverse_norms(codes)
    centroids = one.codes[places]
    own = similarities(pair_dots(codes[queries], centroids), norms[queries], inverse_norms(centroids))
    _, best = kernel.best(one.packed, codes, threads=thread_limit(), path="")
    margins: Float32s = np.maximum(best[queries] - own, 0)
    return margins


def counts_of(offsets: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """How many lie between each offset and the next."""
    ends = offsets.astype(np.int64)
    return ends[1:] - ends[:-1]


def _offsets_of(owners: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.uint64]:
    """Where those of each owner begin, for owners in order; one more for the end."""
    offsets = np.zeros(count + 1, np.uint64)
    np.cumsum(np.bincount(owners, minlength=count), out=offsets[1:])
    return offsets


def _together(parts: list[Probes]) -> Probes:
    """Probes of the same queries in different sets of cells."""
    counts = [counts_of(one.offsets) for one in parts]
    queries = np.concatenate([np.repeat(np.arange(len(count)), count) for count in counts])
    order = np.argsort(queries, kind="stable")
    offsets = np.zeros(len(counts[0]) + 1, np.uint64)
    offsets[1:] = np.cumsum(np.sum(counts, axis=0))
    return Probes(offsets, np.concatenate([one.cells for one in parts])[order])


def hits_of(run: kernel.Run, interrupt: Interrupt | None) -> Iterator[Hits]:
    try:
        while not run.done:
            if interrupt is not None:
                interrupt.check()
            chunk = run.next(CHECK_EVERY_S)
            if chunk is not None:
                yield Hits(*chunk)
    finally:
        run.stop()

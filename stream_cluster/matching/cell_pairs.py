"""All links among many codes by cells: nearly all of them, in a fraction of the time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_cluster.matching import kernel
from stream_cluster.matching.cell_control import WHOLE_MARGIN, MarginControl
from stream_cluster.matching.cell_index import counts_of
from stream_cluster.matching.cell_store import CellStore
from stream_cluster.matching.cell_training import Centroids, cell_count, learn_centroids, sample_of
from stream_cluster.matching.codes import inverse_norms, pair_dots, similarities
from stream_cluster.matching.costs import CELLS_SHARE_OF_EXACT_S
from stream_cluster.matching.exact import CHECK_EVERY_S, all_pairs
from stream_cluster.matching.protocol import MAX_HITS
from stream_cluster.matching.recall import RecallEstimate
from stream_cluster.matching.threads import thread_limit
from stream_cluster.model import Codes, Interrupt, Links, Progress, no_progress

Float32s = npt.NDArray[np.float32]

FEWEST_ROWS = 20_000
"""Fewer are compared with one another exactly, which takes a second or less."""

# A row is compared with all centroids once and with few rows, so that fewer cells suit a batch.
_SHARE_OF_CELLS = 0.25
_SAMPLE_QUERIES = 512
_ASSIGNED_AT_ONCE = 16_384
# Kept of each row's most similar centroids, so that few rows are compared with all of them again.
_KEPT = 12
_KEPT_MARGIN = 0.1
_SEED = 47
# Cells to be searched are noted for each row, in 4 bytes apiece: as long as they are few beside its code.
_MOST_PROBES = 64
_FEWEST_BOUNDED = 1_000_000
_PROBED_SAMPLE = 2048


class _Kept(NamedTuple):
    """Centroids of consecutive rows: those of row i are offsets[i] to offsets[i + 1], the best first."""

    offsets: npt.NDArray[np.uint64]
    centroids: npt.NDArray[np.uint32]
    similarity: npt.NDArray[np.float32]


@dataclass(slots=True)
class CellPairs:
    """One run over all pairs; `links` is to be used up, then `recall` and `scanned_share` are known."""

    codes: Codes
    """Shape (n, dim), C-contiguous, not to be changed meanwhile."""
    threshold_cosine: float
    target_recall: float
    interrupt: Interrupt | None = None
    progress: Progress | None = None
    exact_s: float | None = None
    """Seconds of exact matching, about, where that is known: cells have to be clearly faster."""
    engine: str = "cells"
    """`exact` where there were too few codes for cells, or too many cells to be searched for each."""
    recall: RecallEstimate = field(default_factory=lambda: RecallEstimate(0, 0, 0.0, 1.0))
    """Of the links above the threshold, measured on a sample that the search was not fitted to."""
    scanned_share: float = 1.0
    """Pairs compared / all pairs."""
    _kept: list[_Kept] = field(default_factory=list)
    _pair_s: float = 0.0
    """Seconds that it took to compare a row of the sample with one of a cell."""

    def links(self) -> Iterator[Links]:
        """Links a < b with a similarity above the threshold, each once, in chunks of at most `MAX_HITS`.

        Raises:
            Cancelled, TaskError: by `interrupt`.
        """
        report = no_progress if self.progress is None else self.progress
        made = None if not 0 <= self.threshold_cosine < 1 else self._cells(report)
        if made is None:
            self.engine = "exact"
            yield from all_pairs(
                self.codes, self.threshold_cosine, interrupt=self.interrupt, progress=self.progress
            )
            return
        store, centroids = made
        margin = self._margin(store, centroids)
        report("match", 0.4)
        if margin >= WHOLE_MARGIN or not self._saves_time(store, centroids, margin):
            self.engine, self.scanned_share = "exact", 1.0
            self._kept.clear()
            del made, store, centroids
            yield from all_pairs(
                self.codes,
                self.threshold_cosine,
                interrupt=self.interrupt,
                progress=lambda stage, share: report(stage, 0.4 + 0.6 * share),
            )
            return
        yield from self._search(store, centroids, margin, report)
        report("match", 1.0)

    def _check(self) -> None:
        if self.interrupt is not None:
            self.interrupt.check()

    def _cells(self, report: Progress) -> tuple[CellStore, Centroids] | None:
        """All codes in cells; None where that is of no use."""
        count = len(self.codes)
        if count < FEWEST_ROWS:
            return None
        wanted = int(cell_count(count) * _SHARE_OF_CELLS)
        stopped: list[BaseException] = []

        def should_stop() -> bool:
            try:
                self._check()
            except BaseException as reason:
                stopped.append(reason)
            return bool(stopped)

        sample = self.codes[sample_of(count, wanted)]
        learned = learn_centroids(sample, wanted, should_stop=should_stop)
        if stopped:
            raise stopped[0]
        if learned is None:
            return None
        report("match", 0.2)
        store = CellStore(self.codes.shape[1])
        centroids = Centroids(learned, store.take_cells(len(learned)))
        for first in range(0, count, _ASSIGNED_AT_ONCE):
            self._check()
            part = self.codes[first : first + _ASSIGNED_AT_ONCE]
            kept = _Kept(*_nearest(centroids, part, _KEPT_MARGIN, _KEPT))
            self._kept.append(kept)
            store.append(part, centroids.cells[kept.centroids[kept.offsets[:-1].astype(np.intp)]])
            report("match", 0.2 + 0.15 * (first / count))
        return store, centroids

    def _margin(self, store: CellStore, centroids: Centroids) -> float:
        """The margin that holds the target, by half of a sample; the other half measures it."""
        random = np.random.default_rng([_SEED, len(self.codes)])
        rows = random.choice(len(self.codes), _SAMPLE_QUERIES, replace=False)
        fit, test = MarginControl(self.target_recall), MarginControl(self.target_recall)
        began = time.perf_counter()
        for half, control in ((rows[::2], fit), (rows[1::2], test)):
            needed = self._needed(store, centroids, np.sort(half))
            control.take(needed, searched=None)
        self._pair_s = (time.perf_counter() - began) / len(rows) / len(self.codes)
        margin = fit.margin if len(fit) else WHOLE_MARGIN
        self.recall = test.recall_of(margin)
        if self.recall.recall < self.target_recall:
            # Fitted too closely: by all of the sample, which then measures it a little too well.
            margin = max(margin, test.margin)
            self.recall = test.recall_of(margin)
        return margin

    def _saves_time(self, store: CellStore, centroids: Centroids, margin: float) -> bool:
        """Whether to search the cells within the margin, by how many they are for some rows."""
        count = len(self.codes)
        rows = np.unique(np.linspace(0, count - 1, _PROBED_SAMPLE).astype(np.int64))
        _, numbers, _ = _nearest(centroids, self.codes[rows], margin, len(centroids))
        if len(numbers) / len(rows) * count > _MOST_PROBES * max(count, _FEWEST_BOUNDED):
            return False
        if self.exact_s is None:
            return True
        share = float(store.sizes[centroids.cells[numbers]].sum(dtype=np.int64)) / len(rows) / count
        return share * count * count * self._pair_s <= CELLS_SHARE_OF_EXACT_S * self.exact_s

    def _needed(self, store: CellStore, centroids: Centroids, rows: npt.NDArray[np.int64]) -> list[Float32s]:
        """For each link of these rows the margin that finds it, from either side."""
        codes = np.ascontiguousarray(self.codes[rows])
        run = kernel.scan_cells(
            store.packed,
            codes,
            None,
            self.threshold_cosine,
            threads=thread_limit(),
            max_hits=MAX_HITS,
            path="",
        )
        norms = inverse_norms(centroids.codes)
        needed: list[list[Float32s]] = [[] for _ in rows]
        try:
            while not run.done:
                self._check()
                chunk = run.next(CHECK_EVERY_S)
                if chunk is None:
                    continue
                query, row, _ = chunk
                others = rows[query] != row
                query, row = query[others], row[others]
                there = np.ascontiguousarray(self.codes[row])
                margins = np.minimum(
                    _margins(centroids, norms, codes[query], store.cell_of(row)),
                    _margins(centroids, norms, there, store.cell_of(rows[query])),
                )
                for one in np.unique(query).tolist():
                    needed[one].append(margins[query == one])
        finally:
            run.stop()
        return [np.concatenate(parts) for parts in needed if parts]

    def _probes(
        self, centroids: Centroids, codes: Codes, kept: _Kept, margin: float
    ) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
        """Centroids within the margin of each of these codes: (offsets, numbers)."""
        counts = counts_of(kept.offsets)
        code = np.repeat(np.arange(len(codes)), counts)
        best = kept.similarity[kept.offsets[:-1].astype(np.intp)]
        is_near = kept.similarity > (best - np.float32(margin))[code]
        is_near[kept.offsets[:-1].astype(np.intp)] = True
        near = np.bincount(code, is_near, len(codes)).astype(np.int64)
        # Where all that was kept is near, there may be more.
        cut = (near == _KEPT) if margin <= _KEPT_MARGIN else np.ones(len(codes), np.bool_)
        rest = np.flatnonzero(cut)
        is_near[cut[code]] = False
        parts_code, parts_number = [code[is_near]], [kept.centroids[is_near]]
        if len(rest):
            ends, numbers, _ = _nearest(centroids, codes[rest], margin, len(centroids))
            parts_code.append(np.repeat(rest, counts_of(ends)))
            parts_number.append(numbers)
        codes_of = np.concatenate(parts_code)
        order = np.argsort(codes_of, kind="stable")
        offsets = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum(np.bincount(codes_of, minlength=len(codes)), out=offsets[1:])
        return offsets, np.concatenate(parts_number)[order]

    def _search(
        self, store: CellStore, centroids: Centroids, margin: float, report: Progress
    ) -> Iterator[Links]:
        count = len(self.codes)
        offsets = np.zeros(count + 1, np.uint64)
        cells: list[npt.NDArray[np.uint32]] = []
        for number, first in enumerate(range(0, count, _ASSIGNED_AT_ONCE)):
            self._check()
            part = self.codes[first : first + _ASSIGNED_AT_ONCE]
            ends, numbers = self._probes(centroids, part, self._kept[number], margin)
            offsets[first + 1 : first + len(part) + 1] = offsets[first] + ends[1:]
            cells.append(centroids.cells[numbers])
            report("match", 0.4 + 0.1 * (first / count))
        self._kept.clear()
        probed = np.concatenate(cells)
        self.scanned_share = float(store.sizes[probed].sum(dtype=np.int64)) / count**2
        run = kernel.search_cells(
            store.packed,
            self.codes,
            offsets,
            probed,
            self.threshold_cosine,
            pairs=True,
            threads=thread_limit(),
            max_hits=MAX_HITS,
            path="",
        )
        try:
            while not run.done:
                self._check()
                chunk = run.next(CHECK_EVERY_S)
                report("match", 0.5 + 0.5 * run.progress)
                if chunk is not None:
                    yield Links(*chunk)
        finally:
            run.stop()


def _nearest(
    centroids: Centroids, codes: Codes, margin: float, most: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    codes = np.ascontiguousarray(codes)
    found: tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32], npt.NDArray[np.float32]] = kernel.nearest(
        centroids.packed, codes, margin, most=most, threads=thread_limit(), path=""
    )
    return found


def _margins(centroids: Centroids, norms: Float32s, codes: Codes, cells: npt.NDArray[np.uint32]) -> Float32s:
    """How much less similar than to its best centroid each code is to that of a cell (cells are 0..k - 1)."""
    own = inverse_norms(codes)
    _, best = kernel.best(centroids.packed, codes, threads=thread_limit(), path="")
    similarity = similarities(pair_dots(codes, centroids.codes[cells]), own, norms[cells])
    margins: Float32s = np.maximum(best - similarity, 0)
    return margins

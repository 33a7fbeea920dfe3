"""Events that arrive in batches at a matcher of cells, with times and shares of links found."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.cells_data import CodesFile
from stream_cluster.matching import Hits
from stream_cluster.matching.cell_training import cell_count, learn_centroids, sample_of
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.matching.recall import estimate
from stream_cluster.model import Codes

THRESHOLD = 0.5
BATCH = 1000
CHECKED = 1000
FILLED_AT_ONCE = 65_536

Rows = npt.NDArray[np.int64]
Results = dict[str, Any]


class Stream:
    """Feeds a matcher in batches and takes times; every so often a batch is searched exactly too."""

    def __init__(
        self,
        matcher: CellMatcher,
        codes: Codes | CodesFile,
        order: Rows | None = None,
        *,
        checks_latest: bool = False,
    ) -> None:
        """`order`: rows of the codes as they arrive; None for those of a file one after another.

        `checks_latest`: check the events that came last, for orders in which those that come next have hardly
        a link to what is there.
        """
        self.matcher = matcher
        self._codes = codes
        self._order = order
        self._checks_latest = checks_latest
        self.next = 0
        self.latencies_s: list[float] = []

    def run(self, stop: int, *, search_every: int = 1) -> float:
        """Feed events up to `stop`; returns seconds."""
        began = time.perf_counter()
        number = 0
        while self.next < stop:
            end = min(self.next + BATCH, stop)
            batch = self._batch(self.next, end)
            start = time.perf_counter()
            if number % search_every == 0:
                for _ in self.matcher.search(batch, THRESHOLD):
                    pass
            self.matcher.add(batch)
            self.latencies_s.append(time.perf_counter() - start)
            self.next, number = end, number + 1
        return time.perf_counter() - began

    def check(self, count: int = CHECKED) -> Results:
        """Share of links found for the next events, which are not added; seconds of the exact search."""
        first = self.next - count if self._checks_latest else self.next
        batch = self._batch(first, min(first + count, len(self._codes)))
        found = _pairs(self.matcher.search(batch, THRESHOLD))
        began = time.perf_counter()
        true = _pairs(self.matcher.search_exactly(batch, THRESHOLD))
        exact_s = time.perf_counter() - began
        assert bool(np.isin(found, true).all()), "cells report nothing that exact matching does not"
        counts = [np.bincount(one >> 32, minlength=len(batch)) for one in (true, found)]
        if self._checks_latest:
            counts = [np.maximum(one - 1, 0) for one in counts]  # each finds itself
        return {"rows": len(self.matcher), "exact_s": round(exact_s, 3), **estimate(*counts).as_dict()}

    def _batch(self, start: int, stop: int) -> Codes:
        if isinstance(self._codes, CodesFile):
            return self._codes.rows(start, stop)
        assert self._order is not None
        return np.ascontiguousarray(self._codes[self._order[start:stop]])


def fill(matcher: CellMatcher, codes: CodesFile, rows: int) -> float:
    """Put the first rows of a file into cells made for them, at once; returns seconds.

    What a stream of them ends with, in a fraction of the time: cells of a sample, each row in its cell, and
    the margin by rows that are there.
    """
    began = time.perf_counter()
    wanted = cell_count(rows)
    centroids = learn_centroids(codes.some(sample_of(rows, wanted)), wanted)
    assert centroids is not None
    matcher.adopt(matcher.with_cells(centroids), rows)
    for first in range(0, rows, FILLED_AT_ONCE):
        part = codes.rows(first, min(first + FILLED_AT_ONCE, rows))
        matcher.append(part, matcher.nearest_cells(part))
    matcher.measure()
    return time.perf_counter() - began


def _pairs(search: Iterator[Hits]) -> npt.NDArray[np.int64]:
    parts = [hits.query.astype(np.int64) << 32 | hits.row for hits in search]
    return np.concatenate([np.empty(0, np.int64), *parts])


def percentiles(latencies_s: list[float]) -> Results:
    p50, p99 = np.quantile(latencies_s, [0.5, 0.99]).tolist()
    return {"p50_ms": round(p50 * 1000, 2), "p99_ms": round(p99 * 1000, 2)}

"""Cells are made and made anew, in a thread, while searches go on."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.build import end_with_process
from stream_cluster.matching.cell_control import MarginControl
from stream_cluster.matching.cell_doubts import Doubts
from stream_cluster.matching.cell_index import CellIndex, Float32s
from stream_cluster.matching.cell_store import REMOVED
from stream_cluster.matching.cell_training import Centroids, cell_count, learn_centroids, sample_of
from stream_cluster.matching.protocol import Hits
from stream_cluster.matching.store import CodeStore
from stream_cluster.matching.threads import thread_limit
from stream_cluster.model import Codes

FIRST_TRAINING = 16_384
"""Rows at which cells are made: fewer are compared in less time than it takes."""

GROWTH = 3
"""Cells are made anew when there are so many times the rows they were made for."""

_ASSIGNED_AT_ONCE = 8192
_GATHERED_AT_ONCE = 8192
# Many rows, and few of the links of each: links of one row are found or missed together.
_FEWEST_SAMPLED = 1024
_MOST_SAMPLED = 16_384
_SAMPLED_SHARE = 1 / 16
_SAMPLED_AT_ONCE = 512
_FEWEST_BLOCKS = 512
_BLOCKS_SHARE = 1 / 80
_ENOUGH_LINKS = 20_000
_SEED = 31

Notify = Callable[[str, Mapping[str, object]], None]
"""Called with the name of an event and its fields, for the log. May come from any thread."""


class CellParameters(NamedTuple):
    """How cells are searched."""

    target_recall: float = 0.995
    budget_share: float = 0.05
    """Share of the rows that a query should be compared with at most; more than that is told."""
    sample_share: float = 0.1
    """Comparisons made to measure recall / comparisons made to find links."""
    first_training: int = FIRST_TRAINING
    counted_cosine: float = -1.0
    """Links above it count for the recall, where searches go further down."""


class TrainedCells(CellIndex):
    """Cells that are made once there are rows enough, and anew as they grow. It manages one thread."""

    def __init__(
        self,
        dim: int,
        parameters: CellParameters,
        folder: Path | None,
        notify: Notify,
        trained: Callable[[], None],
    ) -> None:
        """Without rows; `trained` is called by the thread when new cells are complete."""
        super().__init__(dim, folder)
        self.parameters = parameters
        self.control = MarginControl(parameters.target_recall)
        self.doubts = Doubts()
        self._notify = notify
        self._trained = trained
        self._threshold = 0.5  # of the latest search
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @property
    def is_training(self) -> bool:
        """Whether cells are being made or rows are on their way to new ones."""
        return self._thread is not None and self._thread.is_alive()

    def train_if_due(self) -> None:
        """Begin to make cells when there are enough rows for it."""
        live = len(self.store) - self.store.removed_count
        due = GROWTH * self._trained_rows
        if not self._sets:
            due = max(due, self.parameters.first_training)
        if live < due or self.is_training or self._stop.is_set():
            return
        self._thread = threading.Thread(target=self._train_in_thread, name="cells-training", daemon=True)
        self._thread.start()
        end_with_process(self, self._stop, self._thread)

    def wait_until_trained(self, timeout_s: float | None = None) -> bool:
        """Wait for a training that is under way; whether there are cells then and none is under way."""
        if self._thread is not None:
            self._thread.join(timeout_s)
        return bool(self._sets) and not self.is_training

    def stop(self) -> None:
        """End the training that is under way, for good; what has moved stays where it is."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _train_in_thread(self) -> None:
        try:
            # Half of the threads: the others go on with what comes in.
            self.train(self._stop.is_set, max(thread_limit() // 2, 1))
        except Exception as error:  # cells serve speed alone: without them matching goes on
            self._notify("cells_failed", {"error": f"{type(error).__name__}: {error}"})

    def train(self, should_stop: Callable[[], bool] = lambda: False, threads: int | None = None) -> None:
        """Make cells for the rows there are, and move all rows to them."""
        with self.store.lock:
            rows = len(self.store)
            live = rows - self.store.removed_count
        wanted = cell_count(live)
        self._notify("cells_training", {"rows": live, "cells": wanted})
        sample = self._gathered(sample_of(rows, wanted), should_stop)
        if sample is None:
            return
        codes = learn_centroids(sample, wanted, threads=threads, should_stop=should_stop)
        del sample
        self._trained_rows = max(live, 1)
        if codes is None:
            return
        fresh = self.with_cells(codes)
        # Before the first row moves it is known how far one has to search for those that have.
        ahead = [one for needed in self._samples(should_stop, fresh) for one in needed]
        if should_stop():
            return
        with self.store.lock:
            self.adopt(fresh)
            self.control.begin_move(ahead)
        if self._move_all(should_stop, threads):
            self.finish()
            self.measure(should_stop)
            estimate = self.control.recall()
            fields = {"rows": live, "cells": len(codes), "recall": round(estimate.recall, 4)}
            self._notify("cells_trained", fields)
            self._trained()

    def train_anew(self) -> None:
        """Begin to make cells whatever their age, in the thread."""
        with self.store.lock:
            self._trained_rows = 0
        self.train_if_due()

    def begin_with(self, source: CodeStore, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Make cells of the rows of another store, and take all of them. Without rows of its own before.

        The other store may grow meanwhile: `catch_up` takes what came.
        """
        rows = len(source)
        wanted = cell_count(rows - source.removed_count)
        self._notify("cells_training", {"rows": rows, "cells": wanted})
        threads = max(thread_limit() // 2, 1)
        codes = learn_centroids(
            source.gather(sample_of(rows, wanted)), wanted, threads=threads, should_stop=should_stop
        )
        if codes is None:
            raise ValueError(f"found too few rows that differ among {rows}, expected enough for cells")
        self.adopt(self.with_cells(codes), rows)
        while len(self) < len(source) and not should_stop():
            self._take(source, min(len(self) + _GATHERED_AT_ONCE, len(source)), threads)
        if not should_stop():
            self.measure(should_stop)

    def catch_up(self, source: CodeStore) -> None:
        """Take the rows that came since `begin_with`, and let go of those removed."""
        if len(self) < len(source):
            self._take(source, len(source), thread_limit())
        rows = np.arange(len(source))
        gone = source.is_removed(rows) & ~self.store.is_removed(rows)
        self.store.remove(rows[gone])

    def _take(self, source: CodeStore, stop: int, threads: int) -> None:
        rows = np.arange(len(self), stop)
        codes = source.gather(rows)
        cells = self._sets[-1].cells_of(codes, threads)
        cells[source.is_removed(rows)] = REMOVED
        self.append(codes, cells)

    def finish(self) -> None:
        """Let go of all centroids but the newest; their cells are empty."""
        with self.store.lock:
            for one in self._sets[:-1]:
                self.store.give_back(one.cells)
            if self._home is not None:
                self.store.give_back(self._home)
                self._home = None
            self._sets = self._sets[-1:]
            self.control.end_move()
            # What a search among other cells missed is not known any more.
            self.doubts = Doubts()

    def measure(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Set the margin by rows that are there, compared with a share of all."""
        for needed in self._samples(should_stop, None):
            with self.store.lock:
                self.control.take(needed, searched=None)

    def _samples(self, should_stop: Callable[[], bool], among: Centroids | None) -> Iterator[list[Float32s]]:
        """The margins that links of sampled rows need, a list of queries at a time.

        `among`: if all rows were in the cells of these centroids; None: in those that they are in.
        """
        live = np.flatnonzero(~self.store.is_removed(np.arange(len(self.store))))
        random = np.random.default_rng([_SEED, len(live)])
        blocks_total = self.store.packed.block_count
        share = min(max(_FEWEST_BLOCKS, round(blocks_total * _BLOCKS_SHARE)), blocks_total)
        links = 0
        wanted = min(max(len(live) * _SAMPLED_SHARE, _FEWEST_SAMPLED), _MOST_SAMPLED, len(live))
        for _ in range(math.ceil(wanted / _SAMPLED_AT_ONCE)):
            if should_stop():
                return
            rows = np.sort(random.choice(live, min(_SAMPLED_AT_ONCE, len(live)), replace=False))
            needed: list[Float32s] = []
            with self.store.lock:
                codes = self.store.gather(rows)
                blocks = np.sort(random.choice(blocks_total, share, replace=False)).astype(np.uint32)
                threshold = max(self._threshold, self.parameters.counted_cosine, 0.0)
                for hits in self.scan(codes, threshold, blocks, None):
                    others = np.flatnonzero(rows[hits.query] != hits.row)[: _ENOUGH_LINKS - links]
                    links += len(others)
                    pairs = Hits(hits.query[others], hits.row[others], hits.similarity[others])
                    if among is None:
                        margins, _ = self.needed(codes, pairs)
                    else:
                        margins = self.needed_among(among, codes, pairs)
                    needed += [margins[pairs.query == query] for query in np.unique(pairs.query)]
                    if links == _ENOUGH_LINKS:  # where everything is alike, all would be far too many
                        break
            yield needed
            if links == _ENOUGH_LINKS:
                return

    def _gathered(self, rows: npt.NDArray[np.int64], should_stop: Callable[[], bool]) -> Codes | None:
        """Codes of rows, a few at a time, so that matching goes on in between. None when told to stop."""
        codes = np.empty((len(rows), self.dim), np.int8)
        for first in range(0, len(rows), _GATHERED_AT_ONCE):
            if should_stop():
                return None
            part = slice(first, first + _GATHERED_AT_ONCE)
            codes[part] = self.store.gather(rows[part])
        return codes

    def _move_all(self, should_stop: Callable[[], bool], threads: int | None) -> bool:
        """Move all rows of older cells to the newest ones; False when told to stop."""
        newest = self._sets[-1]
        older = [cells for one in self._sets[:-1] for cells in one.cells.tolist()]
        if self._home is not None:
            older.append(int(self._home[0]))
        waiting: list[npt.NDArray[np.uint32]] = []
        for cell in older:
            waiting.append(self.store.rows_of(cell))
            if sum(map(len, waiting)) < _ASSIGNED_AT_ONCE and cell != older[-1]:
                continue
            rows = np.concatenate(waiting)
            waiting.clear()
            for first in range(0, len(rows), _ASSIGNED_AT_ONCE):
                if not self._move(rows[first : first + _ASSIGNED_AT_ONCE], newest, threads, should_stop):
                    return False
        return True

    def _move(
        self,
        rows: npt.NDArray[np.uint32],
        newest: Centroids,
        threads: int | None,
        should_stop: Callable[[], bool],
    ) -> bool:
        codes = self._gathered(rows.astype(np.int64), should_stop)  # zeros where removed: those do not move
        if codes is None:
            return False
        # Some ten milliseconds under the lock. Moves of a few rows each took a whole batch of events apiece.
        self.store.move(rows, newest.cells_of(codes, threads))
        return not should_stop()

"""Cells as an engine of a space: how they are set up, and their file."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stream_cluster.matching import cell_cache
from stream_cluster.matching.cache_file import CacheRejected
from stream_cluster.matching.cell_cache import SavedCells
from stream_cluster.matching.cell_trainer import FIRST_TRAINING, CellParameters, Notify
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.matching.exact import scan
from stream_cluster.matching.options import MatcherSettings
from stream_cluster.matching.protocol import Hits
from stream_cluster.matching.store import CodeStore

CELLS_FROM_ROWS = FIRST_TRAINING
"""Rows at which the first cells are made where cells are asked for."""

_TIMED_QUERIES = 256
_SEED = 53


class CellEngine:
    """Makes the cells of one space, and keeps them in a file beside that of its graph."""

    def __init__(
        self,
        dim: int,
        settings: MatcherSettings,
        cache_path: Path | None,
        counted_cosine: float,
        notify: Notify,
    ) -> None:
        """`cache_path`: the file of the graph; None: nothing is kept, and codes lie in memory."""
        self._dim = dim
        self._settings = settings
        self._path = None if cache_path is None else cache_path.with_suffix(".cells")
        self._counted_cosine = counted_cosine
        self._notify = notify
        self._saving = threading.Lock()

    def new(self) -> CellMatcher:
        """Cells without rows."""
        settings = self._settings
        parameters = CellParameters(
            target_recall=settings.target_recall,
            budget_share=settings.cells_budget_share,
            sample_share=settings.cells_sample_share,
            first_training=CELLS_FROM_ROWS,
            counted_cosine=self._counted_cosine,
        )
        folder = self._path.parent if settings.map_codes and self._path is not None else None
        return CellMatcher(
            self._dim, parameters, folder=folder, notify=self._notify, trained=self.save_when_trained
        )

    def saved(self) -> SavedCells | None:
        """What was saved; None when there is nothing of use."""
        if self._path is None:
            return None
        try:
            return cell_cache.load(self._path, self._dim)
        except CacheRejected as rejected:
            if rejected.reason != "missing":
                self.tell_rejected(rejected.reason, rejected.detail)
            return None

    def tell_rejected(self, reason: str, detail: str) -> None:
        """Say that what was saved cannot be used."""
        self._notify("cells_cache_rejected", {"reason": reason, "detail": detail})

    def times_beside_exact(self, cells: CellMatcher, store: CodeStore) -> tuple[float, float]:
        """Seconds of a batch in cells and exactly, at the margin that the cells need.

        `store`: the rows that the cells were made of, and perhaps more. Takes a second or so for millions.
        """
        random = np.random.default_rng([_SEED, len(store)])
        rows = np.sort(random.choice(len(store), min(_TIMED_QUERIES, len(store)), replace=False))
        codes = store.gather(rows)
        threshold = max(self._counted_cosine, 0.0)
        in_cells = _seconds_of(cells.search_within(codes, threshold, cells.control.margin))
        return in_cells, _seconds_of(scan(store, codes, threshold))

    def save(self, cells: CellMatcher) -> bool:
        """Save cells that are complete; True if they were saved. What cannot be written is told of."""
        if self._path is None:
            return False
        try:
            with self._saving:
                return cell_cache.save(self._path, cells)
        except OSError as error:
            self._notify("cells_not_saved", {"error": str(error)})
            return False

    def save_when_trained(self, cells: CellMatcher) -> None:
        """Cells are saved as soon as they are made, so that a process that is killed has them too."""
        self.save(cells)


def _seconds_of(hits: Iterator[Hits]) -> float:
    began = time.perf_counter()
    for _ in hits:
        pass
    return time.perf_counter() - began

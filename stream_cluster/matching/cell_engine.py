"""Cells as an engine of a space: how they are set up, and their file."""

from __future__ import annotations

import threading
from pathlib import Path

from stream_cluster.matching import cell_cache
from stream_cluster.matching.cache_file import CacheRejected
from stream_cluster.matching.cell_cache import SavedCells
from stream_cluster.matching.cell_trainer import FIRST_TRAINING, CellParameters, Notify
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.matching.options import MatcherSettings

CELLS_FROM_ROWS = FIRST_TRAINING
"""Rows at which the first cells are made where cells are asked for."""


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

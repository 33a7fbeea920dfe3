"""The compactions of a partition that are under way beside its batches, and what batches remove meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream_cluster.state.batch import Batch
from stream_cluster.state.chunks import link_counts
from stream_cluster.state.compaction import Compaction, Inline, compact, exchange, is_due
from stream_cluster.state.space import Space


class Compactions:
    """Begins compactions that are due, and puts finished ones into the transactions of batches."""

    def __init__(self, connection: sqlite3.Connection, path: Path, background: Executor | None) -> None:
        """`connection` is the writer's; without `background` they run inside `begin`."""
        self._db = connection
        self._path = path
        self._background = background or Inline()
        self._jobs: dict[int, Future[Compaction]] = {}
        """By space."""
        self._removed: dict[int, list[npt.NDArray[np.uint32]]] = {}
        """Rows removed from a space since its compaction began."""
        self._exchanged: list[int] = []

    def exchange(self, batch: Batch) -> None:
        """Put what is finished into the transaction of a batch, before its own chunks.

        Those of a merge may lie among the ones that the batch rewrites.
        """
        self._exchanged = []
        for job in self._jobs.values():
            if job.done():
                compaction = job.result()
                exchange(self._db, compaction, self._removed_since(compaction.space_id, batch))
                self._exchanged.append(compaction.space_id)

    def note_removal(self, space: Space, rows: npt.NDArray[np.uint32]) -> None:
        """The transaction that removed the rows is committed."""
        if space.space_id in self._jobs:
            self._removed.setdefault(space.space_id, []).append(rows)
        self._count_links(space)

    def exchanged(self, spaces: Iterable[Space]) -> None:
        """The transaction of the last `exchange` is committed."""
        merged = set(self._exchanged)
        for space_id in merged:
            del self._jobs[space_id]
            self._removed.pop(space_id, None)
        for space in spaces if merged else ():
            if space.space_id in merged:
                self._count_links(space)

    def begin(self, spaces: Iterable[Space]) -> None:
        """Start those that are due."""
        for space in spaces:
            if space.space_id not in self._jobs and is_due(space.merged_links, space.pending_links):
                self._jobs[space.space_id] = self._background.submit(compact, self._path, space.space_id)

    def close(self) -> None:
        """Wait for those under way."""
        for job in self._jobs.values():
            # One that waits for a thread may wait for this very one.
            if not job.cancel():
                job.exception()

    def _removed_since(self, space_id: int, batch: Batch) -> list[npt.NDArray[np.uint32]]:
        """Rows removed since a compaction began, by this batch too."""
        removals = [part.removal for part in batch.spaces.values() if part.space.space_id == space_id]
        return self._removed.get(space_id, []) + [one.rows for one in removals if one is not None]

    def _count_links(self, space: Space) -> None:
        space.merged_links, space.pending_links = link_counts(self._db, space.space_id)

"""One consistent point of a partition's database, read while ingest goes on."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_cluster.errors import Cancelled, StateError, TaskError
from stream_cluster.model import Codes, Interrupt, Links, SpaceKey
from stream_cluster.state.chunks import gather_codes, link_chunks, link_counts, read_links
from stream_cluster.state.database import explain_errors, load_offsets, open_reader, read_meta

# Steps of SQLite's virtual machine between two looks at an interrupt: a row takes about ten, a look less than
# a microsecond, and reading a chunk of codes is a query of few steps.
_STEPS_BETWEEN_CHECKS = 1000


@dataclass(frozen=True, slots=True)
class SpaceRecord:
    """A space as the database has it."""

    space_id: int
    key: SpaceKey
    dim: int
    next_row: int
    floor_cosine: float
    """Links above it were kept for all objects; 1 when none were looked for."""
    duplicates: int
    links_seen: int
    deleted: int

    @property
    def objects(self) -> int:
        """Objects that are held."""
        return self.next_row - self.deleted


class PartitionView:
    """A read transaction: everything read through it is as of the moment it was opened (WAL mode).

    Use from one thread at a time. A view that stays open keeps the WAL from shrinking, so close it.
    """

    def __init__(self, path: Path) -> None:
        """Open the database and pin its present state.

        Raises:
            StateError, StateFormatError, StateCorrupt: see `open_reader`.
        """
        self.path = path
        self._db = open_reader(path)
        self._stop: Callable[[], bool] | None = None
        try:
            with explain_errors(path):
                self._db.execute("BEGIN")
                # A deferred transaction begins with its first read.
                self.meta = read_meta(self._db)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """End the transaction."""
        self._db.close()

    def __enter__(self) -> PartitionView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a SELECT, fetched as they are consumed."""
        with explain_errors(self.path):
            cursor = self._db.execute(sql, parameters)
            while rows := cursor.fetchmany(4096):
                yield from rows

    @contextlib.contextmanager
    def stoppable(self, interrupt: Interrupt) -> Iterator[None]:
        """Let `interrupt` end the queries of the block, also before their first row. Blocks may be nested.

        Raises:
            Cancelled, TaskError: as `interrupt.check` does.
        """
        stopped: list[Exception] = []

        def stop() -> bool:
            try:
                interrupt.check()
            except (Cancelled, TaskError) as error:
                stopped.append(error)
            return bool(stopped)

        # Called by SQLite within a query; what it raises would be lost there.
        outer, self._stop = self._stop, stop
        self._db.set_progress_handler(stop, _STEPS_BETWEEN_CHECKS)
        try:
            yield
        except StateError:
            if stopped:
                raise stopped[0] from None
            raise
        finally:
            self._stop = outer
            self._db.set_progress_handler(outer, _STEPS_BETWEEN_CHECKS if outer else 0)

    def offsets(self) -> dict[tuple[str, int], int]:
        """next_offset by (topic, partition)."""
        with explain_errors(self.path):
            return load_offsets(self._db)

    def next_offset(self) -> int:
        """next_offset of the partition's own topic."""
        return self.offsets().get((self.meta["topic"], int(self.meta["partition"])), 0)

    def spaces(self, account_id: str | None = None) -> list[SpaceRecord]:
        """The spaces of an account, or all of them, ordered by key."""
        rows = self.query(
            "SELECT space_id, account_id, object_type, descriptor_type, version, dim, next_row, floor, "
            "duplicates, links_seen, deleted FROM spaces WHERE ? IS NULL OR account_id = ? "
            "ORDER BY account_id, object_type, descriptor_type, version",
            (account_id, account_id),
        )
        return [SpaceRecord(row[0], SpaceKey(*row[1:5]), *row[5:]) for row in rows]

    def matching(self, space_id: int) -> dict[str, Any]:
        """Engine that found the links of a space, and the recall it measured; `exact` when all were found."""
        for (text,) in self.query("SELECT matching FROM spaces WHERE space_id = ?", (space_id,)):
            if text is not None:
                found: dict[str, Any] = json.loads(text)
                return found
        return {"engine": "exact", "recall": None}

    def links(self, space_id: int, above: float) -> Links:
        """Forest links with a similarity strictly greater than `above`: their components are the clusters."""
        with explain_errors(self.path):
            return read_links(self._db, space_id, above=above)

    def link_counts(self, space_id: int) -> tuple[int, int]:
        """(links of the compacted forest, links that wait to be merged)."""
        with explain_errors(self.path):
            return link_counts(self._db, space_id)

    def codes(self, space: SpaceRecord, rows: npt.NDArray[np.uint32]) -> Codes:
        """Codes of the given rows, shape (len(rows), dim), in the order given."""
        with explain_errors(self.path):
            return gather_codes(self._db, space.space_id, space.dim, rows)

    def link_chunks(self, space_id: int) -> Iterator[tuple[int, bool, Links]]:
        """(sequence number, whether it is of the compacted forest, links) of each chunk of a space."""
        merged = dict(self.query("SELECT seq, merged FROM links WHERE space_id = ?", (space_id,)))
        with explain_errors(self.path):
            for seq, links in link_chunks(self._db, space_id):
                yield seq, bool(merged[seq]), links

    @contextlib.contextmanager
    def connection(self) -> Iterator[sqlite3.Connection]:
        """The transaction itself, for the functions of `state.chunks`."""
        with explain_errors(self.path):
            yield self._db

    def counters(self, account_id: str | None = None) -> dict[tuple[str, str], int]:
        """Records by (result, reason), of one account or of the whole partition."""
        rows = self.query(
            "SELECT result, reason, sum(records) FROM counters WHERE ? IS NULL OR account_id = ? "
            "GROUP BY result, reason ORDER BY result, reason",
            (account_id, account_id),
        )
        return {(result, reason): records for result, reason, records in rows}

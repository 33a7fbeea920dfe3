"""The order of age of the objects of a space, which gives clusters their stable ids.

Oldest first: by create_time, those without one last, then by id. Snapshots select in the same order.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.components import Rows
from stream_cluster.graph.removal import marks
from stream_cluster.state.schema import ROW_MASK, object_key

Age = tuple[bool, int, str]
"""Compares as the order of age does: (has no create_time, create_time in microseconds, object id)."""

# To find the oldest of more rows than this, the index is read from its beginning until it names one of them.
_LOOK_UP_ROWS = 4096


def age_of(create_time_us: int | None, object_id: str) -> Age:
    """The age of an object."""
    return (create_time_us is None, create_time_us or 0, object_id)


def rows_by_age(connection: sqlite3.Connection, space_id: int) -> Iterator[int]:
    """Rows of all objects of a space, the oldest first."""
    # Two queries, because SQLite sorts NULL first and an index cannot put it last.
    for known in ("create_time_us IS NOT NULL", "create_time_us IS NULL"):
        yield from (
            key & ROW_MASK
            for (key,) in connection.execute(
                f"SELECT key FROM objects WHERE space_id = ? AND {known} ORDER BY create_time_us, object_id",
                (space_id,),
            )
        )


class Ages:
    """Ages of rows of one space: as stored, but for what a batch that is not stored yet changes."""

    def __init__(
        self, connection: sqlite3.Connection, space_id: int, create_times: Mapping[int, int | None]
    ) -> None:
        """`create_times` are the new ones of some rows, in microseconds since the epoch."""
        self._db = connection
        self._space_id = space_id
        self._create_times = create_times
        self._known: dict[int, Age] = {}

    def add(self, row: int, create_time_us: int | None, object_id: str) -> None:
        """Tell of an object that is not stored yet."""
        self._known[row] = age_of(self._create_times.get(row, create_time_us), object_id)

    def load(self, rows: npt.NDArray[np.integer]) -> None:
        """Look up those of the rows that are not known yet."""
        wanted = [row for row in rows.tolist() if row not in self._known]
        if wanted:
            keys = json.dumps([object_key(self._space_id, row) for row in wanted])
            for key, create_time_us, object_id in self._db.execute(
                "SELECT key, create_time_us, object_id FROM objects "
                "WHERE key IN (SELECT value FROM json_each(?))",
                (keys,),
            ):
                self.add(key & ROW_MASK, create_time_us, object_id)

    def of(self, row: int) -> Age:
        """The age of a row that was loaded or added."""
        return self._known[row]

    def id_of(self, row: int) -> str:
        """The object id of a row that was loaded or added."""
        return self._known[row][2]

    def oldest(self, rows: Rows) -> int:
        """The row of the oldest among stored objects; it is loaded afterwards."""
        if len(rows) > _LOOK_UP_ROWS:
            rows = self._candidates(rows)
        self.load(rows)
        return min((int(row) for row in rows), key=self.of)

    def _candidates(self, rows: Rows) -> Rows:
        """A few of the rows, the oldest among them: that by the index, and those whose age changes."""
        changed = np.fromiter(self._create_times, np.int64, len(self._create_times))
        is_wanted = marks(rows, int(max(rows.max(), changed.max(initial=0))) + 1)
        candidates = changed[is_wanted[changed]].tolist()
        is_wanted[changed] = False
        n_rows = len(is_wanted)
        for row in rows_by_age(self._db, self._space_id):
            if row < n_rows and is_wanted[row]:
                candidates.append(row)
                break
        return np.array(candidates, np.uint32)

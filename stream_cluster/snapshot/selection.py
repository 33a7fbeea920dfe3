"""Which objects a task is about, in order of age."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.model import Interrupt
from stream_cluster.snapshot.filters import Condition, where_clause
from stream_cluster.state.schema import ROW_MASK
from stream_cluster.state.view import PartitionView, SpaceRecord


class PackedStrings:
    """A list of strings in one block of bytes: a million ids take 45 MB and not 100."""

    def __init__(self, strings: Iterable[str] = ()) -> None:
        """Pack strings, consumed one at a time."""
        self._bytes = bytearray()
        self._ends = array("Q", [0])
        for string in strings:
            self.append(string)

    def append(self, string: str) -> None:
        """Add one at the end."""
        self._bytes += string.encode()
        self._ends.append(len(self._bytes))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        return self._bytes[self._ends[index] : self._ends[index + 1]].decode()

    def __iter__(self) -> Iterator[str]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, slots=True)
class Selection:
    """Objects of one space, oldest first: by create_time (unknown last), then by id.

    The order does not depend on the order of arrival, so nothing made from positions does.
    """

    space: SpaceRecord
    rows: npt.NDArray[np.uint32]
    """Row of each position, shape (n,)."""
    ids: PackedStrings
    """Object id of each position."""
    tracks: npt.NDArray[np.int64] | None
    """Number of each position's track, -1 for none; None when the task does not use tracks."""
    in_space: int
    """Objects of the space, selected or not."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def is_whole_space(self) -> bool:
        """Whether nothing was left out."""
        return len(self.rows) == self.in_space


def select(
    view: PartitionView,
    space: SpaceRecord,
    conditions: Sequence[Condition],
    *,
    with_tracks: bool,
    interrupt: Interrupt,
) -> Selection:
    """The objects of a space that meet all conditions."""
    where, parameters = where_clause(space, conditions)
    columns = f"key & {ROW_MASK}, object_id" + (", track_id" if with_tracks else "")
    rows = array("I")
    ids = PackedStrings()
    tracks = array("q")
    track_numbers: dict[str, int] = {}
    # Two queries, because SQLite sorts NULL first and an index cannot put it last.
    for known in ("create_time_us IS NOT NULL", "create_time_us IS NULL"):
        sql = f"SELECT {columns} FROM objects WHERE {where} AND {known} ORDER BY create_time_us, object_id"
        for row, object_id, *track in view.query(sql, parameters):
            rows.append(row)
            ids.append(object_id)
            if with_tracks:
                track_id = track[0]
                tracks.append(
                    -1 if track_id is None else track_numbers.setdefault(track_id, len(track_numbers))
                )
            if len(rows) % 65_536 == 0:
                interrupt.check()
    in_space = next(view.query("SELECT count(*) FROM objects WHERE space_id = ?", [space.space_id]))[0]
    return Selection(
        space,
        np.frombuffer(rows, np.uint32) if rows else np.empty(0, np.uint32),
        ids,
        (np.frombuffer(tracks, np.int64) if tracks else np.empty(0, np.int64)) if with_tracks else None,
        in_space,
    )

"""Which objects a task is about, in order of age."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
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
    removed_by_filter: Mapping[str, int]
    """Objects left out, by the first filter that they do not meet; the values add up to what was left out."""
    dated_after_the_task: int
    """Those of them that only the default of create_time__lt left out."""

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
    read_time_us: int | None = None,
) -> Selection:
    """The objects of a space that meet all conditions.

    `read_time_us` is the default of `create_time__lt`, for objects with a time; None: no default.

    Raises:
        Cancelled, TaskError: asked to stop.
    """
    future_objects = 0
    applied = list(conditions)
    with view.stoppable(interrupt):
        if read_time_us is not None and not any(one.name == "create_time__lt" for one in conditions):
            future_objects = _count(view, space, [*conditions, _dated(">=", read_time_us)])
            # Usually nothing lies in the future; then the bound is left out, so that the whole space is
            # recognised as such and the archive does not depend on when the task was read.
            if future_objects:
                applied.append(_dated("<", read_time_us))
        rows, ids, tracks = _read(view, space, applied, with_tracks=with_tracks)
        in_space = _count(view, space, []) if applied else len(rows)
        # Last of all filters, as it is no filter of the task.
        removed = _removed(view, space, conditions, in_space, len(rows) + future_objects)
    if future_objects:
        removed["create_time__lt"] = future_objects
    return Selection(space, rows, ids, tracks, in_space, removed, future_objects)


def count_without_descriptor(view: PartitionView, space: SpaceRecord) -> int:
    """Objects of the same type and account that are in other spaces alone."""
    key = space.key
    others = [
        one.space_id
        for one in view.spaces(key.account_id)
        if one.key.object_type == key.object_type and one.space_id != space.space_id and one.objects
    ]
    if not others:
        return 0
    sql = (
        "SELECT count(DISTINCT object_id) FROM objects AS other "
        "WHERE space_id IN (SELECT value FROM json_each(?)) AND NOT EXISTS "
        "(SELECT 1 FROM objects AS own WHERE own.space_id = ? AND own.object_id = other.object_id)"
    )
    return int(next(view.query(sql, (msgspec.json.encode(others).decode(), space.space_id)))[0])


def _read(
    view: PartitionView, space: SpaceRecord, conditions: Sequence[Condition], *, with_tracks: bool
) -> tuple[npt.NDArray[np.uint32], PackedStrings, npt.NDArray[np.int64] | None]:
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
    return (
        np.frombuffer(rows, np.uint32) if rows else np.empty(0, np.uint32),
        ids,
        (np.frombuffer(tracks, np.int64) if tracks else np.empty(0, np.int64)) if with_tracks else None,
    )


def _dated(operator: str, time_us: int) -> Condition:
    """Objects before or after a time; those without a date are before every time."""
    unknown = "create_time_us IS NULL OR " if operator == "<" else ""
    return Condition("create_time__lt", f"({unknown}create_time_us {operator} ?)", (time_us,), by_time=True)


def _count(view: PartitionView, space: SpaceRecord, conditions: Sequence[Condition]) -> int:
    where, parameters = where_clause(space, conditions)
    return int(next(view.query(f"SELECT count(*) FROM objects WHERE {where}", parameters))[0])


def _removed(
    view: PartitionView, space: SpaceRecord, conditions: Sequence[Condition], in_space: int, left: int
) -> dict[str, int]:
    """How many objects each condition leaves out of those that meet all before it.

    `left` objects meet all conditions. Bounds of the time are counted in the index, one after the other; what
    the last condition leaves out follows from the others, and those between share one pass over the objects.
    """
    by_time = [one for one in conditions if one.by_time]
    others = [one for one in conditions if not one.by_time]
    removed: dict[str, int] = {}
    meeting = in_space
    for end, condition in enumerate(by_time, 1):
        is_last = end == len(conditions)
        now_meeting = left if is_last else _count(view, space, by_time[:end])
        removed[condition.name] = meeting - now_meeting
        meeting = now_meeting
    if len(others) > 1:
        for condition, count in zip(others, _first_unmet(view, space, by_time, others[:-1]), strict=False):
            removed[condition.name] = count
            meeting -= count
    if others:
        removed[others[-1].name] = meeting - left
    return removed


def _first_unmet(
    view: PartitionView, space: SpaceRecord, within: Sequence[Condition], conditions: Sequence[Condition]
) -> tuple[int, ...]:
    """For each condition, how many objects that meet those of `within` and all before it do not meet it."""
    where, parameters = where_clause(space, within)
    cases = " ".join(f"WHEN {one.sql} IS NOT TRUE THEN {number}" for number, one in enumerate(conditions))
    counts = ", ".join(f"count(*) FILTER (WHERE unmet = {number})" for number in range(len(conditions)))
    # With a LIMIT the inner query is not merged into the outer one, where each count would test each object.
    sql = f"SELECT {counts} FROM (SELECT CASE {cases} END AS unmet FROM objects WHERE {where} LIMIT -1)"
    tested = [value for condition in conditions for value in condition.parameters]
    return next(view.query(sql, [*tested, *parameters]))

"""Which objects a task is about, in order of age."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from stream_cluster.graph.apart import Apart
from stream_cluster.model import Interrupt
from stream_cluster.snapshot.filters import Condition, where_clause
from stream_cluster.state.schema import ROW_MASK
from stream_cluster.state.view import PartitionView, SpaceRecord

UNKNOWN_TIME = int(np.iinfo(np.int64).min)
"""Stands for no time; before all others."""


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
    times_us: npt.NDArray[np.int64]
    """Creation time of each position, microseconds since the epoch; UNKNOWN_TIME without one. Shape (n,)."""
    tracks: npt.NDArray[np.int64] | None
    """Number of each position's track, -1 for none; None when the task does not use tracks."""
    low: npt.NDArray[np.bool_] | None
    """Whether each position's quality is below the task's `min_quality`; None when it has none."""
    apart: Apart | None
    """Positions that one frame shows, of different people; None when the task does not ask for it."""
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
    min_quality: float | None = None,
    with_frames: bool = False,
) -> Selection:
    """The objects of a space that meet all conditions.

    `with_tracks`, `min_quality`, `with_frames` ask for `tracks`, `low` and `apart` of the selection.
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
        read = _Reader(with_tracks, min_quality, with_frames)
        rows, ids = read.objects(view, space, applied)
        in_space = _count(view, space, []) if applied else len(rows)
        # Last of all filters, as it is no filter of the task.
        removed = _removed(view, space, conditions, in_space, len(rows) + future_objects)
    if future_objects:
        removed["create_time__lt"] = future_objects
    return Selection(
        space,
        rows,
        ids,
        read.times_us(),
        read.tracks(),
        read.low(),
        read.apart(),
        in_space,
        removed,
        future_objects,
    )


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


class _Reader:
    """Reads the chosen objects, and collects what the task needs of each."""

    def __init__(self, with_tracks: bool, min_quality: float | None, with_frames: bool) -> None:
        self._with_tracks = with_tracks
        self._with_frames = with_frames
        # A number of ours, written so that SQLite reads the very same.
        self._is_low = "0" if min_quality is None else low_quality_sql(min_quality)
        self._low: array[int] | None = None if min_quality is None else array("b")
        self._times_us = array("q")
        self._tracks = array("q")
        self._track_numbers: dict[str, int] = {}
        self._frames = bytearray()
        self._in_frame = array("q")

    def objects(
        self, view: PartitionView, space: SpaceRecord, conditions: Sequence[Condition]
    ) -> tuple[npt.NDArray[np.uint32], PackedStrings]:
        """Rows and ids of the objects that meet the conditions, in order of age."""
        where, parameters = where_clause(space, conditions)
        columns = f"key & {ROW_MASK}, object_id, coalesce(create_time_us, {UNKNOWN_TIME}), "
        # What is not wanted is not read: the index has the rest without the objects themselves.
        columns += "track_id, " if self._with_tracks or self._with_frames else "NULL, "
        columns += "source, frame_id, " if self._with_frames else "NULL, NULL, "
        columns += self._is_low
        wants_more = self._with_tracks or self._with_frames or self._low is not None
        rows = array("I")
        ids = PackedStrings()
        # Two queries, because SQLite sorts NULL first and an index cannot put it last.
        for known in ("create_time_us IS NOT NULL", "create_time_us IS NULL"):
            sql = (
                f"SELECT {columns} FROM objects WHERE {where} AND {known} ORDER BY create_time_us, object_id"
            )
            for row, object_id, time_us, track_id, source, frame_id, is_low in view.query(sql, parameters):
                rows.append(row)
                ids.append(object_id)
                self._times_us.append(time_us)
                if wants_more:
                    self._take(len(ids) - 1, track_id, source, frame_id, is_low)
        return np.frombuffer(rows, np.uint32) if rows else np.empty(0, np.uint32), ids

    def _take(
        self, position: int, track_id: str | None, source: str | None, frame_id: str | None, is_low: int
    ) -> None:
        if self._low is not None:
            self._low.append(is_low)
        numbers = self._track_numbers
        self._tracks.append(-1 if track_id is None else numbers.setdefault(track_id, len(numbers)))
        if source is not None and frame_id is not None:
            # 16 bytes an object, where a dictionary of the names would take 300.
            name = f"{len(source)}:{source}{frame_id}".encode()
            self._frames += hashlib.blake2b(name, digest_size=16).digest()
            self._in_frame.append(position)

    def times_us(self) -> npt.NDArray[np.int64]:
        """Time of each object."""
        return _int64(self._times_us)

    def tracks(self) -> npt.NDArray[np.int64] | None:
        """Track of each object, if wanted."""
        return _int64(self._tracks) if self._with_tracks else None

    def low(self) -> npt.NDArray[np.bool_] | None:
        """Which objects are of low quality, if wanted."""
        if self._low is None:
            return None
        return np.frombuffer(self._low, np.int8).astype(np.bool_) if self._low else np.empty(0, np.bool_)

    def apart(self) -> Apart | None:
        """Who is in one frame, if wanted. An object without a track is a person of its own."""
        if not self._with_frames:
            return None
        positions, tracks = _int64(self._in_frame), _int64(self._tracks)
        halves = np.frombuffer(bytes(self._frames), np.uint64).reshape(-1, 2)
        order = np.lexsort((halves[:, 1], halves[:, 0]))
        halves = halves[order]
        is_new = np.ones(len(halves), np.bool_)
        is_new[1:] = (halves[1:] != halves[:-1]).any(axis=1)
        people = np.where(tracks < 0, len(self._track_numbers) + np.arange(len(tracks)), tracks)
        return Apart(positions[order], np.cumsum(is_new) - 1, people[positions[order]])


def _int64(values: array[int]) -> npt.NDArray[np.int64]:
    return np.frombuffer(values, np.int64) if values else np.empty(0, np.int64)


def low_quality_sql(min_quality: float) -> str:
    """An expression that is 1 for an object of lower quality, else 0. An object without a quality passes."""
    return f"coalesce(quality < {min_quality!r}, 0)"


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

"""What the page says of objects beside their ids: times, cameras, qualities; tracks of those it lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from stream_cluster.model import Interrupt
from stream_cluster.snapshot.selection import Selection
from stream_cluster.state.schema import ROW_MASK, object_key
from stream_cluster.state.view import PartitionView

UNKNOWN_TIME = np.iinfo(np.int64).min
MOST_SOURCES = 4096
_BLOCK = 8192
# A selection of at least this share of a space is read in one pass over the space, else by key.
_SCAN_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of the positions 0..n-1 of a selection."""

    time_us: npt.NDArray[np.int64]
    """Creation time, microseconds since the epoch; UNKNOWN_TIME without one. Shape (n,)."""
    source: npt.NDArray[np.int32]
    """Index into `sources`; -1 for none, and for one beyond the first MOST_SOURCES. Shape (n,)."""
    sources: Sequence[str]
    """The sources there are, in order of their oldest object."""
    quality: npt.NDArray[np.float32]
    """Quality of the descriptor; NaN without one. Shape (n,)."""


def read_facts(view: PartitionView, selection: Selection, interrupt: Interrupt) -> Facts:
    """Facts of all selected objects.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    n = len(selection)
    facts = Facts(
        np.full(n, UNKNOWN_TIME, np.int64), np.full(n, -1, np.int32), [], np.full(n, np.nan, np.float32)
    )
    position_of = np.full(selection.space.next_row, -1, np.int64)
    position_of[selection.rows] = np.arange(n)
    names: dict[str, int] = {}
    with view.stoppable(interrupt):
        rows = _scan(view, selection) if _is_large(selection) else _look_up(view, selection)
        while block := list(islice(rows, _BLOCK)):
            row, time_us, source, quality = zip(*block, strict=True)
            position = position_of[np.array(row, np.int64)]
            keep = position >= 0
            at = position[keep]
            facts.time_us[at] = np.array([UNKNOWN_TIME if t is None else t for t in time_us], np.int64)[keep]
            facts.quality[at] = np.array(quality, np.float32)[keep]
            numbers = [-1 if name is None else names.setdefault(name, len(names)) for name in source]
            facts.source[at] = np.array(numbers, np.int32)[keep]
    return _in_order(facts, list(names))


def _is_large(selection: Selection) -> bool:
    return len(selection) >= _SCAN_SHARE * selection.space.next_row


_COLUMNS = f"key & {ROW_MASK}, create_time_us, source, quality"


def _scan(view: PartitionView, selection: Selection) -> Iterator[tuple[Any, ...]]:
    space_id = selection.space.space_id
    sql = f"SELECT {_COLUMNS} FROM objects WHERE key >= ? AND key < ?"
    return view.query(sql, (object_key(space_id, 0), object_key(space_id + 1, 0)))


def _look_up(view: PartitionView, selection: Selection) -> Iterator[tuple[Any, ...]]:
    for begin in range(0, len(selection), _BLOCK):
        yield from _by_keys(view, selection, np.arange(begin, min(begin + _BLOCK, len(selection))), _COLUMNS)


def _by_keys(
    view: PartitionView, selection: Selection, positions: npt.NDArray[np.int64], columns: str
) -> Iterator[tuple[Any, ...]]:
    keys = [object_key(selection.space.space_id, row) for row in selection.rows[positions].tolist()]
    sql = f"SELECT {columns} FROM objects WHERE key IN (SELECT value FROM json_each(?))"
    return view.query(sql, [msgspec.json.encode(keys).decode()])


def _in_order(facts: Facts, names: list[str]) -> Facts:
    """Sources numbered by their oldest object, so that nothing depends on the order of arrival."""
    first = np.full(len(names), len(facts.source), np.int64)
    known = np.flatnonzero(facts.source >= 0)
    np.minimum.at(first, facts.source[known], known)
    ranking = np.argsort(first, kind="stable")
    number_of = np.empty(len(names), np.int32)
    number_of[ranking] = np.arange(len(names), dtype=np.int32)
    number_of[number_of >= MOST_SOURCES] = -1
    source = np.full(len(facts.source), -1, np.int32)
    source[known] = number_of[facts.source[known]]
    # A source of the space that no selected object has comes last, and is none of the selection's.
    used = int((first < len(facts.source)).sum())
    sources = [names[number] for number in ranking[: min(used, MOST_SOURCES)].tolist()]
    return Facts(facts.time_us, source, sources, facts.quality)


def read_tracks(
    view: PartitionView, selection: Selection, positions: npt.NDArray[np.int64], interrupt: Interrupt
) -> list[str | None]:
    """The track of each of these positions, in that order.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    tracks: list[str | None] = []
    with view.stoppable(interrupt):
        for begin in range(0, len(positions), _BLOCK):
            block = positions[begin : begin + _BLOCK]
            found = dict(_by_keys(view, selection, block, f"key & {ROW_MASK}, track_id"))
            tracks += [found[row] for row in selection.rows[block].tolist()]
    return tracks

"""What a state directory holds, read beside a running service or without one; nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_cluster.errors import InputError
from stream_cluster.state.database import database_path
from stream_cluster.state.schema import key_range
from stream_cluster.state.view import PartitionView, SpaceRecord

_PATTERN = "partition-*.sqlite"


@dataclass(frozen=True, slots=True)
class SpaceReport:
    """One space."""

    record: SpaceRecord
    merged_links: int
    """Links of the compacted forest."""
    pending_links: int
    """Links that wait to be merged into it."""
    code_bytes: int
    matching: Mapping[str, Any]
    """Engine that found the links, and the recall it measured."""


@dataclass(frozen=True, slots=True)
class PartitionReport:
    """One partition's database at one point."""

    path: Path
    meta: Mapping[str, str]
    next_offsets: Mapping[tuple[str, int], int]
    """By (topic, partition): first offset to read after a restart."""
    spaces: list[SpaceReport]
    records: Mapping[tuple[str, str], int]
    """Records by (result, reason)."""
    tasks: Mapping[str, int]
    """Tasks by status."""
    database_bytes: int
    wal_bytes: int
    """Of the write-ahead log, which holds the latest commits."""


def inspect_directory(directory: Path) -> list[PartitionReport]:
    """A report of each partition, by number.

    Raises:
        InputError: the directory does not exist or holds no partition.
        StateCorrupt, StateFormatError, StateError: a database cannot be read; the message names it.
    """
    return [inspect_partition(path) for path in partition_paths(directory)]


def partition_paths(directory: Path, partition: int | None = None) -> list[Path]:
    """The databases of a state directory by number, or that of one partition. Raises InputError for none."""
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory, expected the state directory of a service")
    pattern = _PATTERN if partition is None else database_path(directory, partition).name
    paths = sorted(directory.glob(pattern), key=lambda path: (len(path.name), path.name))
    if not paths:
        raise InputError(f"{directory}: found no {pattern}, expected the state directory of a service")
    return paths


def inspect_partition(path: Path) -> PartitionReport:
    """A report of one database. Raises StateCorrupt, StateFormatError or StateError."""
    with PartitionView(path) as view:
        tasks: Counter[str] = Counter()
        for status, count in view.query("SELECT status, count(*) FROM tasks GROUP BY status ORDER BY status"):
            tasks[status] = count
        return PartitionReport(
            path=path,
            meta=view.meta,
            next_offsets=view.offsets(),
            spaces=[_space(view, record) for record in view.spaces()],
            records=view.counters(),
            tasks=tasks,
            database_bytes=path.stat().st_size,
            wal_bytes=_size(path.with_name(f"{path.name}-wal")),
        )


def _space(view: PartitionView, record: SpaceRecord) -> SpaceReport:
    # SQLite knows the length of a blob without reading it.
    sql = "SELECT coalesce(sum(length(data)), 0) FROM codes WHERE key BETWEEN ? AND ?"
    code_bytes = next(view.query(sql, key_range(record.space_id)))[0]
    matching = view.matching(record.space_id)
    return SpaceReport(record, *view.link_counts(record.space_id), code_bytes, matching)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

"""Whether a database is what it should be, to the last byte: slower than opening it, and thorough.

SQLite checks its own structure; then every chunk is read against its checksum, and the tables against each
other and against the invariants of the forest. Nothing is changed. All that is found is told, not only the
first of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream_cluster.errors import StateCorrupt
from stream_cluster.graph.components import connected_components
from stream_cluster.matching.codes import inverse_norms, pair_dots, similarities
from stream_cluster.model import Interrupt, Links, Progress, concatenate_links, no_progress
from stream_cluster.state.chunks import gather_codes, read_codes
from stream_cluster.state.schema import ROW_MASK, key_range
from stream_cluster.state.view import PartitionView, SpaceRecord

# Links whose similarity is computed again, of each space; evenly spread.
_SAMPLE_LINKS = 16_384
_STATUSES = ("pending", "in_progress", "done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Verified:
    """What was looked at, and what was found."""

    path: Path
    next_offset: int
    spaces: int
    objects: int
    links: int
    problems: list[str]
    """Empty when all is well."""


def verify_database(
    path: Path, interrupt: Interrupt | None = None, progress: Progress = no_progress
) -> Verified:
    """Look at all of a database, beside its writer or without one.

    Raises:
        StateError, StateFormatError, StateCorrupt: it cannot even be opened.
        Cancelled, TaskError: by `interrupt`.
    """
    interrupt = interrupt or Interrupt()
    with PartitionView(path) as view, view.stoppable(interrupt):
        spaces = view.spaces()
        problems: list[str] = []
        links = 0
        try:
            progress("structure", 0.0)
            problems += [text for (text,) in view.query("PRAGMA integrity_check(100)") if text != "ok"]
            problems += _totals(view)
        except StateCorrupt as error:
            problems.append(str(error))
        done, rows = 0, sum(space.next_row for space in spaces)
        for space in spaces:
            interrupt.check()
            progress("spaces", done / max(rows, 1))
            try:
                links += sum(view.link_counts(space.space_id))
                problems += [f"space {space.space_id}: {text}" for text in _space(view, space)]
            except StateCorrupt as error:
                problems.append(str(error))
            done += space.next_row
        return Verified(
            path, view.next_offset(), len(spaces), sum(space.objects for space in spaces), links, problems
        )


def _totals(view: PartitionView) -> Iterator[str]:
    """What concerns no space alone."""
    next_offset = view.next_offset()
    for (topic, partition), offset in view.offsets().items():
        if offset < 0:
            yield f"next_offset of {topic}/{partition}: found {offset}, expected 0 or more"
    records = sum(view.counters().values())
    if records > next_offset:
        yield f"found {records} counted records, expected at most next_offset = {next_offset}"
    orphans = next(
        view.query("SELECT count(*) FROM objects WHERE space_id NOT IN (SELECT space_id FROM spaces)")
    )[0]
    if orphans:
        yield f"found {orphans} objects of spaces that do not exist"
    marks = ", ".join("?" for _ in _STATUSES)
    for account, task_id, status in view.query(
        f"SELECT account_id, task_id, status FROM tasks WHERE status NOT IN ({marks})", _STATUSES
    ):
        yield f"task {task_id} of {account}: found status {status!r}, expected one of {', '.join(_STATUSES)}"


def _space(view: PartitionView, space: SpaceRecord) -> Iterator[str]:
    """Objects, codes and links of one space. Raises StateCorrupt when a chunk cannot be read."""
    keys = view.query("SELECT key FROM objects WHERE space_id = ? ORDER BY key", (space.space_id,))
    alive = np.fromiter((key & ROW_MASK for (key,) in keys), np.int64)
    if len(alive) != space.objects:
        yield f"found {len(alive)} objects, expected next_row - deleted = {space.objects}"
    first, last = key_range(space.space_id)
    outside = next(
        view.query(
            "SELECT count(*) FROM objects WHERE space_id = ? AND key NOT BETWEEN ? AND ?",
            (space.space_id, first, last),
        )
    )[0]
    if outside or (len(alive) and alive[-1] >= space.next_row):
        yield f"found objects with keys beyond row {space.next_row - 1}"
        return
    holds = np.zeros(space.next_row, np.bool_)
    holds[alive] = True
    yield from _codes(view, space, holds)
    yield from _links(view, space, holds)


def _codes(view: PartitionView, space: SpaceRecord, holds: npt.NDArray[np.bool_]) -> Iterator[str]:
    rows = left = 0
    with view.connection() as connection:
        for first_row, codes in read_codes(connection, space.space_id, space.dim):
            rows += len(codes)
            if rows <= space.next_row:
                left += int(codes[~holds[first_row:rows]].any(axis=1).sum())
    if rows != space.next_row:
        yield f"found codes of {rows} rows, expected {space.next_row}"
    if left:
        yield f"found {left} codes of deleted objects, expected zeros"


def _links(view: PartitionView, space: SpaceRecord, holds: npt.NDArray[np.bool_]) -> Iterator[str]:
    merged: list[Links] = []
    sample: list[Links] = []
    total = sum(view.link_counts(space.space_id))
    step = max(1, total // _SAMPLE_LINKS)
    for seq, is_merged, links in view.link_chunks(space.space_id):
        if not len(links):
            continue
        if (links.a >= links.b).any() or int(links.b.max()) >= space.next_row:
            yield f"links chunk {seq}: found links that do not lead from a lower to a higher row of the space"
            return
        if not (holds[links.a] & holds[links.b]).all():
            yield f"links chunk {seq}: found links of deleted objects"
        if is_merged:
            merged.append(links)
        elif _has_cycle(links):
            yield f"links chunk {seq}: found a cycle, expected a forest"
        sample.append(Links(links.a[::step], links.b[::step], links.similarity[::step]))
    if merged and _has_cycle(concatenate_links(merged)):
        yield "found a cycle among the merged links, expected a forest"
    if sample:
        with view.connection() as connection:
            some = concatenate_links(sample)
            a = gather_codes(connection, space.space_id, space.dim, some.a)
            b = gather_codes(connection, space.space_id, space.dim, some.b)
        wrong = int(
            (similarities(pair_dots(a, b), inverse_norms(a), inverse_norms(b)) != some.similarity).sum()
        )
        if wrong:
            yield f"found {wrong} of {len(some)} links whose similarity is not that of their codes"


def _has_cycle(links: Links) -> bool:
    """Whether some path leads back to where it began."""
    rows, ends = np.unique(np.concatenate([links.a, links.b]), return_inverse=True)
    a, b = ends[: len(links)].astype(np.uint32), ends[len(links) :].astype(np.uint32)
    labels = connected_components(len(rows), [(a, b)])
    return len(links) != len(rows) - (int(labels.max()) + 1)

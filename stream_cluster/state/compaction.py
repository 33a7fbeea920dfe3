"""Merging the links that wait into a space's spanning forest, beside ingest.

A batch only appends its own reduced links. When those that wait outnumber the forest, both are reduced to
one forest: MSF(A ∪ B) = MSF(MSF(A) ∪ MSF(B)). Each merge at least doubles what was there before, or follows
as many new links, so the cost per link is amortised. The work reads its chunks through a
connection of its own; only the short exchange of chunks happens in a batch's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.forest import maximum_spanning_forest
from stream_cluster.graph.removal import marks, without
from stream_cluster.model import Links
from stream_cluster.state.chunks import read_links, write_links
from stream_cluster.state.database import explain_errors, open_reader

# Below this a merge is not worth a transaction: a cut passes over so few links in no time.
MIN_PENDING_LINKS = 65_536


@dataclass(frozen=True, slots=True)
class Compaction:
    """A finished merge: `forest` replaces every chunk of the space up to and including `last_seq`."""

    space_id: int
    last_seq: int
    forest: Links


def is_due(merged_links: int, pending_links: int) -> bool:
    """Whether the links that wait should be merged."""
    return pending_links > max(MIN_PENDING_LINKS, merged_links)


def compact(path: Path, space_id: int) -> Compaction:
    """Merge all chunks that a space has now. Runs in any thread; changes nothing."""
    connection = open_reader(path)
    try:
        with explain_errors(path):
            last_seq = connection.execute(
                "SELECT coalesce(max(seq), 0) FROM links WHERE space_id = ?", (space_id,)
            ).fetchone()[0]
            links = read_links(connection, space_id, last_seq=last_seq)
    finally:
        connection.close()
    return Compaction(space_id, last_seq, maximum_spanning_forest(links))


def exchange(
    connection: sqlite3.Connection, compaction: Compaction, removed: Sequence[npt.NDArray[np.uint32]]
) -> None:
    """Put a finished merge in the place of the chunks it was made from. Call inside a transaction.

    `removed` are rows that were removed after the merge had begun. Leaving their links out now is enough: the
    links that each removal made necessary are in chunks of their own, after `last_seq`, and they are just
    those that the forest of all links lacked.
    """
    connection.execute(
        "DELETE FROM links WHERE space_id = ? AND seq <= ?", (compaction.space_id, compaction.last_seq)
    )
    forest = compaction.forest
    if removed and len(forest):
        rows = np.concatenate(removed)
        forest = without(forest, marks(rows, max(int(rows.max()), int(forest.b.max())) + 1))
    write_links(connection, compaction.space_id, forest, merged=True)


class Inline(Executor):
    """Runs what is submitted at once, in the caller's thread, for where there is no ingest to hold up."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

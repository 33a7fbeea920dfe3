"""Stages of a task that a test can hold, and what a task leaves behind."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

from stream_cluster.errors import Cancelled, TaskError
from stream_cluster.model import Interrupt
from stream_cluster.snapshot import archive, linkage, rematch, run
from stream_cluster.snapshot import request as requested
from stream_cluster.state.view import PartitionView

NOT_REACHED = 10**9
"""A barrier that no test gets to."""

ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


def bucket(server, **more):
    return {**server.overrides(), **more}


def archives(folder):
    """All files below the results and on their way there."""
    found = [*(folder / "results").rglob("*"), *(folder / "spool").rglob("*")]
    return [path for path in found if path.is_file()]


def file_of(status):
    return Path(unquote(urlsplit(status.archive.url).path))


def is_due(interrupt):
    """Whether the work is to stop."""
    try:
        interrupt.check()
    except (Cancelled, TaskError):
        return True
    return False


class Stall:
    """Holds a function of a stage until its task is asked to stop; then the function does its work."""

    def __init__(self, monkeypatch, module, name, instead=None):
        real = getattr(module, name)
        self.reached = False
        self.interrupt: Interrupt | None = None
        real_begin = Interrupt.__init__

        def begin(interrupt, *arguments, **more):
            real_begin(interrupt, *arguments, **more)
            self.interrupt = interrupt

        def stalled(*arguments, **more):
            self.reached = True
            while instead is None and not is_due(self.interrupt):
                time.sleep(0.005)
            return (instead or real)(*arguments, **more)

        monkeypatch.setattr(Interrupt, "__init__", begin)
        monkeypatch.setattr(module, name, stalled)


def endless_query(view, *arguments, **more):
    return list(view.query(ENDLESS))


STAGES = {
    "select": (requested, "select", None),
    "a query that sorts": (requested, "select", endless_query),
    "a query of codes": (PartitionView, "codes", endless_query),
    "match": (rematch, "all_pairs", None),
    "linkage": (linkage, "merge_above", None),
    "clusters from the forest": (run, "labels_from_forest", None),
    "numbers": (run, "number_clusters", None),
    "manifest": (run, "_manifest", None),
    "clusters": (archive, "_write_jsonl", None),
    "report": (archive, "_report", None),
    "digest": (archive, "_sha256", None),
}

"""What the tests of faults find out, and the file that it is committed in."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.environment import environment
from tests.support.archives import Archive

TOTALS = ("kills", "broker_restarts", "rebalances", "objects", "lost", "duplicated")
_RUNS_KEPT = 3


class Row:
    """The findings of one test."""

    def __init__(self, test: str) -> None:
        self.test = test
        """`test_file.py::test_name`, without parameters."""
        self.ready_s: float | None = None
        self.counts: Counter[str] = Counter()

    def ready(self, since: float) -> None:
        """It is ready now, and the fault was over at the monotonic time `since`. The longest time counts."""
        self.ready_s = max(self.ready_s or 0.0, time.monotonic() - since)

    def count(self, **counts: int) -> None:
        """Add to the totals; names as in `TOTALS`."""
        assert set(counts) <= set(TOTALS)
        self.counts.update(counts)

    def check(self, archive: Archive, expected: Sequence[Sequence[str]], duplicates: int = 0) -> None:
        """Hold an archive against the model: nothing lost, nothing doubled, and the clusters are right.

        `duplicates` are records that were sent twice on purpose.
        """
        there = Counter(object_id for members in archive.members for object_id in members)
        wanted = Counter(object_id for members in expected for object_id in members)
        doubled = archive.manifest["counts"]["duplicates"] - duplicates
        self.count(
            objects=wanted.total(),
            lost=(wanted - there).total(),
            duplicated=(there - wanted).total() + doubled,
        )
        assert (wanted - there, there - wanted, doubled) == (Counter(), Counter(), 0)
        assert archive.members == expected


def write_rows(path: Path, rows: Sequence[Row], seconds: float) -> None:
    """Write the findings of a run of all tests; what earlier runs took is kept beside them."""
    tests: dict[str, dict[str, Any]] = {}
    for row in rows:
        found = tests.setdefault(row.test, {"ready_s": None, "cases": 0, **dict.fromkeys(TOTALS, 0)})
        found["cases"] += 1
        found.update({name: found[name] + row.counts[name] for name in TOTALS})
        if row.ready_s is not None:
            found["ready_s"] = round(max(row.ready_s, found["ready_s"] or 0.0), 1)
    totals = {name: sum(found[name] for found in tests.values()) for name in TOTALS}
    run = {"seconds": round(seconds), "cases": len(rows), **totals}
    earlier = msgspec.json.decode(path.read_bytes())["results"]["runs"] if path.exists() else []
    report = {
        "environment": environment(),
        "results": {
            "runs": [*earlier, run][-_RUNS_KEPT:],
            "totals": totals,
            "tests": dict(sorted(tests.items())),
        },
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")

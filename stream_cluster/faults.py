"""Named places where a test may break the process: killed, stopped, out of disk, or slowed down.

Armed by the environment variable `STREAM_CLUSTER_FAULT` of the process, read once at its start:

    before_commit=kill@3, decode=delay:0.02, archive_rename=ENOSPC

Each item is `point=mode`, with the count of the hit that it strikes at after `@`: the first when there is
none. `delay` strikes at every hit. Modes are `kill` (SIGKILL to itself), `stop` (SIGSTOP to itself),
`delay:SECONDS`, `ENOSPC` and `EIO` (an OSError). Without the variable a point costs one look-up of a global,
and nothing else in the package knows of faults.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

VARIABLE = "STREAM_CLUSTER_FAULT"

FaultPoint = Literal[
    "partition_open",
    "decode",
    "match",
    "before_commit",
    "after_commit",
    "memory_update",
    "dead_letter_produce",
    "output_commit",
    "snapshot",
    "archive_sync",
    "archive_rename",
    "status_produce",
    "status_noted",
    "cache_write",
    "backup_upload",
    "backup_manifest",
]
"""The closed list. Each point is exercised by a test in tests/faults."""

POINTS: Mapping[FaultPoint, str] = MappingProxyType(
    {
        "partition_open": "a partition's state is about to be loaded",
        "decode": "records are about to be decoded",
        "match": "decoded, about to be matched",
        "before_commit": "everything is written, the transaction is not committed",
        "after_commit": "committed, nothing in memory has changed",
        "memory_update": "the first space's memory has changed, others have not",
        "dead_letter_produce": "rejected records are acknowledged, their batch is not committed",
        "output_commit": "records for others are acknowledged, their transaction is not committed",
        "snapshot": "a task has its view and is about to select",
        "archive_sync": "an archive is written under its temporary name, about to be synced",
        "archive_rename": "an archive is synced, about to get its name",
        "status_produce": "a status is about to be produced",
        "status_noted": "the last status is acknowledged, the state does not know it yet",
        "cache_write": "an index cache is about to be written",
        "backup_upload": "a block of a backup is about to be stored",
        "backup_manifest": "a backup is stored, and about to get the manifest that makes it one",
    }
)
"""What each point stands for; the table in docs/failure-modes.md."""

Mode = Literal["kill", "stop", "delay", "ENOSPC", "EIO"]
_ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO}


class Fault(NamedTuple):
    """What happens at a point, and when."""

    mode: Mode
    delay_s: float = 0.0
    at_hit: int | None = None
    """Strike at this hit, counted from 1; None for every hit."""


class Faults:
    """The faults of a process. Thread-safe."""

    def __init__(self, armed: Mapping[str, Fault]) -> None:
        self._armed = dict(armed)
        self._hits = dict.fromkeys(armed, 0)
        self._lock = threading.Lock()

    def hit(self, point: FaultPoint) -> None:
        """Strike if it is time. Raises OSError in the modes that stand for a failing disk."""
        fault = self._armed.get(point)
        if fault is None:
            return
        with self._lock:
            self._hits[point] += 1
            if fault.at_hit is not None and self._hits[point] != fault.at_hit:
                return
        if fault.mode == "delay":
            time.sleep(fault.delay_s)
        elif fault.mode in _ERRORS:
            code = _ERRORS[fault.mode]
            raise OSError(code, os.strerror(code))
        else:
            os.kill(os.getpid(), signal.SIGKILL if fault.mode == "kill" else signal.SIGSTOP)


def parse_faults(text: str) -> Faults | None:
    """The faults that a value of the variable asks for; None for an empty one. Raises ValueError."""
    armed: dict[str, Fault] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        point, equals, rest = item.partition("=")
        what, at, hit = rest.partition("@")
        mode, _, seconds = what.partition(":")
        if not equals or point not in POINTS or mode not in get_args(Mode):
            raise ValueError(
                f"{VARIABLE}: found {item!r}, expected POINT=MODE with a point of {', '.join(POINTS)} and a "
                f"mode of {', '.join(get_args(Mode))}"
            )
        at_hit = int(hit) if at else (None if mode == "delay" else 1)
        armed[point] = Fault(mode, float(seconds or 0), at_hit)  # type: ignore[arg-type]  # checked above
    return Faults(armed) if armed else None


# Read once, so that a point in production costs one comparison.
_faults = parse_faults(os.environ.get(VARIABLE, ""))


def fault_point(point: FaultPoint) -> None:
    """A place where a test may break this process. Raises OSError in the modes of a failing disk."""
    if _faults is not None:
        _faults.hit(point)

"""The service as a process of its own that also notes when each micro-batch became durable.

Settings come from the environment, like those of the service. The one argument is the file for the notes:
one JSON line per commit with the time, the partition, its next_offset and the seconds by stage.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from stream_cluster.config import load_settings
from stream_cluster.service.app import Service
from stream_cluster.service.logs import configure_logs
from stream_cluster.state.batch import Outcome


class Commit(msgspec.Struct, frozen=True):
    """One committed micro-batch."""

    time_s: float
    """Wall clock."""
    partition: int
    next_offset: int
    records: int
    objects: int
    links: int
    stage_s: dict[str, float]


async def _run(notes: Path) -> None:
    settings = load_settings(None, os.environ)
    configure_logs(settings.log)
    encode = msgspec.json.Encoder().encode
    with notes.open("wb", buffering=0) as file:

        def note(partition: int, outcome: Outcome) -> None:
            commit = Commit(
                time.time(),
                partition,
                outcome.next_offset,
                outcome.records,
                sum(outcome.objects.values()),
                sum(outcome.links.values()),
                dict(outcome.stage_s),
            )
            file.write(encode(commit) + b"\n")

        service = Service(settings, on_commit=note)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, service.stop)
        await service.run()


def read_commits(notes: Path) -> list[Commit]:
    """What a probe has noted so far."""
    lines = notes.read_bytes().splitlines() if notes.exists() else []
    return [msgspec.json.decode(line, type=Commit) for line in lines]


if __name__ == "__main__":
    asyncio.run(_run(Path(sys.argv[1])))

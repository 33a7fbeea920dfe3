"""What a backup costs ingest, and how soon a killed worker is ready again, with and without its disk.

    python -m benchmarks.backup [--resident 1000000] [--write benchmarks/results/backup.json]

The service starts on a state that holds resident objects already (see `benchmarks.stream`), and backs it up
again and again, with pauses between, while it reads a backlog of events that are each compared with all of
them. The service notes its commits, and a backup is under way while its copy is on the disk, until it is
stored; so the rates with and without a backup are of one run, in turns.

Then it is killed (SIGKILL) and started again, three times each: on its disk, and on an empty one, which it
restores from the newest backup. The time is from the start of the process until `/readyz` succeeds. Each
start has a consumer group of its own: a killed member stays in its group until its session ends.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.process import Measured
from benchmarks.report import write_report
from benchmarks.service_probe import Commit, read_commits
from benchmarks.service_run import (
    create_topic,
    events_topic,
    send_events,
    start_service,
    state_directory,
    wait_for,
)
from benchmarks.stream import write_resident
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker, start_broker

_NAME = "backup"
_POLL_S = 0.02
_READY_S = 120.0
_STARTS = 3

Spans = list[tuple[float, float]]


def follow(under_way: Callable[[], bool], stop: threading.Event) -> Spans:
    """When backups were under way: (begin, end) by the wall clock, until told to stop."""
    spans: Spans = []
    began: float | None = None
    while not stop.wait(_POLL_S):
        if under_way() != (began is not None):
            now = time.time()
            if began is not None:
                spans.append((began, now))
            began = None if began is not None else now
    if began is not None:
        spans.append((began, time.time()))
    return spans


def split_rate(commits: Sequence[Commit], spans: Spans, begin: float, end: float) -> dict[str, Any]:
    """Events a second inside and outside of the spans.

    The records of a commit count evenly over the time since the commit before it.
    """
    inside_s = sum(max(0.0, min(stop, end) - max(start, begin)) for start, stop in spans)
    inside = total = 0.0
    last = begin
    for commit in commits:
        if not begin < commit.time_s <= end:
            continue
        length = commit.time_s - last
        covered = sum(max(0.0, min(stop, commit.time_s) - max(start, last)) for start, stop in spans)
        inside += commit.records * covered / length
        total += commit.records
        last = commit.time_s
    outside_s = end - begin - inside_s
    if not inside_s or not outside_s:
        raise SystemExit("found no time with, or none without a backup, expected more events")
    with_per_s, without_per_s = inside / inside_s, (total - inside) / outside_s
    return {
        "backups": len(spans),
        "with_backup_s": round(inside_s, 2),
        "without_backup_s": round(outside_s, 2),
        "with_backup_per_s": round(with_per_s),
        "without_backup_per_s": round(without_per_s),
        "share": round(with_per_s / without_per_s, 3),
    }


class Run:
    """A service with backups in a directory, started again and again."""

    def __init__(self, broker: Broker, folder: Path, interval_s: float) -> None:
        self._broker = broker
        self._folder = folder
        self._starts = 0
        self.state = state_directory(folder, _NAME)
        self.backups = folder / "backups"
        self.log = folder / "log"
        self._interval_s = interval_s

    def start(self, **more: str) -> tuple[Measured, Path, int]:
        """(process, its notes, port of its probes)."""
        self._starts += 1
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "KAFKA__GROUP_ID": f"{_NAME}-{self._starts}",
            "BACKUP__DIRECTORY": str(self.backups),
            "BACKUP__INTERVAL_S": str(self._interval_s),
            "MATCHING__ENGINE": "exact",
            "HTTP__PORT": str(port),
            "LOG__LEVEL": "info",
            **more,
        }
        with self.log.open("wb") as log:
            process, notes = start_service(
                self._broker, self._folder, _NAME, settings, stdout=log, stderr=log
            )
        return process, notes, port

    def is_backing_up(self) -> bool:
        """Whether a copy is there, which is so until it is stored."""
        return any(self.state.glob("backup/copy-*.tmp"))

    def logged(self, event: str) -> Iterator[dict[str, Any]]:
        """Lines of the present process."""
        for line in self.log.read_text().splitlines():
            if f'"event": "{event}"' in line:
                yield json.loads(line)


def until_ready(process: Measured, port: int, began: float) -> float:
    """Seconds from `began` until the service is ready. Raises SystemExit."""
    while time.monotonic() - began < _READY_S:
        if process.process.poll() is not None:
            raise SystemExit(f"the service ended with status {process.process.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return time.monotonic() - began
        except (urllib.error.URLError, OSError):
            time.sleep(_POLL_S)
    raise SystemExit(f"not ready within {_READY_S:.0f} s")


def _kill(process: Measured) -> None:
    process.process.send_signal(signal.SIGKILL)
    process.wait()


def measure_ingest(run: Run, broker: Broker, events: list[tuple[bytes, bytes]]) -> dict[str, Any]:
    """The rate of a backlog while backups come and go; the process is killed at the end."""
    process, notes, _ = run.start()
    stop = threading.Event()
    spans: Spans = []
    follower = threading.Thread(target=lambda: spans.extend(follow(run.is_backing_up, stop)))
    try:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 5, "acks": "all"})
        producer.produce(events_topic(_NAME), events[0][1], events[0][0])
        producer.flush(60)
        wait_for(process.process, notes, 1)
        send_events(producer, events_topic(_NAME), events[1:], None)
        begin = time.time()
        follower.start()
        wait_for(process.process, notes, len(events))
        # Ends at a commit, so that no part of a batch is left out.
        end = read_commits(notes)[-1].time_s
        stored = list(run.logged("backup_stored"))
        # What starts without its disk has no more than the state to restore, and no log to read.
        while not any(line["next_offset"] == len(events) for line in run.logged("backup_stored")):
            if process.process.poll() is not None:
                raise SystemExit(f"the service ended with status {process.process.returncode}")
            time.sleep(_POLL_S * 10)
    finally:
        stop.set()
        _kill(process)
    follower.join()
    return {
        **split_rate(read_commits(notes), [span for span in spans if span[0] < end], begin, end),
        "backup_s": [one["seconds"] for one in stored],
        "backup_mb": round(stored[-1]["size_bytes"] / 1e6, 1),
        "peak_memory_mb": round(process.peak_bytes / 1e6, 1),
    }


def measure_start(run: Run, *, empty: bool) -> dict[str, Any]:
    """Seconds until a service that was killed is ready again, on its disk or on an empty one."""
    ready_s, open_s, restore_s = [], [], []
    for _ in range(_STARTS):
        if empty:
            shutil.rmtree(run.state)
        began = time.monotonic()
        process, _, port = run.start(BACKUP__INTERVAL_S="86400")
        try:
            ready_s.append(round(until_ready(process, port, began), 2))
            open_s += [line["seconds"] for line in run.logged("partition_opened")]
            restore_s += [line["seconds"] for line in run.logged("partition_restored")]
        finally:
            _kill(process)
    figures = {"ready_s": ready_s, "open_s": open_s}
    return {**figures, "restore_s": restore_s} if empty else figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.backup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--resident", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=60_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--interval-s", type=float, default=15.0, help="pause between two backups")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    chosen = parser.parse_args(arguments)
    before = environment()
    options = GenerateOptions(events=chosen.events + 1, dim=chosen.dim)
    events = [(record.key, record.value) for record in generate_events(options)]
    with start_broker() as broker, tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        run = Run(broker, Path(folder), chosen.interval_s)
        create_topic(broker, events_topic(_NAME))
        write_resident(run.state, events_topic(_NAME), chosen.resident, options, "faces")
        size = f"{chosen.resident:,} resident"
        results = {f"ingest, {size}": measure_ingest(run, broker, events)}
        results[f"start on its disk, {size}"] = measure_start(run, empty=False)
        results[f"start on an empty disk, {size}"] = measure_start(run, empty=True)
        kind = broker.description
    table = Table("run", "figure", "value", title="backups")
    for name, figures in results.items():
        for figure, value in figures.items():
            table.add_row(name, figure, str(value))
    Console().print(table)
    write_report(
        chosen.write,
        "backup",
        "make bench-backup",
        parameters={name: getattr(chosen, name) for name in ("resident", "events", "dim", "interval_s")},
        broker=kind.split(",")[0],
        environment=before,
        results=results,
    )


if __name__ == "__main__":
    main()

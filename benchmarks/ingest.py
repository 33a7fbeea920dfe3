"""Ingest through a real broker: events a second, time from produce to durable, memory, time by stage.

    python -m benchmarks.ingest [--events 20000] [--rate 1000] [--write benchmarks/results/ingest.json]

The broker, the producer and the service share the machine, as processes of their own. Two runs, each with an
empty state and topics of its own:

backlog   all events are sent as fast as the broker takes them; the rate is events divided by the time from
          the first send to the last durable commit.
paced     events are sent at --rate a second; the latency is from the call that sends an event to the commit
          that made it durable (fsync included).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.process import Measured, Usage
from benchmarks.service_probe import Commit, read_commits
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker, start_broker

_DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave."""

    sent_s: npt.NDArray[np.float64]
    """Wall clock of the call that sent each event, shape (events,)."""
    commits: list[Commit]
    usage: Usage
    """Of the service's process."""


def _start_service(broker: Broker, folder: Path, name: str) -> tuple[Measured, Path]:
    notes = folder / f"{name}.jsonl"
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "KAFKA__GROUP_ID": name,
        "KAFKA__EVENTS_TOPIC": f"{name}-events",
        "KAFKA__TASKS_TOPIC": f"{name}-tasks",
        "KAFKA__RESULTS_TOPIC": f"{name}-results",
        "KAFKA__DEAD_LETTER_TOPIC": f"{name}-dead-letter",
        "KAFKA__CREATE_TOPICS": "true",
        "KAFKA__PARTITIONS": "1",
        "KAFKA__REPLICATION_FACTOR": "1",
        "STATE__DIRECTORY": str(folder / name / "state"),
        "RESULTS__DIRECTORY": str(folder / name / "results"),
        "HTTP__HOST": "127.0.0.1",
        "HTTP__PORT": "0",
        "LOG__LEVEL": "warning",
    }
    variables = {f"STREAM_CLUSTER_{key}": value for key, value in settings.items()}
    command = [sys.executable, "-m", "benchmarks.service_probe", str(notes)]
    return Measured(command, env={**os.environ, **variables}), notes


def _send(producer: Producer, topic: str, events: list[tuple[bytes, bytes]], rate: float | None) -> Any:
    """Send all events, at `rate` a second when given. Returns the time of each call."""
    sent_s = np.empty(len(events))
    began = time.time()
    for number, (key, value) in enumerate(events):
        if rate is not None:
            while (wait_s := began + number / rate - time.time()) > 0:
                producer.poll(0)
                time.sleep(min(wait_s, 0.002))
        sent_s[number] = time.time()
        while True:
            try:
                producer.produce(topic, value, key)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush(60)
    return sent_s


def _run(
    broker: Broker, folder: Path, name: str, events: list[tuple[bytes, bytes]], rate: float | None
) -> Run:
    measured_process, notes = _start_service(broker, folder, name)
    process = measured_process.process
    try:
        # The first event is a warm-up of its own: it proves that the service reads.
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 5, "acks": "all"})
        deadline = time.monotonic() + _DEADLINE_S
        warm_up, measured = events[0], events[1:]
        while not (folder / name / "state").exists():
            _check(process, deadline)
            time.sleep(0.1)
        time.sleep(2.0)
        producer.produce(f"{name}-events", warm_up[1], warm_up[0])
        producer.flush(60)
        _wait_for(process, notes, 1, deadline)
        sent_s = _send(producer, f"{name}-events", measured, rate)
        _wait_for(process, notes, len(events), deadline)
    finally:
        process.send_signal(signal.SIGTERM)
        usage = measured_process.wait()
    if usage.returncode != 0:
        raise SystemExit(f"the service ended with status {usage.returncode}")
    return Run(sent_s, read_commits(notes)[1:], usage)


def _check(process: subprocess.Popen[bytes], deadline: float) -> None:
    if process.poll() is not None:
        raise SystemExit(f"the service ended with status {process.returncode}")
    if time.monotonic() > deadline:
        raise SystemExit(f"not done within {_DEADLINE_S:.0f} s")


def _wait_for(process: subprocess.Popen[bytes], notes: Path, offset: int, deadline: float) -> None:
    while not ((commits := read_commits(notes)) and commits[-1].next_offset >= offset):
        _check(process, deadline)
        time.sleep(0.05)


def summarise(run: Run) -> dict[str, Any]:
    """Figures of a run. Event i (from 0) has offset i + 1, after the warm-up."""
    ends = np.array([commit.next_offset for commit in run.commits])
    times = np.array([commit.time_s for commit in run.commits])
    durable_s = times[np.searchsorted(ends, np.arange(len(run.sent_s)) + 2)]
    latency_ms = (durable_s - run.sent_s) * 1000
    stage_s: Counter[str] = Counter()
    for commit in run.commits:
        stage_s.update(commit.stage_s)
    elapsed_s = float(durable_s[-1] - run.sent_s[0])
    return {
        "events": len(run.sent_s),
        "seconds": round(elapsed_s, 3),
        "events_per_s": round(len(run.sent_s) / elapsed_s),
        "latency_ms": {f"p{p}": round(float(np.percentile(latency_ms, p)), 1) for p in (50, 90, 99, 100)},
        "batches": len(run.commits),
        "records_per_batch": round(len(run.sent_s) / len(run.commits), 1),
        "objects": sum(commit.objects for commit in run.commits),
        "links": sum(commit.links for commit in run.commits),
        "stage_s": {stage: round(seconds, 3) for stage, seconds in stage_s.items()},
        "cpu_s": run.usage.cpu_s,
        "peak_memory_mb": round(run.usage.peak_memory_bytes / 1e6, 1),
    }


def _print(results: dict[str, dict[str, Any]]) -> None:
    table = Table(title="ingest")
    table.add_column("figure")
    for name in results:
        table.add_column(name, justify="right")
    for key in next(iter(results.values())):
        table.add_row(key, *(_text(result[key]) for result in results.values()))
    Console().print(table)


def _text(value: Any) -> str:
    return "\n".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000, help="events of each run")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second of the paced run")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    before = environment()
    options = GenerateOptions(events=arguments.events + 1, dim=arguments.dim)
    events = [(record.key, record.value) for record in generate_events(options)]
    results = {}
    with start_broker() as broker, tempfile.TemporaryDirectory() as folder:
        for name, rate in (("backlog", None), ("paced", arguments.rate)):
            results[name] = summarise(_run(broker, Path(folder), name, events, rate))
        kind = broker.description
    _print(results)
    if arguments.write is not None:
        report = {
            "benchmark": "ingest",
            "command": "make bench-ingest",
            "parameters": {"events": arguments.events, "dim": arguments.dim, "rate": arguments.rate},
            "broker": kind.split(",")[0],
            "environment": before,
            "results": results,
        }
        arguments.write.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

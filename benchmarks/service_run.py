"""A run of the whole service on a real broker: a process of its own, fed with events, timed from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from rich.console import Console
from rich.table import Table

from benchmarks.process import Measured, Usage
from benchmarks.service_probe import Commit, read_commits
from stream_cluster.sandbox import Broker

_DEADLINE_S = 300.0


@dataclass(frozen=True, slots=True)
class Run:
    """What one run gave."""

    sent_s: npt.NDArray[np.float64]
    """Wall clock of the call that sent each event, shape (events,)."""
    commits: list[Commit]
    usage: Usage
    """Of the service's process."""


def state_directory(folder: Path, name: str) -> Path:
    """Where the service of a run keeps its state."""
    return folder / name / "state"


def events_topic(name: str) -> str:
    """The topic of a run's events, which has one partition."""
    return f"{name}-events"


def start_service(
    broker: Broker, folder: Path, name: str, more: Mapping[str, str], **options: Any
) -> tuple[Measured, Path]:
    """Start the service of a run; its process, and where it notes its commits. Options as for Popen."""
    notes = folder / f"{name}.jsonl"
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "KAFKA__GROUP_ID": name,
        "KAFKA__EVENTS_TOPIC": events_topic(name),
        "KAFKA__TASKS_TOPIC": f"{name}-tasks",
        "KAFKA__RESULTS_TOPIC": f"{name}-results",
        "KAFKA__DEAD_LETTER_TOPIC": f"{name}-dead-letter",
        "KAFKA__CREATE_TOPICS": "true",
        "KAFKA__PARTITIONS": "1",
        "KAFKA__REPLICATION_FACTOR": "1",
        "STATE__DIRECTORY": str(state_directory(folder, name)),
        "RESULTS__DIRECTORY": str(folder / name / "results"),
        "HTTP__HOST": "127.0.0.1",
        "HTTP__PORT": "0",
        "LOG__LEVEL": "warning",
        **more,
    }
    variables = {f"STREAM_CLUSTER_{key}": value for key, value in settings.items()}
    command = [sys.executable, "-m", "benchmarks.service_probe", str(notes)]
    return Measured(command, env={**os.environ, **variables}, **options), notes


def send_events(producer: Producer, topic: str, events: list[tuple[bytes, bytes]], rate: float | None) -> Any:
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


def run_service(
    broker: Broker,
    folder: Path,
    name: str,
    events: list[tuple[bytes, bytes]],
    *,
    rate: float | None,
    settings: Mapping[str, str] | None = None,
) -> Run:
    """Start the service on topics of its own, send it events, wait until all are durable, stop it.

    Args:
        folder: for the state (see `state_directory`), results and notes.
        name: of the run; a second run with it would continue the first one.
        events: key and value of each. The first is a warm-up: it proves that the service reads.
        rate: events a second; None sends as fast as the broker takes them.
        settings: more settings, as variables without their prefix.

    Raises:
        SystemExit: the service ended, or did not come to the end in time.
    """
    create_topic(broker, events_topic(name))
    measured_process, notes = start_service(broker, folder, name, settings or {})
    process = measured_process.process
    try:
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 5, "acks": "all"})
        warm_up, measured = events[0], events[1:]
        producer.produce(events_topic(name), warm_up[1], warm_up[0])
        producer.flush(60)
        wait_for(process, notes, 1)
        sent_s = send_events(producer, events_topic(name), measured, rate)
        wait_for(process, notes, len(events))
    finally:
        process.send_signal(signal.SIGTERM)
        usage = measured_process.wait()
    if usage.returncode != 0:
        raise SystemExit(f"the service ended with status {usage.returncode}")
    return Run(sent_s, read_commits(notes)[1:], usage)


def create_topic(broker: Broker, topic: str) -> None:
    """A topic of one partition."""
    # Before anything is sent, which might make a topic of as many partitions as the broker's default.
    client = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    for future in client.create_topics([NewTopic(topic, 1, 1)]).values():
        future.result(60)


def _check(process: subprocess.Popen[bytes], deadline: float) -> None:
    if process.poll() is not None:
        raise SystemExit(f"the service ended with status {process.returncode}")
    if time.monotonic() > deadline:
        raise SystemExit(f"not done within {_DEADLINE_S:.0f} s")


def wait_for(process: subprocess.Popen[bytes], notes: Path, offset: int) -> None:
    """Return when everything below an offset is durable. Raises SystemExit."""
    deadline = time.monotonic() + _DEADLINE_S
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


def print_runs(title: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    """A table with a column for each run."""
    table = Table(title=title)
    table.add_column("figure")
    for name in results:
        table.add_column(name, justify="right")
    for key in next(iter(results.values())):
        table.add_row(key, *(_text(result[key]) for result in results.values()))
    Console().print(table)


def _text(value: Any) -> str:
    return "\n".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)

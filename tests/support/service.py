"""The service under test: inside this process, or as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_cluster.config import Settings, load_settings
from stream_cluster.sandbox import Broker
from stream_cluster.service.app import Service
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.state.partition import Partition
from tests.support import kafka
from tests.support.kafka import eventually, wait_until

COMMAND = "from stream_cluster.cli import main; main()"
START_S = 30
"""Longest that a start may take on a busy machine, in seconds."""


@dataclass(frozen=True)
class Topics:
    """The topics of one test. That of updates is made by those tests that need it."""

    events: str
    tasks: str
    results: str
    dead_letters: str
    updates: str
    partitions: int
    """Of the events topic."""

    @staticmethod
    def named(test: str, partitions: int = 1) -> Topics:
        """Names that no other test and no other run uses; nothing is created."""
        prefix = f"{test}.{uuid.uuid4().hex[:10]}"
        names = (f"{prefix}.{kind}" for kind in ("events", "tasks", "results", "dead-letter", "updates"))
        return Topics(*names, partitions=partitions)


async def make_topics(broker: Broker, test: str, partitions: int = 1) -> Topics:
    """Create the topics of a test."""
    topics = Topics.named(test, partitions)
    counts = {topics.events: partitions, topics.tasks: 2, topics.results: 2, topics.dead_letters: 1}
    await kafka.create_topics(broker.bootstrap_servers, counts)
    return topics


def overrides_of(broker: Broker, topics: Topics, folder: Path, **changes: Any) -> dict[str, Any]:
    """Settings for a test by dotted key. `changes` use two underscores: `ingest__batch_max_records=64`."""
    return {
        "kafka.bootstrap_servers": broker.bootstrap_servers,
        "kafka.group_id": topics.events,
        "kafka.events_topic": topics.events,
        "kafka.tasks_topic": topics.tasks,
        "kafka.results_topic": topics.results,
        "kafka.dead_letter_topic": topics.dead_letters,
        "kafka.updates_topic": topics.updates,
        "kafka.session_timeout_ms": 6000,
        "kafka.heartbeat_interval_ms": 300,
        "state.directory": str(folder / "state"),
        "results.directory": str(folder / "results"),
        "tasks.progress_interval_s": 0.05,
        "http.host": "127.0.0.1",
        "http.port": 0,
        **{name.replace("__", "."): value for name, value in changes.items()},
    }


class Worker:
    """A service inside this process."""

    def __init__(self, service: Service, running: asyncio.Task[None]) -> None:
        self.service = service
        self._running = running

    @property
    def settings(self) -> Settings:
        """What it runs with."""
        return self.service.settings

    def sample(self, name: str, **labels: str) -> float:
        """The present value of one metric, `stream_cluster_` left out."""
        value = self.service.metrics.registry.get_sample_value(f"stream_cluster_{name}", labels)
        assert value is not None, f"no metric {name} {labels}"
        return value

    def records(self) -> dict[str, int]:
        """Records applied since the start, by result."""
        results = ("accepted", "duplicate", "rejected")
        return {result: int(self.sample("records_total", result=result)) for result in results}

    async def applied(self, count: int, timeout_s: float = 30) -> None:
        """Return when that many records have been applied since the start."""
        results = ("accepted", "duplicate", "updated", "deleted", "unknown_object", "rejected")

        def total() -> float:
            return sum(self.sample("records_total", result=result) for result in results)

        await self.until(lambda: total() >= count, timeout_s, f"{count} records applied")

    async def until(self, predicate: Any, timeout_s: float, what: str) -> None:
        """`eventually`, but end at once with the service's own error when it has ended."""

        def holds() -> bool:
            if self._running.done():
                self._running.result()
            return bool(predicate())

        await eventually(holds, timeout_s, what)

    async def get(self, path: str) -> tuple[int, str]:
        """(status, body) of a path of its HTTP server."""
        return await http_get(self.service.http.port, path)

    async def stop(self) -> None:
        """Stop as SIGTERM does, and return when it has ended. Raises what ended it."""
        self.service.stop()
        await asyncio.wait_for(self._running, 20)

    async def ended(self, timeout_s: float = 20) -> BaseException | None:
        """Wait until it ends by itself; the error that ended it."""
        await asyncio.wait([self._running], timeout=timeout_s)
        assert self._running.done(), f"the service still runs after {timeout_s:g} s"
        return self._running.exception()


@asynccontextmanager
async def running_service(
    broker: Broker,
    topics: Topics,
    folder: Path,
    *,
    wait: bool = True,
    accept_gap: bool = False,
    **changes: Any,
) -> AsyncIterator[Worker]:
    """A service that is ready (unless `wait` is false), and is stopped at the end.

    State and results are kept in `folder`.
    """
    settings = load_settings(None, {}, overrides_of(broker, topics, folder, **changes))
    service = Service(settings, accept_gap=accept_gap)
    running = asyncio.create_task(service.run())
    worker = Worker(service, running)
    try:
        if wait:
            await worker.until(lambda: not service.ready_problems(), START_S, "the service to be ready")
        yield worker
    finally:
        service.stop()
        await asyncio.wait([running], timeout=20)
        assert running.done(), "the service did not stop within 20 s"
    # Outside of `finally`: the test's own failure says more than what it led to.
    if wait:
        running.result()


class EngineGate:
    """Holds every micro-batch before it is worked on, so that the test decides when the engine goes on."""

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        self._open = threading.Event()
        self.held = threading.Event()
        """Set when the first batch stands at the gate."""

    def __enter__(self) -> EngineGate:
        prepare = Partition.prepare

        def at_gate(partition: Partition, *arguments: Any) -> Any:
            if not self._open.is_set():
                self.held.set()
                assert self._open.wait(60), "the gate was never opened"
            return prepare(partition, *arguments)

        self._patch.setattr(Partition, "prepare", at_gate)
        return self

    def open(self) -> None:
        """Let it go on."""
        self._open.set()

    def __exit__(self, *_: object) -> None:
        self.open()
        self._patch.undo()


class FeedGate:
    """Holds fetched records before they are taken in; tasks are accepted meanwhile."""

    def __init__(self) -> None:
        self._patch = pytest.MonkeyPatch()
        self._held: list[tuple[Any, ...]] = []
        self._feed = PartitionRunner.feed

    def __enter__(self) -> FeedGate:
        self._patch.setattr(PartitionRunner, "feed", lambda *arguments: self._held.append(arguments))
        return self

    def held(self) -> int:
        """Records at the gate."""
        return sum(len(records) for _, records, _ in self._held)

    def open(self) -> None:
        """Let everything through, in order."""
        self._patch.undo()
        for arguments in self._held:
            self._feed(*arguments)
        self._held.clear()

    def __exit__(self, *_: object) -> None:
        self.open()


class ServiceProcess:
    """`stream-cluster run` in a process of its own. Its log goes to a file."""

    def __init__(
        self, overrides: Mapping[str, Any], log_path: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` are variables of its own, beside the settings."""
        self.log_path = log_path
        own = {
            f"STREAM_CLUSTER_{key.replace('.', '__').upper()}": str(value) for key, value in overrides.items()
        }
        inherited = {name: value for name, value in os.environ.items() if "STREAM_CLUSTER" not in name}
        with log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "run"],
                env={**inherited, **own, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> ServiceProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative when a signal ended it."""
        return self._process.poll()

    def log(self) -> str:
        """All that it has written."""
        return self.log_path.read_text(errors="replace")

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The complete log lines of one event, in order."""
        lines = [line for line in self.log().splitlines(keepends=True) if f'"event": "{event}"' in line]
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def wait_for(self, event: str, count: int = 1, timeout_s: float = START_S) -> None:
        """Return when an event has been logged `count` times."""

        def logged() -> bool:
            assert self.exit_code is None, f"ended with {self.exit_code}:\n{self.log()[-3000:]}"
            return len(self.logged(event)) >= count

        wait_until(logged, timeout_s, f"{count} x {event} in the log")

    def http_port(self) -> int:
        """The port of its HTTP server."""
        self.wait_for("service_starting")
        return int(self.logged("service_starting")[0]["http_port"])

    def kill(self) -> None:
        """SIGKILL, and return when it is gone."""
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> tuple[int, float]:
        """(exit code, seconds waited)."""
        began = time.monotonic()
        try:
            return self._process.wait(timeout_s), time.monotonic() - began
        except subprocess.TimeoutExpired:
            pytest.fail(f"the service still runs after {timeout_s:g} s:\n{self.log()[-3000:]}")


async def http_get(port: int, path: str) -> tuple[int, str]:
    """(status, body); (0, the error) when nobody listens."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
            session.get(f"http://127.0.0.1:{port}{path}") as response,
        ):
            return response.status, await response.text()
    except aiohttp.ClientError as error:
        return 0, str(error)


def parse_metrics(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Values by (name, labels) of a /metrics page."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

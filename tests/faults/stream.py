"""A stream of records that every test of faults reads, and the lives of a service over it.

The records are produced once. A test has topics of its own for tasks, statuses and dead letters, so
tests do not
meet; all archives are of the same events topic, so those of the same task are the same bytes.
"""

from __future__ import annotations

import asyncio
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stream_cluster.generate import GeneratedRecord, GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from stream_cluster.state.database import database_path
from stream_cluster.state.view import PartitionView
from tests.faults.record import Row
from tests.support import kafka
from tests.support.archives import expected_clusters, read_archive, sightings
from tests.support.client import ENDED, Client, archive_file, client_of, clustering
from tests.support.kafka import eventually
from tests.support.service import ServiceProcess, Topics, http_get, make_topics, overrides_of

ACCOUNT = "demo"
TASK = "after the fault"
THRESHOLD = 0.55
EVENTS = 640
LIMIT_BYTES = 40_000
SHORT_SESSION = {"kafka__session_timeout_ms": 1500, "kafka__heartbeat_interval_ms": 200}
"""A session that a test can wait for: what takes minutes with the defaults takes seconds with these."""
RECOVERY_S = 90.0
"""Longest that anything may take on a busy machine, in seconds."""


def task(task_id: str = TASK, **more: Any) -> dict[str, Any]:
    """The task that every test asks."""
    return clustering(
        task_id, ACCOUNT, threshold=THRESHOLD, report={"columns": ["create_time", "source"]}, **more
    )


def _all_but_the_engine(archive: bytes) -> dict[str, Any]:
    """The entries of an archive, and its manifest without the engine that found the links."""
    with zipfile.ZipFile(io.BytesIO(archive)) as entries:
        found: dict[str, Any] = {name: entries.read(name) for name in entries.namelist()}
    manifest = json.loads(found["manifest.json"])
    assert set(manifest.pop("matching")) >= {"engine", "recall"}
    return {**found, "manifest.json": manifest}


@dataclass(frozen=True)
class Stream:
    """What was produced, and what must come of it."""

    broker: Broker
    topics: Topics
    records: Sequence[GeneratedRecord]
    expected: list[list[str]]
    """Clusters at `THRESHOLD`, from the messages alone."""
    whole: bytes = b""
    """The archive of an uninterrupted run."""

    @property
    def bad_offsets(self) -> set[int]:
        """Offsets of the records that have to be rejected."""
        return {number for number, record in enumerate(self.records) if record.expected_reason is not None}

    @asynccontextmanager
    async def run(self, folder: Path, **changes: Any) -> AsyncIterator[Run]:
        """Topics, a client and settings of one test."""
        own = Topics.named("faults")
        counts = {own.tasks: 1, own.results: 1, own.dead_letters: 1}
        await kafka.create_topics(self.broker.bootstrap_servers, counts)
        topics = replace(own, events=self.topics.events)
        async with client_of(self.broker, topics) as client:
            yield Run(self, topics, client, folder, {**changes, "kafka__group_id": own.events})


async def make_stream(broker: Broker, folder: Path) -> Stream:
    """Produce the records, and let a service answer that nothing happens to."""
    options = GenerateOptions(
        events=EVENTS, people=EVENTS // 6, dim=64, bad_share=0.05, too_large_bytes=2 * LIMIT_BYTES
    )
    # One partition has no wrong one.
    options = replace(options, faults=tuple(fault for fault in options.faults if fault != "wrong_partition"))
    records = list(generate_events(options))
    topics = await make_topics(broker, "faults")
    async with client_of(broker, topics) as client:
        await client.produce(records)
    stream = Stream(broker, topics, records, expected_clusters(sightings(records, ACCOUNT), THRESHOLD))
    async with stream.run(folder) as run:
        await run.client.submit(task())
        with run.start() as process:
            status = await run.ended(process)
            await run.stop(process)
    return replace(stream, whole=archive_file(status).read_bytes())


@dataclass
class Run:
    """The lives of one service over a stream."""

    stream: Stream
    topics: Topics
    client: Client
    folder: Path
    changes: dict[str, Any]
    lives: int = 0

    def overrides(self, **changes: Any) -> dict[str, Any]:
        """Settings of a life."""
        usual = {
            **SHORT_SESSION,
            "ingest__batch_max_records": 32,
            "kafka__max_message_bytes": LIMIT_BYTES,
            "tasks__progress_interval_s": 60,
            "http__ready_max_lag_records": 0,
            "log__level": "debug",
        }
        every = {**usual, **self.changes, **changes}
        return overrides_of(self.stream.broker, self.topics, self.folder, **every)

    def start(
        self, fault: str | None = None, environment: Mapping[str, str] | None = None, **changes: Any
    ) -> ServiceProcess:
        """Begin a life, with a fault armed in it."""
        self.lives += 1
        own = {} if fault is None else {"STREAM_CLUSTER_FAULT": fault}
        log = self.folder / f"life-{self.lives}.log"
        return ServiceProcess(self.overrides(**changes), log, {**own, **(environment or {})})

    async def ready(self, process: ServiceProcess) -> None:
        """Return when it has caught up with the log."""
        port = await asyncio.to_thread(process.http_port)

        async def is_ready() -> bool:
            assert process.exit_code is None, f"ended with {process.exit_code}:\n{process.log()[-3000:]}"
            return (await http_get(port, "/readyz"))[0] == 200

        await eventually(is_ready, RECOVERY_S, "the service to be ready")

    async def metric(self, process: ServiceProcess, name: str, **labels: str) -> float:
        """The value of one of its metrics, `stream_cluster_` left out."""
        return (await self.metrics(process))[f"stream_cluster_{name}", frozenset(labels.items())]

    async def metrics(self, process: ServiceProcess) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """All its metrics."""
        from tests.support.service import parse_metrics  # noqa: PLC0415

        port = await asyncio.to_thread(process.http_port)
        return parse_metrics((await http_get(port, "/metrics"))[1])

    async def died(self, process: ServiceProcess) -> int:
        """Its exit code, once it has ended by itself."""
        code, _ = await asyncio.to_thread(process.wait, RECOVERY_S)
        return code

    async def ended(self, process: ServiceProcess, task_id: str = TASK) -> dict[str, Any]:
        """The last status of a task, which must be done."""

        def has_ended() -> bool:
            assert process.exit_code is None, f"ended with {process.exit_code}:\n{process.log()[-3000:]}"
            return any(status["status"] in ENDED for status in self.client.statuses(task_id))

        await eventually(has_ended, RECOVERY_S, f"the end of task {task_id}")
        status = await self.client.ended(task_id)
        assert status["status"] == "done", (status, process.log()[-3000:])
        return status

    async def stop(self, process: ServiceProcess) -> None:
        """End it as an operator does."""
        process.terminate()
        assert await self.died(process) == 0, process.log()[-3000:]

    async def recover(
        self,
        row: Row,
        *,
        same_bytes: bool = True,
        each: Callable[[ServiceProcess], None] = lambda process: None,
        **changes: Any,
    ) -> None:
        """Start again without a fault, and hold all that is there then against the uninterrupted run."""
        began = time.monotonic()
        with self.start(**changes) as process:
            await self.ready(process)
            row.ready(began)
            status = await self.ended(process)
            each(process)
            await self.stop(process)
        archive = read_archive(archive_file(status), status)
        row.check(archive, self.stream.expected)
        if same_bytes:
            found = archive_file(status).read_bytes()
            engine = {**self.changes, **changes}.get("matching__engine", "exact")
            # The uninterrupted run found all links; one that samples its recall says so in the manifest.
            parts = _all_but_the_engine if engine == "hnsw" else bytes
            assert parts(found) == parts(self.stream.whole)
        ends = [one for one in self.client.statuses(TASK) if one["status"] in ENDED]
        assert len(ends) == 1, "the task ended more than once"
        await self.check_dead_letters()
        self.check_counters()

    async def check_dead_letters(self) -> None:
        """Every bad record is there at least once, and no good one."""
        letters = await kafka.read_topic(self.stream.broker.bootstrap_servers, self.topics.dead_letters)
        offsets = {int(dict(letter.headers)["source-offset"]) for letter in letters}
        assert offsets == self.stream.bad_offsets

    def check_counters(self) -> None:
        """Every record counts once in the state."""
        directory = Path(self.overrides()["state.directory"])
        with PartitionView(database_path(directory, 0)) as view:
            counters = view.counters()
        good = len(self.stream.records) - len(self.stream.bad_offsets)
        assert counters.pop(("accepted", "")) == good
        assert {result for result, _ in counters} == {"rejected"}
        assert sum(counters.values()) == len(self.stream.bad_offsets)

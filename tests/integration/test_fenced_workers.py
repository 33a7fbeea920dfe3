"""A worker which was given up by its group tells nobody anything any more."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from stream_cluster.errors import ConfigError
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from stream_cluster.service.assignment import Assignment
from tests.support.archives import expected_clusters, sightings
from tests.support.client import client_of, clustering
from tests.support.kafka import eventually, produce, read_topic
from tests.support.service import ServiceProcess, make_topics, overrides_of, running_service


async def test_a_stopped_process_that_goes_on_writes_nothing_for_others(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "zombie")
    records = list(generate_events(GenerateOptions(events=300, people=40, dim=16)))
    account = records[0].key.decode()
    # A backlog, so that the process is stopped while it applies; each batch has a dead letter.
    small = {"ingest__batch_max_records": 1, "ingest__linger_ms": 0}
    bad = [(b"account", b"{", [("content-type", b"application/json")])] * 300
    overrides = overrides_of(broker, topics, tmp_path / "1", **small)
    async with client_of(broker, topics) as client:
        with ServiceProcess(overrides, tmp_path / "log") as zombie:
            await asyncio.to_thread(zombie.wait_for, "partition_opened")
            await client.produce(records)
            await produce(broker.bootstrap_servers, topics.events, bad)

            async def has_letters() -> bool:
                return len(await read_topic(broker.bootstrap_servers, topics.dead_letters)) > 10

            await eventually(has_letters, 60, "some dead letters")
            os.kill(zombie._process.pid, signal.SIGSTOP)
            try:
                async with running_service(broker, topics, tmp_path / "2") as second:
                    await second.applied(600, timeout_s=60)
                    before = len(await read_topic(broker.bootstrap_servers, topics.dead_letters))
                    os.kill(zombie._process.pid, signal.SIGCONT)
                    await asyncio.to_thread(zombie.wait_for, "partitions_assigned", 2, 60)
                    await second.until(lambda: second.sample("rebalances_total") >= 2, 60, "it to join again")
                    await client.submit(clustering("after", account, threshold=0.6))
                    archive = await client.archive("after", account, timeout_s=60)
                    assert archive.members == expected_clusters(sightings(records, account), 0.6)
                    states = [status["status"] for status in client.statuses("after", account)]
                    assert (states.count("pending"), states.count("done")) == (1, 1)
                    # At most the one letter that was under way when the process was stopped.
                    after = len(await read_topic(broker.bootstrap_servers, topics.dead_letters))
                    assert after - before <= 1
            finally:
                os.kill(zombie._process.pid, signal.SIGCONT)


async def test_a_failure_inside_a_rebalance_ends_the_service(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise ConfigError("no such luck")

    topics = await make_topics(broker, "callback")
    monkeypatch.setattr(Assignment, "_on_assigned", fails)
    async with running_service(broker, topics, tmp_path, wait=False) as worker:
        error = await worker.ended()
    assert isinstance(error, ConfigError)
    assert "no such luck" in str(error)

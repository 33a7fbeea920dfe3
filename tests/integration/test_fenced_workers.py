"""A worker which was given up by its group tells nobody anything any more."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

import pytest
from aiokafka import TopicPartition

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

            async def letters() -> int:
                found = await read_topic(broker.bootstrap_servers, topics.dead_letters, committed=False)
                return len(found)

            async def has_letters() -> bool:
                return await letters() > 10

            await eventually(has_letters, 60, "some dead letters")
            os.kill(zombie._process.pid, signal.SIGSTOP)
            try:
                async with running_service(broker, topics, tmp_path / "2") as second:
                    await second.applied(600, timeout_s=60)
                    before = await letters()
                    os.kill(zombie._process.pid, signal.SIGCONT)
                    await asyncio.to_thread(zombie.wait_for, "partitions_assigned", 2, 60)
                    await second.until(lambda: second.sample("rebalances_total") >= 2, 60, "it to join again")
                    await client.submit(clustering("after", account, threshold=0.6))
                    archive = await client.archive("after", account, timeout_s=60)
                    assert archive.members == expected_clusters(sightings(records, account), 0.6)
                    states = [status["status"] for status in client.statuses("after", account)]
                    assert (states.count("pending"), states.count("done")) == (1, 1)
                    assert await letters() == before
            finally:
                os.kill(zombie._process.pid, signal.SIGCONT)


async def test_a_task_whose_last_word_was_not_committed_at_the_takeover_has_one(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "last-word")
    records = list(generate_events(GenerateOptions(events=100, people=20, dim=16)))
    account = records[0].key.decode()

    async def said(*, committed: bool) -> list[str]:
        found = await read_topic(broker.bootstrap_servers, topics.results, committed=committed)
        return [json.loads(record.value)["status"] for record in found]

    silent = {"tasks__progress_interval_s": 60}
    overrides = overrides_of(broker, topics, tmp_path / "1", **silent)
    async with client_of(broker, topics) as client:
        await client.produce(records)
        # The first transaction has the status `pending`, the second `done`.
        stop = {"STREAM_CLUSTER_FAULT": "output_commit=stop@2"}
        with ServiceProcess(overrides, tmp_path / "log", stop) as stale:
            await asyncio.to_thread(stale.wait_for, "partition_opened")
            await client.submit(clustering("t", account, threshold=0.6))

            async def is_said() -> bool:
                return await said(committed=False) == ["pending", "done"]

            await eventually(is_said, 60, "the last word, in an open transaction")
            assert await said(committed=True) == ["pending"]
            async with running_service(broker, topics, tmp_path / "2", **silent) as owner:
                archive = await client.archive("t", account, timeout_s=60)
                assert archive.members == expected_clusters(sightings(records, account), 0.6)
                stale.signal(signal.SIGCONT)
                await asyncio.to_thread(stale.wait_for, "partition_closed", 1, 60)
                await owner.until(lambda: owner.sample("rebalances_total") >= 2, 60, "it to join again")
                assert stale.logged("outputs_fenced")
                everything = await said(committed=False)
                assert (everything.count("done"), everything[-1]) == (2, "done")
                assert (await said(committed=True)).count("done") == 1


@pytest.mark.parametrize("callback", ["_on_assigned", "_on_revoked"])
async def test_a_failure_inside_a_rebalance_ends_the_service(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, callback: str
) -> None:
    async def fails(_: Assignment, partitions: set[TopicPartition]) -> None:
        if partitions:  # before the first assignment, none is revoked
            raise ConfigError("no such luck")

    topics = await make_topics(broker, "callback")
    monkeypatch.setattr(Assignment, callback, fails)
    async with running_service(broker, topics, tmp_path / "1", wait=False) as worker:
        if callback == "_on_revoked":
            await worker.until(lambda: not worker.service.ready_problems(), 30, "the service to be ready")
            async with running_service(broker, topics, tmp_path / "2", wait=False):
                error = await worker.ended()
        else:
            error = await worker.ended()
    assert isinstance(error, ConfigError)
    assert "no such luck" in str(error)

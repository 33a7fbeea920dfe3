"""Stopped, killed, started again, fed twice: nothing is lost, nothing counts twice."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from stream_cluster.generate import GeneratedRecord, GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition
from stream_cluster.state.view import PartitionView
from tests.support.archives import expected_clusters, sightings
from tests.support.client import client_of, clustering
from tests.support.service import (
    EngineGate,
    ServiceProcess,
    make_topics,
    overrides_of,
    running_service,
)


def _generated(events: int, seed: int = 1) -> list[GeneratedRecord]:
    return list(generate_events(GenerateOptions(events=events, people=events // 6, dim=64, seed=seed)))


def _counters(folder: Path, partition: int = 0) -> dict[tuple[str, str], int]:
    with PartitionView(database_path(folder / "state", partition)) as view:
        return view.counters()


async def test_a_restart_goes_on_where_the_state_ends(broker: Broker, tmp_path: Path) -> None:
    records = _generated(600)
    topics = await make_topics(broker, "resume")
    async with client_of(broker, topics) as client:
        async with running_service(broker, topics, tmp_path) as worker:
            await client.produce(records[:500])
            await worker.applied(500)
        async with running_service(broker, topics, tmp_path) as worker:
            await client.produce(records[500:])
            await worker.applied(100)
            await client.submit(clustering("all", threshold=0.55))
            archive = await client.archive("all")
            # A record that was read again would count as a duplicate.
            assert worker.records() == {"accepted": 100, "duplicate": 0, "rejected": 0}
    assert archive.members == expected_clusters(sightings(records, "demo"), 0.55)
    assert archive.manifest["counts"]["duplicates"] == 0


async def test_the_groups_offsets_do_not_matter(broker: Broker, tmp_path: Path) -> None:
    records = _generated(300)
    topics = await make_topics(broker, "groups")
    async with client_of(broker, topics) as client:
        await client.produce(records)
        for number in range(3):
            group = f"{topics.events}-{number}"
            async with running_service(broker, topics, tmp_path, kafka__group_id=group) as worker:
                await client.submit(clustering(f"group {number}", threshold=0.55))
                await client.archive(f"group {number}")
                assert sum(worker.records().values()) == (0 if number else 300)
    assert _counters(tmp_path) == {("accepted", ""): 300}


async def test_records_delivered_twice_change_nothing(broker: Broker, tmp_path: Path) -> None:
    records = _generated(400)
    topics = await make_topics(broker, "twice")
    async with client_of(broker, topics) as client, running_service(broker, topics, tmp_path) as worker:
        await client.produce(records)
        await client.submit(clustering("once", threshold=0.55))
        once = await client.archive("once")
        # In another order, so that the copies share batches with other copies.
        await client.produce([*records[200:], *records[:200]])
        await client.produce(records[:50])
        await worker.applied(850)
        await client.submit(clustering("twice", threshold=0.55))
        twice = await client.archive("twice")
        assert worker.records() == {"accepted": 400, "duplicate": 450, "rejected": 0}
        assert worker.sample("objects_total", descriptor_type="face") == 400
    assert once.members == twice.members == expected_clusters(sightings(records, "demo"), 0.55)
    assert (once.manifest["counts"]["duplicates"], twice.manifest["counts"]["duplicates"]) == (0, 450)
    assert twice.manifest["counts"]["objects_received"] == 850


async def test_sigterm_under_load_leaves_within_five_seconds_and_loses_nothing(
    broker: Broker, tmp_path: Path
) -> None:
    records = _generated(4000)
    topics = await make_topics(broker, "sigterm")
    # Small batches: slow enough to be stopped in the midst of them.
    overrides = overrides_of(broker, topics, tmp_path, ingest__batch_max_records=8, log__level="debug")
    async with client_of(broker, topics) as client:
        await client.produce(records)
        with ServiceProcess(overrides, tmp_path / "log") as process:
            process.wait_for("batch_applied", 5)
            await client.submit(clustering("under load", threshold=0.55))
            await client.reached("pending", "under load")
            process.terminate()
            code, took_s = process.wait(15)
        assert (code, took_s < 5) == (0, True), (took_s, process.log()[-2000:])
        applied = sum(_counters(tmp_path).values())
        assert 0 < applied < len(records), "the load was over before SIGTERM"
        assert process.logged("service_stopped")
        async with running_service(broker, topics, tmp_path) as worker:
            archive = await client.archive("under load")
            assert worker.records()["accepted"] == len(records) - applied
    assert archive.members == expected_clusters(sightings(records, "demo"), 0.55)
    assert _counters(tmp_path) == {("accepted", ""): len(records)}
    states = [status["status"] for status in client.statuses("under load")]
    assert (states.count("pending"), states.count("done"), states[-1]) == (1, 1, "done")


async def test_sigterm_stops_a_snapshot_that_runs(broker: Broker, tmp_path: Path) -> None:
    # Every pair is a link: 32 million of them keep any engine busy for longer than a stop may take.
    options = GenerateOptions(events=8000, dim=32, encoding="int8", format="msgpack", metadata=False)
    topics = await make_topics(broker, "sigterm-snapshot")
    # A floor of nearly one finds no links at ingest; a task below it has all of them to find.
    overrides = overrides_of(broker, topics, tmp_path, similarity__face__floor=0.999, matching__threads=1)
    async with client_of(broker, topics) as client:
        await client.produce(generate_events(options))
        with ServiceProcess(overrides, tmp_path / "log") as process:
            await client.submit(clustering("long", threshold=-1))
            await client.reached("in_progress", "long")
            await client.until_stage("match", "long", timeout_s=60)
            process.terminate()
            code, took_s = process.wait(15)
        assert (code, took_s < 5) == (0, True), (took_s, process.log()[-2000:])
        assert client.statuses("long")[-1]["status"] == "in_progress"
        assert not await asyncio.to_thread(lambda: list(tmp_path.rglob("*.tmp")))
        async with running_service(broker, topics, tmp_path):
            await client.submit({"type": "cancel", "task_id": "long", "account_id": "demo"})
            assert (await client.ended("long", timeout_s=60))["status"] == "cancelled"


async def test_a_task_pending_at_sigkill_is_done_once_after_the_restart(
    broker: Broker, tmp_path: Path
) -> None:
    records = _generated(3000)
    topics = await make_topics(broker, "pending-kill")
    # The next process has to wait until the group has given the killed one up.
    changes = {"kafka__session_timeout_ms": 1500, "kafka__heartbeat_interval_ms": 200}
    overrides = overrides_of(
        broker, topics, tmp_path, ingest__batch_max_records=8, log__level="debug", **changes
    )
    async with client_of(broker, topics) as client:
        await client.produce(records)
        with ServiceProcess(overrides, tmp_path / "log") as process:
            process.wait_for("batch_applied", 5)
            await client.submit(clustering("pending", threshold=0.55))
            await client.reached("pending", "pending")
            process.kill()
        assert "done" not in {status["status"] for status in client.statuses("pending")}
        async with running_service(broker, topics, tmp_path, wait=False, **changes) as worker:
            archive = await client.archive("pending", timeout_s=60)
            await client.submit(clustering("after"))
            await client.archive("after")
            await worker.until(lambda: worker.sample("tasks_total", status="done") == 2, 5, "two tasks done")
    assert archive.members == expected_clusters(sightings(records, "demo"), 0.55)
    states = [status["status"] for status in client.statuses("pending")]
    assert (states.count("pending"), states.count("done"), states[-1]) == (1, 1, "done")


async def test_a_task_sent_while_the_service_was_down_is_done_once(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the state takes to say which tasks it has left."""
    unfinished_tasks = Partition.unfinished_tasks

    def slowly(partition: Partition) -> Any:
        time.sleep(0.7)
        return unfinished_tasks(partition)

    monkeypatch.setattr(Partition, "unfinished_tasks", slowly)
    topics = await make_topics(broker, "down")
    async with client_of(broker, topics) as client:
        await client.produce(_generated(50))
        await client.submit(clustering("early"))
        async with running_service(broker, topics, tmp_path) as worker:
            await client.archive("early")
            await client.submit(clustering("late"))
            await client.archive("late")
            await worker.until(lambda: worker.sample("tasks_total", status="done") == 2, 5, "two tasks done")
    states = [status["status"] for status in client.statuses("early")]
    assert (states.count("pending"), states.count("done")) == (1, 1)


async def test_a_large_backlog_passes_through_a_small_buffer(broker: Broker, tmp_path: Path) -> None:
    records = _generated(1500)
    limit = 32
    topics = await make_topics(broker, "backpressure", 2)
    small = {"ingest__batch_max_records": limit, "ingest__buffer_max_records": limit}
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, **small) as worker,
    ):

        def fullest() -> int:
            return max(
                (runner.buffered_records for runner in worker.service._assignment.runners.values()), default=0
            )

        with EngineGate() as gate:
            await client.produce(records)
            await worker.until(lambda: fullest() >= limit, 20, "a full buffer behind the batch at the gate")
            buffered = fullest()
            await worker.until(lambda: worker.sample("paused_partitions") == 1, 20, "a paused partition")
            # Paused after the fetch that passed the limit, and no fetch is larger than a batch.
            assert limit <= buffered <= 2 * limit
            gate.open()
            await worker.applied(len(records))
        await worker.until(lambda: worker.sample("paused_partitions") == 0, 5, "no paused partition")
        assert worker.records() == {"accepted": len(records), "duplicate": 0, "rejected": 0}


@pytest.mark.parametrize("batch_records", [1, 7, 4096])
async def test_the_size_of_batches_does_not_show(broker: Broker, tmp_path: Path, batch_records: int) -> None:
    records = _generated(250, seed=9)
    topics = await make_topics(broker, "batches")
    async with (
        client_of(broker, topics) as client,
        running_service(
            broker, topics, tmp_path, ingest__batch_max_records=batch_records, ingest__linger_ms=1
        ),
    ):
        await client.produce(records)
        await client.submit(clustering("all", threshold=0.5, use_track_info=True))
        archive = await client.archive("all")
    assert archive.members == expected_clusters(sightings(records, "demo"), 0.5, use_tracks=True)

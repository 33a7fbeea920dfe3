"""Backups of a running service, on a real broker and in a real S3 server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete

from stream_cluster.errors import LogGap
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.model import Interrupt
from stream_cluster.sandbox import Broker
from stream_cluster.service.backup_store import BucketBackups
from stream_cluster.service.partition_backups import PartitionBackups
from stream_cluster.state.backup.manifest import BackupKey
from tests.support.archives import expected_clusters, sightings
from tests.support.backups import contents, in_directory
from tests.support.client import client_of, clustering
from tests.support.s3 import S3Server, s3_server
from tests.support.service import ServiceProcess, Topics, Worker, make_topics, overrides_of, running_service


@pytest.fixture(scope="module")
def bucket() -> Any:
    with s3_server() as server:
        yield server


def _generated(events: int, seed: int = 3) -> list[Any]:
    return list(generate_events(GenerateOptions(events=events, people=events // 5, dim=64, seed=seed)))


async def _backed_up(worker: Worker, backups: PartitionBackups, next_offset: int) -> BackupKey:
    """The newest backup, once it is at this offset."""
    found: list[BackupKey] = []

    def is_there() -> bool:
        found[:] = backups.newest_first()[:1]
        return bool(found) and found[0].next_offset == next_offset

    await worker.until(is_there, 60, f"a backup at {next_offset}")
    return found[0]


async def _all_clusters(client: Any, task_id: str) -> Any:
    await client.submit(clustering(task_id, threshold=0.5))
    return (await client.archive(task_id, timeout_s=60)).members


async def test_a_lost_disk_is_restored_from_the_bucket_and_the_log_and_nothing_shows(
    broker: Broker, tmp_path: Path, bucket: S3Server
) -> None:
    all_records = _generated(900)
    topics = await make_topics(broker, "lost-disk")
    changes = {**bucket.backup_overrides(prefix=topics.events), "backup__interval_s": 0.5}
    store = _bucket_backups(bucket, topics)
    async with client_of(broker, topics) as client:
        await client.produce(all_records[:600])
        async with running_service(broker, topics, tmp_path / "a", **changes) as worker:
            await worker.applied(600)
            first = await _backed_up(worker, store, 600)
        # What came later is in the log only, as if the disk had been lost before the next backup.
        shutil.rmtree(tmp_path / "a" / "state")
        await client.produce(all_records[600:])
        async with running_service(broker, topics, tmp_path / "b", **changes) as worker:
            await worker.applied(300)
            assert worker.sample("restores_total", result="restored") == 1
            assert worker.records() == {"accepted": 300, "duplicate": 0, "rejected": 0}
            assert await _all_clusters(client, "after") == expected_clusters(
                sightings(all_records, "demo"), 0.5
            )
            second = await _backed_up(worker, store, 900)
            await worker.until(
                lambda: worker.sample("backups_total", result="stored") >= 1, 30, "the backup to be counted"
            )
            assert worker.sample("backup_size_bytes", partition="0") > 0
            _, text = await worker.get("/metrics")
            assert 'stream_cluster_backup_age_seconds{partition="0"}' in text
        assert second > first
        assert second.epoch > first.epoch


def _bucket_backups(bucket: S3Server, topics: Topics) -> PartitionBackups:
    return PartitionBackups(BucketBackups(bucket.backup_settings(prefix=topics.events)), topics.events, 0)


async def test_a_damaged_newest_backup_is_passed_over_for_the_next_older_one(
    broker: Broker, tmp_path: Path
) -> None:
    all_records = _generated(400)
    topics = await make_topics(broker, "damaged")
    backups = in_directory(tmp_path / "backups", topics.events)
    changes = {"backup__directory": str(tmp_path / "backups"), "backup__interval_s": 0.5}
    async with client_of(broker, topics) as client:
        async with running_service(broker, topics, tmp_path / "a", **changes) as worker:
            for count in (200, 400):
                await client.produce(all_records[count - 200 : count])
                await worker.applied(count)
                newest = await _backed_up(worker, backups, count)
        data = tmp_path / "backups" / topics.events / "0" / backups.manifest(newest).data
        data.write_bytes(data.read_bytes()[:-100])
        overrides = overrides_of(broker, topics, tmp_path / "b", **changes)
        (tmp_path / "b").mkdir()
        with ServiceProcess(overrides, tmp_path / "log") as process:
            process.wait_for("partition_opened")
            await client.submit(clustering("after", threshold=0.5))
            archive = await client.archive("after", timeout_s=60)
            process.terminate()
            assert process.wait(30)[0] == 0
        assert archive.members == expected_clusters(sightings(all_records, "demo"), 0.5)
        (damaged,) = process.logged("backup_passed_over")
        assert newest.name in damaged["backup"]
        assert damaged["result"] == "damaged"
        (restored,) = process.logged("partition_restored")
        assert (restored["reason"], restored["next_offset"]) == ("empty_disk", 200)
        assert "service_failed" not in process.log()


async def test_a_stop_leaves_a_backup_of_all_that_was_applied_within_its_time(
    broker: Broker, tmp_path: Path
) -> None:
    records = _generated(500)
    topics = await make_topics(broker, "final")
    backups = in_directory(tmp_path / "backups", topics.events)
    overrides = overrides_of(
        broker, topics, tmp_path, backup__directory=str(tmp_path / "backups"), backup__interval_s=3600
    )
    # No backup is due before the stop but the first one, of an empty state.
    async with client_of(broker, topics) as client:
        with ServiceProcess(overrides | {"log.level": "debug"}, tmp_path / "log") as process:
            process.wait_for("partition_opened")
            await client.produce(records)
            await client.submit(clustering("all", threshold=0.5))
            await client.archive("all", timeout_s=60)
            process.terminate()
            code, took_s = process.wait(60)
    assert code == 0, process.log()[-2000:]
    assert took_s < 30
    newest = backups.newest_first()[0]
    assert newest.next_offset == 500
    target = tmp_path / "restored"
    backups.restore(backups.manifest(newest), target, Interrupt())
    assert contents(target) == contents(tmp_path / "state" / "partition-0.sqlite")
    assert list((tmp_path / "state" / "backup").iterdir()) == []


async def test_a_stop_does_not_wait_for_a_bucket_that_hangs(
    broker: Broker, tmp_path: Path, bucket: S3Server
) -> None:
    records = _generated(100)
    topics = await make_topics(broker, "hang")
    changes = {
        **bucket.backup_overrides(prefix=topics.events, timeout_s=60, retry_s=60),
        "backup__interval_s": 3600,
        "backup__final_timeout_s": 1.5,
    }
    (tmp_path / "a").mkdir()
    async with client_of(broker, topics) as client:
        await client.produce(records)
        with ServiceProcess(
            overrides_of(broker, topics, tmp_path / "a", **changes), tmp_path / "log"
        ) as process:
            process.wait_for("partition_opened")
            await client.submit(clustering("all", threshold=0.5))
            await client.archive("all", timeout_s=60)
            bucket.gateway.is_held = lambda method, path: True
            try:
                process.terminate()
                code, took_s = process.wait(30)
            finally:
                bucket.gateway.open()
    assert code == 0
    assert took_s < 15
    assert process.logged("backup_not_finished")


async def test_a_bucket_that_is_down_costs_backups_and_nothing_else(
    broker: Broker, tmp_path: Path, bucket: S3Server
) -> None:
    records = _generated(600)
    topics = await make_topics(broker, "down")
    changes = {
        **bucket.backup_overrides(prefix=topics.events, retry_s=0.3, timeout_s=1),
        "backup__interval_s": 0.3,
    }
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, **changes) as worker,
    ):
        await client.produce(records[:300])
        await worker.applied(300)
        await _backed_up(worker, _bucket_backups(bucket, topics), 300)
        bucket.gateway.down = True
        try:
            await client.produce(records[300:])
            await worker.applied(600)
            await worker.until(
                lambda: worker.sample("backups_total", result="failed") >= 1, 60, "a failed backup"
            )
            assert await _all_clusters(client, "meanwhile") == expected_clusters(
                sightings(records, "demo"), 0.5
            )
            assert worker.service.ready_problems() == []
        finally:
            bucket.gateway.down = False
        await _backed_up(worker, _bucket_backups(bucket, topics), 600)


async def test_a_worker_without_a_state_waits_for_a_bucket_that_is_down(
    broker: Broker, tmp_path: Path, bucket: S3Server
) -> None:
    records = _generated(200)
    topics = await make_topics(broker, "waits")
    changes = {
        **bucket.backup_overrides(prefix=topics.events, retry_s=0.3, timeout_s=1),
        "backup__interval_s": 0.3,
    }
    async with client_of(broker, topics) as client:
        await client.produce(records)
        async with running_service(broker, topics, tmp_path / "a", **changes) as worker:
            await worker.applied(200)
            await _backed_up(worker, _bucket_backups(bucket, topics), 200)
        bucket.gateway.down = True
        try:
            async with running_service(broker, topics, tmp_path / "b", wait=False, **changes) as worker:
                await worker.until(
                    lambda: worker.service.ready_problems() == ["partition 0: loading"],
                    30,
                    "a worker that waits",
                )
                await asyncio.sleep(2)
                assert worker.service.ready_problems() == ["partition 0: loading"]
                assert worker.service.live_problems() == []
                bucket.gateway.down = False
                await worker.until(lambda: not worker.service.ready_problems(), 60, "a ready worker")
                assert worker.sample("restores_total", result="restored") == 1
            bucket.gateway.down = True
            # And a stop does not wait for it.
            async with running_service(broker, topics, tmp_path / "c", wait=False, **changes) as worker:
                await worker.until(
                    lambda: worker.service.ready_problems() == ["partition 0: loading"],
                    30,
                    "a worker that waits",
                )
                await worker.stop()
        finally:
            bucket.gateway.down = False


async def _drop_records(broker: Broker, topic: str, before: int) -> None:
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await client.start()
    try:
        await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=before)})
    finally:
        await client.close()


async def test_a_backup_bridges_a_gap_of_the_log_and_without_one_the_gap_stops_the_service(
    broker: Broker, tmp_path: Path
) -> None:
    records = _generated(500)
    topics = await make_topics(broker, "gap")
    backups = in_directory(tmp_path / "backups", topics.events)
    changes = {"backup__directory": str(tmp_path / "backups"), "backup__interval_s": 0.5}
    async with client_of(broker, topics) as client:
        await client.produce(records[:200])
        async with running_service(broker, topics, tmp_path / "old") as worker:
            await worker.applied(200)
        await client.produce(records[200:400])
        async with running_service(broker, topics, tmp_path / "new", **changes) as worker:
            await worker.applied(400)
            await _backed_up(worker, backups, 400)
        await client.produce(records[400:])
        await _drop_records(broker, topics.events, 300)
        async with running_service(broker, topics, tmp_path / "old", wait=False) as worker:
            assert isinstance(await worker.ended(60), LogGap)
        async with running_service(broker, topics, tmp_path / "old", **changes) as worker:
            await worker.applied(100)
            assert worker.sample("restores_total", result="restored") == 1
            assert await _all_clusters(client, "after") == expected_clusters(sightings(records, "demo"), 0.5)


async def test_a_database_that_is_far_behind_is_replaced_and_one_that_is_not_is_kept(
    broker: Broker, tmp_path: Path
) -> None:
    records = _generated(400)
    topics = await make_topics(broker, "behind")
    backups = in_directory(tmp_path / "backups", topics.events)
    changes = {"backup__directory": str(tmp_path / "backups"), "backup__interval_s": 0.5}
    async with client_of(broker, topics) as client:
        await client.produce(records[:100])
        async with running_service(broker, topics, tmp_path / "old") as worker:
            await worker.applied(100)
        await client.produce(records[100:])
        async with running_service(broker, topics, tmp_path / "new", **changes) as worker:
            await worker.applied(400)
            await _backed_up(worker, backups, 400)
        for limit, restored, applied in ((301, 0, 300), (300, 1, 0)):
            shutil.copytree(tmp_path / "old", tmp_path / str(limit))
            async with running_service(
                broker, topics, tmp_path / str(limit), backup__replace_behind_records=limit, **changes
            ) as worker:
                await worker.applied(applied)
                assert worker.sample("restores_total", result="restored") == restored
                assert worker.records()["accepted"] == applied


async def test_a_worker_that_the_group_has_given_up_makes_no_backup(broker: Broker, tmp_path: Path) -> None:
    """It is frozen for longer than its session; the other one takes over, and stays the newest."""
    records = _generated(300)
    topics = await make_topics(broker, "frozen")
    backups = in_directory(tmp_path / "backups", topics.events)
    changes = {
        "backup__directory": str(tmp_path / "backups"),
        "backup__interval_s": 0.5,
        "backup__final_timeout_s": 20,
        "kafka__session_timeout_ms": 3000,
    }
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with client_of(broker, topics) as client:
        await client.produce(records[:200])
        with ServiceProcess(
            overrides_of(broker, topics, tmp_path / "a", **changes), tmp_path / "a.log"
        ) as stale:
            stale.wait_for("backup_stored", timeout_s=60)
            os.kill(stale._process.pid, signal.SIGSTOP)
            async with running_service(broker, topics, tmp_path / "b", wait=False, **changes) as worker:
                await worker.until(lambda: not worker.service.ready_problems(), 60, "the partition to move")
                await client.produce(records[200:])
                newest = await _backed_up(worker, backups, 300)
                os.kill(stale._process.pid, signal.SIGCONT)
                stale.terminate()
                stale.wait(60)
                assert backups.newest_first()[0] >= newest
                epochs = {key.epoch for key in backups.newest_first() if key.next_offset == 300}
                assert min(epochs) > min(key.epoch for key in backups.newest_first()) or len(epochs) == 1
                stored = {line["next_offset"] for line in stale.logged("backup_stored")}
                assert 300 not in stored

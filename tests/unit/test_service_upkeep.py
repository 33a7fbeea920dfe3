"""What a partition does between its batches."""

from __future__ import annotations

import asyncio
import time

import pytest

from stream_cluster.errors import StateError
from stream_cluster.service import upkeep as module
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.upkeep import Upkeep, UpkeepSettings
from tests.support.partitions import deletion, message, open_partition, records, vectors
from tests.unit.test_state_changes import apply, objects

DAY_US = 86_400_000_000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "_EMPTY_WAL_S", 0.05)
    monkeypatch.setattr(module, "_SLICE_OBJECTS", 8)


async def in_engine(function, *arguments):
    return await asyncio.to_thread(function, *arguments)


async def settle(upkeep, rounds=20):
    """Run whatever is due, one thing after another, until nothing is for a while."""
    for _ in range(rounds):
        await asyncio.sleep(min(0.06, max(0.0, upkeep.due_in_s())))
        await upkeep.run()


async def test_objects_past_their_age_go_slice_by_slice_and_are_counted(tmp_path):
    partition = open_partition(tmp_path, retention_us={"face": DAY_US})
    now_us = time.time_ns() // 1000
    recent = message(99, vectors(1)[0], create_time_us=now_us)
    apply(partition, *objects(20), recent)
    metrics = Metrics()
    upkeep = Upkeep(partition, UpkeepSettings(retention_s=3600.0), metrics, in_engine)
    assert upkeep.due_in_s() <= 0
    await upkeep.run()
    assert partition.is_sweeping
    assert [space.deleted for space in partition.spaces()] == [8]
    await settle(upkeep)
    assert not partition.is_sweeping
    assert [space.next_row - space.deleted for space in partition.spaces()] == [1]
    labels = {"descriptor_type": "face", "cause": "retention"}
    assert metrics.registry.get_sample_value("stream_cluster_deleted_objects_total", labels) == 20
    assert upkeep.due_in_s() > 3000
    partition.close()


async def test_the_log_is_emptied_soon_after_a_deletion_and_the_database_rewritten_once(tmp_path):
    partition = open_partition(tmp_path)
    wal = tmp_path / "partition-0.sqlite-wal"
    upkeep = Upkeep(partition, UpkeepSettings(vacuum_s=3600.0), Metrics(), in_engine)
    apply(partition, *objects(20))
    await settle(upkeep)
    assert wal.stat().st_size > 0, "nothing was deleted, so the log is left to SQLite"
    assert partition.vacuum_due_us(0) is None
    for number, is_due in ((3, False), (4, True)):
        apply(partition, deletion(f"acme-{number:05}"))
        await settle(upkeep)
        assert wal.stat().st_size == 0
        assert not partition.erased_in_wal
        assert (partition.vacuum_due_us(0) is not None) == is_due
    partition.close()


async def test_a_view_from_before_puts_it_off_until_it_is_closed(tmp_path):
    partition = open_partition(tmp_path)
    apply(partition, *objects(20))
    view = partition.view()
    upkeep = Upkeep(partition, UpkeepSettings(), Metrics(), in_engine)
    apply(partition, deletion("acme-00003"))
    await settle(upkeep, 4)
    assert partition.erased_in_wal
    view.close()
    await settle(upkeep, 4)
    assert not partition.erased_in_wal
    partition.close()


async def test_a_rewrite_that_fails_is_tried_again_after_the_interval(tmp_path, monkeypatch):
    partition = open_partition(tmp_path)
    apply(partition, *objects(20), deletion("acme-00003"))
    calls = []

    def no_room(now_us):
        calls.append(now_us)
        raise StateError("database or disk is full")

    monkeypatch.setattr(partition, "vacuum", no_room)
    upkeep = Upkeep(partition, UpkeepSettings(vacuum_s=0.3), Metrics(), in_engine)
    await settle(upkeep, 3)
    assert len(calls) == 1
    assert not partition.erased_in_wal
    await asyncio.sleep(0.3)
    await settle(upkeep, 2)
    assert len(calls) == 2
    partition.close()


async def test_a_process_that_was_killed_before_it_could_clean_leaves_it_to_the_next(tmp_path):
    partition = open_partition(tmp_path)
    partition.apply(records([*objects(5), deletion("acme-00003")]))
    partition.close()
    partition = open_partition(tmp_path)
    assert partition.erased_in_wal
    assert partition.vacuum_due_us(5) == 5
    partition.close()

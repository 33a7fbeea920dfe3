"""Rebalances at the worst moments: under load, while a partition is loaded, while a task runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_cluster.generate import GeneratedRecord
from stream_cluster.sandbox import Broker
from stream_cluster.service import assignment
from tests.faults.record import Row
from tests.faults.stream import RECOVERY_S, SHORT_SESSION
from tests.faults.workers import answered, armed, generated, is_answered, now, rebalances
from tests.support.client import client_of, clustering
from tests.support.service import Topics, Worker, make_topics, running_service

ACCOUNTS = tuple(f"account-{number}" for number in range(4))
PARTITIONS = 2
CHANGES = {**SHORT_SESSION, "ingest__batch_max_records": 16, "http__ready_max_lag_records": 0}
EVENTS = 800


def _records() -> list[GeneratedRecord]:
    return generated(EVENTS, accounts=ACCOUNTS)


async def _topics(broker: Broker) -> Topics:
    return await make_topics(broker, "rebalance", PARTITIONS)


async def _shared(*workers: Worker) -> None:
    """The workers have all partitions between them, and are ready."""

    def is_shared() -> bool:
        return sum(worker.sample("partitions") for worker in workers) == PARTITIONS and not any(
            worker.service.ready_problems() for worker in workers
        )

    for worker in workers:
        await worker.until(is_shared, RECOVERY_S, "the partitions to be shared")


@pytest.mark.fault(
    what="workers join and leave under load",
    survives="everything, each record applied once; what a worker has of a partition it keeps",
    seen="`stream_cluster_rebalances_total`; `partition_closed` and `partition_opened` of the partitions "
    "that move",
    short=True,
)
async def test_a_rebalance_under_load_loses_and_doubles_nothing(
    broker: Broker, tmp_path: Path, row: Row
) -> None:
    records = _records()
    topics = await _topics(broker)
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path / "1", **CHANGES) as first,
    ):
        with armed("decode=delay:0.03"):
            await client.produce(records)
            await first.applied(48)
            async with running_service(broker, topics, tmp_path / "2", wait=False, **CHANGES) as second:
                await second.applied(16, RECOVERY_S)
                assert sum(first.records().values()) < EVENTS, "the load was over before the rebalance"
                row.count(rebalances=rebalances(second))
        began = now()
        await _shared(first)
        row.ready(began)
        await answered(client, records, row, "alone again", ACCOUNTS)
        row.count(rebalances=rebalances(first))


@pytest.mark.fault(
    what="a rebalance while a worker still loads its partitions",
    survives="everything; a partition that is lost while it is loaded is closed as soon as it is there",
    seen="`/readyz` says `loading`; then as with any rebalance",
)
async def test_a_rebalance_during_recovery_loses_and_doubles_nothing(
    broker: Broker, tmp_path: Path, row: Row
) -> None:
    records = _records()
    topics = await _topics(broker)
    async with client_of(broker, topics) as client:
        async with running_service(broker, topics, tmp_path / "1", **CHANGES) as first:
            await client.produce(records[: EVENTS // 2])
            await first.applied(EVENTS // 2, RECOVERY_S)
        await client.produce(records[EVENTS // 2 :])
        with armed("partition_open=delay:2"):
            async with running_service(broker, topics, tmp_path / "1", wait=False, **CHANGES) as first:
                await first.until(lambda: _is_loading(first), RECOVERY_S, "a partition to be loaded")
                async with running_service(broker, topics, tmp_path / "2", wait=False, **CHANGES) as second:
                    await first.until(lambda: rebalances(first) >= 1, RECOVERY_S, "a rebalance")
                    began = now()
                    await _shared(first, second)
                    row.ready(began)
                    row.count(rebalances=rebalances(first) + rebalances(second))
                    await answered(client, records, row, "by two", ACCOUNTS)


def _is_loading(worker: Worker) -> bool:
    return any("loading" in problem for problem in worker.service.ready_problems())


@pytest.mark.fault(
    what="a rebalance while tasks run",
    survives="everything; a task whose partition moves is started again by the next owner and ends once",
    seen="`task_read` or `task_resumed` on the next owner; one rebalance, however long tasks take to stop",
)
async def test_a_rebalance_during_a_task_leaves_it_one_end(
    broker: Broker, tmp_path: Path, row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A commit of offsets keeps a member, too; here heartbeats alone are to do it.
    monkeypatch.setattr(assignment, "_COMMIT_S", 3600.0)
    records = _records()
    topics = await _topics(broker)
    # A session that a loaded machine does not break by itself, and that is over long before a snapshot stops,
    # whenever in its ten seconds the second worker comes.
    changes = {**CHANGES, "kafka__session_timeout_ms": 3000, "tasks__concurrency": len(ACCOUNTS)}
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path / "1", **changes) as first,
    ):
        await client.produce(records)
        await first.applied(EVENTS, RECOVERY_S)
        with armed("snapshot=delay:10"):
            await client.submit(*(clustering("moves", account, threshold=0.55) for account in ACCOUNTS))
            # In both partitions, so whichever moves has some.
            await first.until(
                lambda: first.sample("tasks_running") == len(ACCOUNTS),
                RECOVERY_S,
                "snapshots of all accounts",
            )
            async with running_service(broker, topics, tmp_path / "2", wait=False, **changes) as second:
                began = now()
                await _shared(first, second)
                row.ready(began)
                await is_answered(client, records, row, "moves", ACCOUNTS)
                # Nobody lost its membership while a snapshot of the partition that moved came to its end.
                assert (rebalances(first), rebalances(second)) == (1, 0)
                row.count(rebalances=1)

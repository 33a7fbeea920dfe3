"""What tests of faults inside this process share: an armed fault, and the check at the end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import pytest

from stream_cluster import faults
from stream_cluster.generate import GeneratedRecord, GenerateOptions, generate_events
from tests.faults.record import Row
from tests.faults.stream import ACCOUNT, RECOVERY_S, THRESHOLD
from tests.support.archives import expected_clusters, sightings
from tests.support.client import ENDED, Client, clustering
from tests.support.service import Worker


def armed(fault: str) -> AbstractContextManager[Any]:
    """Arm fault points of this process for a block; for delays and disk errors, as a kill would end the "
    "tests."""
    patch = pytest.MonkeyPatch.context()

    class _Armed(AbstractContextManager[None]):
        def __enter__(self) -> None:
            patch.__enter__().setattr(faults, "_faults", faults.parse_faults(fault))

        def __exit__(self, *error: object) -> None:
            patch.__exit__(*error)

    return _Armed()


def generated(events: int, **options: Any) -> list[GeneratedRecord]:
    """Records without a bad one."""
    return list(generate_events(GenerateOptions(events=events, people=events // 6, dim=64, **options)))


async def answered(
    client: Client,
    records: Sequence[GeneratedRecord],
    row: Row,
    task_id: str,
    accounts: Sequence[str] = (ACCOUNT,),
) -> None:
    """A task of each account is done, once, with all records and no other, each once."""
    await client.submit(*(clustering(task_id, account, threshold=THRESHOLD) for account in accounts))
    await is_answered(client, records, row, task_id, accounts)


async def is_answered(
    client: Client,
    records: Sequence[GeneratedRecord],
    row: Row,
    task_id: str,
    accounts: Sequence[str] = (ACCOUNT,),
) -> None:
    """`answered`, for tasks that were sent before."""
    for account in accounts:
        archive = await client.archive(task_id, account, timeout_s=RECOVERY_S)
        row.check(archive, expected_clusters(sightings(records, account), THRESHOLD))
        ends = [status for status in client.statuses(task_id, account) if status["status"] in ENDED]
        assert len(ends) == 1, ends


async def caught_up(worker: Worker, row: Row, records: int, since: float) -> None:
    """Wait until everything is applied, and note how long that took."""
    await worker.applied(records, RECOVERY_S)
    await worker.until(lambda: not worker.service.ready_problems(), RECOVERY_S, "the service to be ready")
    row.ready(since)
    assert worker.records()["duplicate"] == 0


def rebalances(worker: Worker) -> int:
    """Rebalances of a worker after its first assignment."""
    return int(worker.sample("rebalances_total")) - 1


def now() -> float:
    """The monotonic clock."""
    return time.monotonic()

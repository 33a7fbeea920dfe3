"""More records than can be matched: memory stays flat, the group stays whole, tasks are answered, and it
passes."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from tests.faults.record import Row
from tests.faults.stream import RECOVERY_S, SHORT_SESSION
from tests.faults.workers import is_answered
from tests.support.client import client_of, clustering
from tests.support.kafka import eventually
from tests.support.service import ServiceProcess, http_get, make_topics, overrides_of, parse_metrics

EVENTS = 1600
BATCH = 32
BATCH_S = 0.5
"""What matching a batch takes at least: 64 records a second."""
PADDING_BYTES = 240_000
"""Compressed on the way, so that they arrive fast and take their room in the service only."""
BATCH_BYTES = 20 * PADDING_BYTES
BACKLOG_BYTES = EVENTS * PADDING_BYTES
"""380 MB: what would be there if nothing held records back."""
GROWTH_MAX_BYTES = BACKLOG_BYTES // 4
"""Of the resident memory, since a first part was applied: a buffer, a batch, and what decoding adds."""
DRIFT_MAX_BYTES = BACKLOG_BYTES // 16
"""From the highest in the first half of the backlog to the highest in the second."""


@pytest.mark.fault(
    what="overload: records arrive more than ten times faster than they can be matched",
    survives="everything; memory stays flat, no rebalance, tasks are answered in turn, and it catches up "
    "without help",
    seen="`stream_cluster_lag_records`, `stream_cluster_paused_partitions`; `/readyz` fails with the lag;"
    " a waiting task "
    "says `records_to_barrier`",
    short=True,
)
async def test_overload_keeps_memory_flat_and_the_group_whole_and_passes(
    broker: Broker, tmp_path: Path, row: Row
) -> None:
    options = GenerateOptions(events=EVENTS, people=EVENTS // 6, dim=64, metadata=False)
    records = [
        replace(record, value=record.value[:-1] + b',"meta":{"pad":"' + b"x" * PADDING_BYTES + b'"}}')
        for record in generate_events(options)
    ]
    topics = await make_topics(broker, "overload")
    overrides = overrides_of(
        broker,
        topics,
        tmp_path,
        **SHORT_SESSION,
        ingest__batch_max_records=BATCH,
        ingest__buffer_max_records=4 * BATCH,
        http__ready_max_lag_records=4 * BATCH,
        # What SQLite keeps of the database has a bound of its own, and is no part of the question.
        state__page_cache_mb=4,
        kafka__fetch_max_bytes=100_000,
        kafka__max_partition_fetch_bytes=100_000,
    )
    slow = {"STREAM_CLUSTER_FAULT": f"match=delay:{BATCH_S}"}
    async with client_of(broker, topics, compression="lz4", batch_bytes=BATCH_BYTES) as client:
        with ServiceProcess(overrides, tmp_path / "log", slow) as process:
            watch = _Watch(process)
            await eventually(watch.is_ready, RECOVERY_S, "the service to be ready")
            await client.produce(records[: 4 * BATCH])
            await eventually(lambda: watch.applied_at_least(4 * BATCH), RECOVERY_S, "a first part")
            before = watch.resident_bytes()
            applied = await watch.applied()
            began = time.monotonic()
            await client.produce(records[4 * BATCH :])
            input_ended = time.monotonic()
            input_per_s = (EVENTS - 4 * BATCH) / (input_ended - began)
            await client.submit(clustering("under load", threshold=0.55))
            await eventually(lambda: watch.lags_behind(EVENTS // 2), RECOVERY_S, "the lag to be told")
            assert not await watch.is_ready()
            half = (await watch.applied() + EVENTS) / 2
            while await watch.applied() < half:
                watch.resident_bytes()
                await asyncio.sleep(0.1)
            early = watch.peak_bytes
            watch.peak_bytes = 0
            while not await watch.is_ready():
                watch.resident_bytes()
                await asyncio.sleep(0.1)
            late = watch.peak_bytes
            matched_per_s = (await watch.applied() - applied) / (time.monotonic() - began)
            await is_answered(client, records, row, "under load")
            await eventually(lambda: watch.applied_at_least(EVENTS), RECOVERY_S, "the end of the backlog")
            row.ready(input_ended)
            assert (await watch.metrics())["stream_cluster_rebalances_total", frozenset()] == 1
            process.terminate()
            assert (await asyncio.to_thread(process.wait, 30))[0] == 0
    more, drift = max(early, late) - before, late - early
    print(f"{input_per_s:.0f} records a second in, {matched_per_s:.0f} matched; {more} bytes more, {drift}")
    assert input_per_s > 10 * matched_per_s
    assert more < GROWTH_MAX_BYTES
    assert drift < DRIFT_MAX_BYTES
    waits = [status for status in client.statuses("under load") if status["stage"] == "wait"]
    to_go = [status["records_to_barrier"] for status in waits]
    assert to_go == sorted(to_go, reverse=True)
    assert to_go[0] > EVENTS // 2
    assert len(set(to_go)) > 5
    assert client.statuses("under load")[-1]["records_to_barrier"] is None


class _Watch:
    """Looks at the process from outside, as monitoring does."""

    def __init__(self, process: ServiceProcess) -> None:
        self._process = process
        self._resident = psutil.Process(process.pid)
        self.peak_bytes = 0

    def resident_bytes(self) -> int:
        """Of the process, now."""
        found = int(self._resident.memory_info().rss)
        self.peak_bytes = max(self.peak_bytes, found)
        return found

    async def is_ready(self) -> bool:
        """Whether /readyz succeeds."""
        return (await http_get(self._process.http_port(), "/readyz"))[0] == 200

    async def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Of its /metrics page."""
        return parse_metrics((await http_get(self._process.http_port(), "/metrics"))[1])

    async def applied(self) -> float:
        """Records applied since its start."""
        return (await self.metrics())["stream_cluster_records_total", frozenset({("result", "accepted")})]

    async def applied_at_least(self, count: int) -> bool:
        """Whether so many records were applied."""
        return await self.applied() >= count

    async def lags_behind(self, records: int) -> bool:
        """Whether the lag is told, and so large."""
        metrics = await self.metrics()
        return metrics.get(("stream_cluster_lag_records", frozenset({("partition", "0")})), 0) > records

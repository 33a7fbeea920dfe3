"""The process: killed, frozen, out of memory."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.faults.record import Row
from tests.faults.stream import RECOVERY_S, Stream, task
from tests.support.archives import read_archive
from tests.support.cgroup import memory_group
from tests.support.client import archive_file
from tests.support.kafka import eventually
from tests.support.service import ServiceProcess
from tests.support.topics import group_is_left

# The fifth batch, the second with bad records, the pending status and then the last one.
KILLS = {
    "decode": 5,
    "match": 5,
    "before_commit": 5,
    "after_commit": 5,
    "memory_update": 5,
    "dead_letter_produce": 2,
    "output_commit": 3,
    "snapshot": 1,
    "archive_sync": 1,
    "archive_rename": 1,
    "status_produce": 2,
    "status_noted": 1,
}


@pytest.mark.fault(
    what="SIGKILL at a named point: before decoding, matching, the commit or a change in memory, after "
    "dead letters, with an open transaction, "
    "before a snapshot, the sync or rename of an archive, and around the last status",
    survives="everything: the archive has the bytes of an uninterrupted run, dead letters are there at "
    "least once, "
    "the task ends once",
    seen="the process is gone; its replacement logs `partition_opened`, and `task_resumed` for a task "
    "under way",
    short={"before_commit", "after_commit", "dead_letter_produce", "archive_rename", "status_produce"},
)
@pytest.mark.parametrize("point", KILLS)
async def test_a_kill_at_a_named_point_changes_no_byte_of_the_archive(
    stream: Stream, tmp_path: Path, row: Row, point: str
) -> None:
    async with stream.run(tmp_path) as run:
        await run.client.submit(task())
        with run.start(f"{point}=kill@{KILLS[point]}") as process:
            assert await run.died(process) == -signal.SIGKILL
            row.count(kills=1)
        await run.recover(row)


@pytest.mark.fault(
    what="SIGKILL while a partition is loaded, and while the index cache is written at a stop",
    survives="everything; a cache that is not whole is not used, and the graph is built anew",
    seen="`partition_opened` of the next process; no `hnsw_cache_loaded`",
)
@pytest.mark.parametrize("point", ["partition_open", "cache_write"])
async def test_a_kill_while_loading_or_saving_costs_time_only(
    stream: Stream, tmp_path: Path, row: Row, point: str
) -> None:
    async with stream.run(tmp_path, matching__engine="hnsw") as run:
        with run.start("decode=delay:0.05, cache_write=kill") as process:
            await asyncio.to_thread(process.wait_for, "batch_applied", 3)
            if point == "cache_write":
                process.terminate()
                assert await run.died(process) == -signal.SIGKILL
        row.count(kills=1)
        if point == "partition_open":
            with run.start("partition_open=kill") as process:
                assert await run.died(process) == -signal.SIGKILL
            row.count(kills=1)
        await run.client.submit(task())
        await run.recover(row, each=lambda process: _has_no(process, "hnsw_cache_loaded"))


def _has_no(process: ServiceProcess, event: str) -> None:
    assert not process.logged(event)


@pytest.mark.fault(
    what="SIGSTOP for longer than the session time-out, then SIGCONT",
    survives="everything; the process joins the group again and goes on from its own state",
    seen="`partitions_assigned` again, `stream_cluster_rebalances_total`, a lag that falls",
)
async def test_a_process_that_stood_still_beyond_its_session_joins_again(
    stream: Stream, tmp_path: Path, row: Row
) -> None:
    async with stream.run(tmp_path) as run:
        servers = stream.broker.bootstrap_servers
        with run.start("decode=delay:0.05") as process:
            await asyncio.to_thread(process.wait_for, "batch_applied", 3)
            process.signal(signal.SIGSTOP)
            await group_is_left(servers, str(run.changes["kafka__group_id"]))
            await run.client.submit(task())
            process.signal(signal.SIGCONT)
            began = time.monotonic()
            await asyncio.to_thread(process.wait_for, "partitions_assigned", 2, RECOVERY_S)
            await run.ready(process)
            row.ready(began)
            status = await run.ended(process)
            rebalances = await run.metric(process, "rebalances_total") - 1
            assert rebalances >= 1
            row.count(rebalances=int(rebalances))
            await run.stop(process)
        archive = read_archive(archive_file(status), status)
        row.check(archive, stream.expected)
        assert archive_file(status).read_bytes() == stream.whole
        run.check_counters()


@pytest.mark.fault(
    what="the kernel kills the process for want of memory (a control group without room)",
    survives="everything, as after any SIGKILL",
    seen="exit by signal 9 (`OOMKilled` in Kubernetes), and a restart",
)
async def test_a_process_that_the_kernel_kills_for_its_memory_loses_nothing(
    stream: Stream, tmp_path: Path, row: Row
) -> None:
    async with stream.run(tmp_path) as run:
        await run.client.submit(task())
        with memory_group() as group:
            with run.start("decode=delay:0.05") as process:
                group.take(process.pid)
                await asyncio.to_thread(process.wait_for, "batch_applied", 2)

                def is_dead() -> bool:
                    group.tighten()
                    return process.exit_code is not None

                await eventually(is_dead, RECOVERY_S, "the kernel to kill the process")
            assert process.exit_code == -signal.SIGKILL
            row.count(kills=1)
        await run.recover(row)

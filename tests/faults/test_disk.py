"""Disks that are full, and files that cannot be synced."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from stream_cluster.cli.failures import BAD_STATE
from tests.faults.record import Row
from tests.faults.stream import Run, Stream, task
from tests.support.archives import read_archive
from tests.support.client import archive_file
from tests.support.disk import small_disk
from tests.support.service import ServiceProcess
from tests.support.shim import Shim

HNSW = {"matching__engine": "hnsw"}


async def _has_failed(run: Run) -> str:
    """Why the task failed that could not be stored."""
    failed = await run.client.ended("in vain", timeout_s=60)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "result_store_unavailable"), failed
    return str(failed["error"]["message"])


async def _is_done(run: Run, process: ServiceProcess, row: Row) -> None:
    began = time.monotonic()
    await run.client.submit(task())
    status = await run.ended(process)
    row.ready(began)
    row.check(read_archive(archive_file(status), status), run.stream.expected)
    assert archive_file(status).read_bytes() == run.stream.whole
    assert not list(run.folder.rglob("*.tmp")), "a part of an archive was left"
    await run.stop(process)
    run.check_counters()


@pytest.mark.fault(
    what="the disk of the state is full",
    survives="everything that was committed; the rest is read again from Kafka",
    seen="`partition_failed` and `service_failed` with `StateError`, the file and `database or disk is "
    "full`; exit code 4; "
    "before that the alert on `stream_cluster_disk_free_bytes`",
    short=True,
)
async def test_a_full_disk_of_the_state_ends_the_service_and_nothing_is_lost(
    stream: Stream, tmp_path: Path, row: Row
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with stream.run(tmp_path, state__directory=str(disk.path / "state")) as run:
            await run.client.submit(task())
            with run.start("decode=delay:0.05") as process:
                await asyncio.to_thread(process.wait_for, "batch_applied", 3)
                disk.fill()
                assert await run.died(process) == BAD_STATE
                (failure,) = process.logged("service_failed")
            assert failure["kind"] == "StateError"
            assert f"{disk.path}/state/partition-0.sqlite: database or disk is full" in failure["error"]
            disk.free()
            await run.recover(row)


@pytest.mark.fault(
    what="a sync of the state fails",
    survives="everything that was committed before; the rest is read again from Kafka",
    seen="`service_failed` with `StateError`, the file and `disk I/O error`; exit code 4",
)
async def test_a_state_that_cannot_be_synced_ends_the_service_and_nothing_is_lost(
    stream: Stream, tmp_path: Path, row: Row, shim: Shim
) -> None:
    async with stream.run(tmp_path) as run:
        await run.client.submit(task())
        with run.start("decode=delay:0.05", shim.environment) as process:
            await asyncio.to_thread(process.wait_for, "batch_applied", 3)
            shim.fail_syncs("partition-0.sqlite")
            assert await run.died(process) == BAD_STATE
            (failure,) = process.logged("service_failed")
        assert shim.syncs_failed > 0
        assert failure["kind"] == "StateError"
        assert failure["error"].endswith("partition-0.sqlite: disk I/O error")
        await run.recover(row)


@pytest.mark.fault(
    what="the disk of the archives is full",
    survives="the state and ingest, which goes on; the task fails and can be sent again",
    seen="the task fails with `result_store_unavailable`, the file and `No space left on device`; "
    "`archive_not_stored` in the log",
)
async def test_a_full_disk_of_archives_fails_the_task_alone(stream: Stream, tmp_path: Path, row: Row) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with stream.run(tmp_path, results__directory=str(disk.path / "results")) as run:
            with run.start() as process:
                await run.ready(process)
                disk.fill()
                await run.client.submit(task("in vain"))
                message = await _has_failed(run)
                assert f"{disk.path}/results" in message
                assert message.endswith("No space left on device")
                disk.free()
                await _is_done(run, process, row)


@pytest.mark.fault(
    what="an archive cannot be synced or renamed",
    survives="the state and ingest; no part of an archive is left; the task can be sent again",
    seen="the task fails with `result_store_unavailable`, the file and the error of the system",
)
@pytest.mark.parametrize("cause", ["sync", "archive_sync=ENOSPC", "archive_rename=EIO"])
async def test_an_archive_that_cannot_be_finished_fails_the_task_alone(
    stream: Stream, tmp_path: Path, row: Row, shim: Shim, cause: str
) -> None:
    async with stream.run(tmp_path) as run:
        with run.start(None if cause == "sync" else cause, shim.environment) as process:
            await run.ready(process)
            if cause == "sync":
                shim.fail_syncs(".zip", 1)
            await run.client.submit(task("in vain"))
            message = await _has_failed(run)
            assert message.endswith("No space left on device" if "ENOSPC" in cause else "Input/output error")
            assert (shim.syncs_failed == 1) == (cause == "sync")
            await _is_done(run, process, row)


@pytest.mark.fault(
    what="the index cache cannot be written or synced at a stop",
    survives="everything; the next start builds the graph",
    seen="`hnsw_cache_not_saved` with the error; exit code 0",
)
@pytest.mark.parametrize("cause", ["sync", "cache_write=ENOSPC"])
async def test_an_index_cache_that_cannot_be_written_costs_time_only(
    stream: Stream, tmp_path: Path, row: Row, shim: Shim, cause: str
) -> None:
    async with stream.run(tmp_path, **HNSW) as run:
        fault = "decode=delay:0.05" + ("" if cause == "sync" else f", {cause}")
        with run.start(fault, shim.environment) as process:
            # Stopped in the midst of ingest, so that the next life has to match.
            await asyncio.to_thread(process.wait_for, "batch_applied", 3)
            if cause == "sync":
                shim.fail_syncs(".hnsw")
            await run.stop(process)
            assert process.logged("hnsw_cache_not_saved"), process.log()[-2000:]
        await run.client.submit(task())
        await run.recover(row, each=_built_anew)


def _built_anew(process: ServiceProcess) -> None:
    assert not process.logged("hnsw_cache_loaded")

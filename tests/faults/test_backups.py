"""Backups: killed while they are made, cut short, and a store that is down."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.record import Row
from tests.faults.stream import Run, Stream, task
from tests.support.archives import read_archive
from tests.support.client import archive_file
from tests.support.s3 import S3Server
from tests.support.service import ServiceProcess

OFTEN = {"backup__interval_s": 0.2}
RARELY = {"backup__interval_s": 3600}


def _lose_the_disk(run: Run) -> None:
    shutil.rmtree(run.folder / "state")


def _data_files(folder: Path) -> list[Path]:
    """Whatever is stored, but for manifests and epochs."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and "epochs" not in path.parts and path.suffix != ".json"
    ]


@pytest.mark.fault(
    what="SIGKILL while a backup is stored, or before its manifest is written",
    survives="everything; the backup that was not finished is none, and an older one or the log is used",
    seen="`partition_restored` or a `partition_opened` with `next_offset` 0 after a lost disk",
    short={"backup_upload"},
)
@pytest.mark.parametrize("point", ["backup_upload", "backup_manifest"])
async def test_a_kill_in_the_midst_of_a_backup_leaves_none_or_a_whole_one(
    stream: Stream, tmp_path: Path, row: Row, point: str
) -> None:
    async with stream.run(tmp_path, **OFTEN, backup__directory=str(tmp_path / "backups")) as run:
        # The first backup of this life is whole, the second one is cut short.
        with run.start(f"decode=delay:0.1, {point}=kill@2") as process:
            assert await run.died(process) == -signal.SIGKILL
            row.count(kills=1)
        _lose_the_disk(run)
        await run.client.submit(task())
        await run.recover(row, each=_is_restored)


def _is_restored(process: ServiceProcess) -> None:
    (restored,) = process.logged("partition_restored")
    assert restored["next_offset"] > 0


@pytest.mark.fault(
    what="the only backup is cut short, and the disk is lost",
    survives="everything that the log still has: the partition is built from it",
    seen="`backup_passed_over` with the result `damaged`; `next_offset` 0 in `partition_opened`",
)
async def test_a_truncated_backup_is_passed_over_and_kafka_rebuilds_the_state(
    stream: Stream, tmp_path: Path, row: Row
) -> None:
    folder = tmp_path / "backups"
    async with stream.run(tmp_path, **RARELY, backup__directory=str(folder)) as run:
        with run.start() as process:
            await run.ready(process)
            await run.stop(process)
        for data in _data_files(folder):
            data.write_bytes(data.read_bytes()[:-100])
        _lose_the_disk(run)
        await run.client.submit(task())
        await run.recover(row, each=_is_built)


def _is_built(process: ServiceProcess) -> None:
    assert {line["result"] for line in process.logged("backup_passed_over")} == {"damaged"}
    (opened,) = process.logged("partition_opened")
    assert opened["next_offset"] == 0


@pytest.mark.fault(
    what="the object store of the backups is down while the service runs",
    survives="the state, ingest and tasks; backups are made again once it answers",
    seen="`backup_failed`, `stream_cluster_backups_total` with the result `failed`, a rising "
    "`stream_cluster_backup_age_seconds`",
)
async def test_a_backup_store_that_is_down_hinders_nothing_else(
    stream: Stream, tmp_path: Path, row: Row, bucket: S3Server
) -> None:
    changes = {**bucket.backup_overrides(retry_s=0.2), **OFTEN}
    async with stream.run(tmp_path, **changes) as run:
        with run.start() as process:
            await asyncio.to_thread(process.wait_for, "partition_opened")
            bucket.gateway.down = True
            await run.ready(process)
            await asyncio.to_thread(process.wait_for, "backup_failed")
            await run.client.submit(task())
            status = await run.ended(process)
            row.check(read_archive(archive_file(status), status), stream.expected)
            bucket.gateway.down = False
            began = time.monotonic()
            await asyncio.to_thread(process.wait_for, "backup_stored")
            row.ready(began)
            await run.stop(process)
        _lose_the_disk(run)
        await run.recover(row, each=_is_restored, same_bytes=False)

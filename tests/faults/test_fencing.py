"""A worker that stood still while another one took its partition over: it writes nothing more."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.record import Row
from tests.faults.stream import RECOVERY_S, Run, Stream, task
from tests.support.archives import read_archive
from tests.support.client import ENDED, archive_file
from tests.support.kafka import eventually, read_topic
from tests.support.service import ServiceProcess

# The second batch with bad records: sent and not committed, then committed; the fifth batch; the last status.
STOPS = {"output_commit": 2, "dead_letter_produce": 2, "before_commit": 5, "status_produce": 2}


def _is_stopped(process: ServiceProcess) -> bool:
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


async def _written(run: Run) -> list[tuple[str, int, int]]:
    """Where every record for others is, of open and aborted transactions too."""
    return [
        (record.topic, record.partition, record.offset)
        for topic in (run.topics.results, run.topics.dead_letters)
        for record in await read_topic(run.stream.broker.bootstrap_servers, topic, committed=False)
    ]


@pytest.mark.fault(
    what="SIGSTOP for longer than the session time-out in the midst of a batch or before a last status, and "
    "SIGCONT after another worker took over",
    survives="everything; the brokers refuse what the stale worker still sends, its transaction is aborted, "
    "and it closes the partition; the task has one last status",
    seen="`outputs_fenced` and `partition_fenced` of the stale worker, "
    "`stream_cluster_fenced_partitions_total`",
    short={"output_commit", "status_produce"},
)
@pytest.mark.parametrize("point", STOPS)
async def test_a_stale_worker_writes_nothing_after_another_took_over(
    stream: Stream, tmp_path: Path, row: Row, point: str
) -> None:
    for name in ("stale", "owner"):
        (tmp_path / name).mkdir()
    async with stream.run(tmp_path / "stale") as run:
        owned = replace(run, folder=tmp_path / "owner")
        await run.client.submit(task())
        with run.start(f"{point}=stop@{STOPS[point]}") as stale:
            await eventually(lambda: _is_stopped(stale), RECOVERY_S, "the worker to stand still")
            began = time.monotonic()
            with owned.start() as owner:
                await owned.ready(owner)
                row.ready(began)
                status = await owned.ended(owner)
                written = await _written(run)
                stale.signal(signal.SIGCONT)
                await asyncio.to_thread(stale.wait_for, "partitions_assigned", 2, RECOVERY_S)
                row.count(rebalances=1)
                # The newest state is the owner's, so that the partition stays there.
                await asyncio.to_thread(owner.wait_for, "partitions_assigned", 2, RECOVERY_S)
                await owned.ready(owner)
                assert len(owner.logged("partition_opened")) == 1
                await asyncio.to_thread(stale.wait_for, "partition_closed", 1, RECOVERY_S)
                assert await _written(run) == written
                await run.stop(stale)
                await owned.stop(owner)
        archive = read_archive(archive_file(status), status)
        row.check(archive, stream.expected)
        assert archive_file(status).read_bytes() == stream.whole
        ends = [one for one in run.client.statuses("after the fault") if one["status"] in ENDED]
        assert len(ends) == 1
        await owned.check_dead_letters()
        owned.check_counters()

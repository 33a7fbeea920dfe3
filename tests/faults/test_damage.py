"""Files that were damaged while nobody looked."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from stream_cluster.cli.failures import BAD_STATE
from stream_cluster.state.database import database_path
from tests.faults.record import Row
from tests.faults.stream import Stream, task
from tests.support.service import ServiceProcess


def _flip(path: Path, offset: int, count: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        data = file.read(count)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in data))


def _page_of(table: str) -> Callable[[Path], None]:
    """Damages the first page of a table."""

    def damage(path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            (page,) = database.execute(
                "SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)
            ).fetchone()
            (size,) = database.execute("PRAGMA page_size").fetchone()
        _flip(path, (page - 1) * size, 64)

    return damage


def _codes(path: Path) -> None:
    """Damages one byte of a descriptor's code."""
    with closing(sqlite3.connect(path)) as database:
        (data,) = database.execute("SELECT data FROM codes ORDER BY key LIMIT 1").fetchone()
    offset = path.read_bytes().find(data[:256])
    assert offset > 0
    _flip(path, offset + 100, 1)


DAMAGES = {
    "the first page": lambda path: _flip(path, 0, 100),
    "the table of offsets": _page_of("offsets"),
    "the table of objects": _page_of("objects"),
    "a byte of a code": _codes,
}


@pytest.mark.fault(
    what="a damaged page of the database: the first one, one of a table's structure, one byte of a code",
    survives="the log: the database is restored from a backup, or moved away and built from Kafka",
    seen="`StateCorrupt` with the file and what to do; exit code 4",
)
@pytest.mark.parametrize("place", DAMAGES)
async def test_a_damaged_page_is_named_with_what_to_do_and_kafka_rebuilds_the_state(
    stream: Stream, tmp_path: Path, row: Row, place: str
) -> None:
    path = database_path(tmp_path / "state", 0)
    async with stream.run(tmp_path) as run:
        with run.start() as process:
            await run.ready(process)
            await run.stop(process)
        DAMAGES[place](path)
        await run.client.submit(task("reads everything", filters={"sources": ["cam0"]}))
        with run.start() as process:
            assert await run.died(process) == BAD_STATE, process.log()[-3000:]
            (failure,) = process.logged("service_failed")
        assert failure["kind"] == "StateCorrupt"
        assert str(path) in failure["error"]
        assert "restore this partition from a backup, or move the file away" in failure["error"]
        for file in path.parent.glob("partition-0*"):
            file.unlink()
        await run.client.submit(task())
        await run.recover(row)


@pytest.mark.fault(
    what="a write-ahead log that ends in the midst of a frame, as after a power cut",
    survives="everything: the state is that of an earlier commit, and the rest is read again from Kafka",
    seen="nothing but a lower `next_offset` in `partition_opened`",
)
async def test_a_torn_write_ahead_log_falls_back_to_an_earlier_commit(
    stream: Stream, tmp_path: Path, row: Row
) -> None:
    async with stream.run(tmp_path) as run:
        with run.start() as process:
            await run.ready(process)
            process.kill()
            row.count(kills=1)
        log = database_path(tmp_path / "state", 0).with_name("partition-0.sqlite-wal")
        size = log.stat().st_size
        with log.open("r+b") as file:
            file.truncate(size * 2 // 3)
        await run.client.submit(task())
        await run.recover(row, each=_went_back)


def _went_back(process: ServiceProcess) -> None:
    (opened,) = process.logged("partition_opened")
    assert 0 < opened["next_offset"] < process_records(process)


def process_records(process: ServiceProcess) -> int:
    """Where it came to in the end."""
    return int(process.logged("batch_applied")[-1]["next_offset"])


@pytest.mark.fault(
    what="a truncated index cache",
    survives="everything; the graph is built anew from the codes",
    seen="`hnsw_cache_rejected` with the reason `damaged`",
)
async def test_a_truncated_index_cache_is_refused_and_built_anew(
    stream: Stream, tmp_path: Path, row: Row
) -> None:
    async with stream.run(tmp_path, matching__engine="hnsw") as run:
        with run.start("decode=delay:0.05") as process:
            # Stopped in the midst of ingest, so that the next life needs the cache.
            await asyncio.to_thread(process.wait_for, "batch_applied", 3)
            await run.stop(process)
        (cache,) = (tmp_path / "state").glob("*.hnsw")
        with cache.open("r+b") as file:
            file.truncate(cache.stat().st_size // 2)
        await run.client.submit(task())
        await run.recover(row, each=_rejected)


def _rejected(process: ServiceProcess) -> None:
    (line,) = process.logged("hnsw_cache_rejected")
    assert line["reason"] == "damaged"

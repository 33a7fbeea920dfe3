"""A wall clock that jumps, forwards and backwards, by a year."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.faults.record import Row
from tests.faults.stream import RECOVERY_S, Stream, task
from tests.support.archives import read_archive
from tests.support.client import archive_file
from tests.support.shim import Shim

YEAR_S = 365 * 86_400
RETENTION_S = 1
"""Between two looks for what is past its age."""


def _days_since_the_events() -> int:
    return (datetime.now(UTC) - datetime(2026, 5, 1, tzinfo=UTC)).days


@pytest.mark.fault(
    what="the wall clock jumps a year, forwards or backwards, with retention by age and expiring archives",
    survives="everything: for an hour the jump is not followed, neither by deletions nor by deadlines",
    seen="`clock_jumped` with the seconds; `clock_steady` when it is right again, `clock_believed` after "
    "the hour",
)
@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["forwards", "backwards"])
async def test_a_clock_that_jumps_deletes_nothing_and_moves_no_deadline(
    stream: Stream, tmp_path: Path, row: Row, shim: Shim, jump_s: int
) -> None:
    retention_days = _days_since_the_events() + 100
    changes = {
        "retention__face": f"{retention_days}d",
        "retention__interval_s": RETENTION_S,
        "results__ttl_s": 30 * 86_400,
        "results__sweep_interval_s": 0.2,
    }
    async with stream.run(tmp_path, **changes) as run:
        with run.start("snapshot=delay:1", shim.environment) as process:
            await run.ready(process)
            await run.client.submit({**task("across the jump"), "deadline_s": 60})
            await run.client.reached("pending", "across the jump")
            began = time.monotonic()
            shim.jump(jump_s)
            status = await run.ended(process, "across the jump")
            assert 0 <= status["duration_s"] < RECOVERY_S
            (jumped,) = process.logged("clock_jumped")
            assert abs(jumped["jump_s"] - jump_s) < 60
            await run.client.submit({**task("after the jump"), "deadline_s": 60})
            after = await run.ended(process, "after the jump")
            row.ready(began)
            row.check(read_archive(archive_file(after), after), stream.expected)
            # Two looks of retention and of archives that expire.
            await asyncio.sleep(2 * RETENTION_S)
            shim.jump(0)
            await run.client.submit(task())
            right = await run.ended(process)
            row.check(read_archive(archive_file(right), right), stream.expected)
            assert archive_file(right).read_bytes() == stream.whole
            assert process.logged("clock_steady")
            assert not process.logged("retention_swept")
            assert archive_file(after).exists(), "an archive expired by a clock that was wrong"
            await run.stop(process)
        run.check_counters()

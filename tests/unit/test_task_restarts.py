"""Tasks across restarts, and several at once."""

from __future__ import annotations

import asyncio
import time

import pytest

from stream_cluster.messages import decode_task, encode_status, parse_time
from stream_cluster.snapshot import request as requested
from stream_cluster.state.tasks import StoredTask, TaskEnd, add_task, ask, end_task
from tests.support.kafka import eventually
from tests.support.life import Life, fill, seconds_since
from tests.support.partitions import open_partition
from tests.support.stages import NOT_REACHED, STAGES, Stall, archives, bucket, file_of


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path)
    return tmp_path


# -- restarts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["select", "match", "clusters", "report", "digest"])
async def test_a_task_under_way_at_the_end_of_the_process_is_done_once_afterwards(folder, stage):
    module, name, instead = STAGES[stage]
    with pytest.MonkeyPatch.context() as patch:
        stall = Stall(patch, module, name, instead)
        life = Life(folder)
        await life.__aenter__()
        await life.submit(content={"threshold": 0.2})
        await eventually(lambda: stall.reached, 5, stage)
        await life.die()
    assert {status.status for status in life.of()} <= {"pending", "in_progress"}
    async with Life(folder, life.statuses) as second:
        status = await second.has_ended()
    assert [one.status for one in second.of() if one.ended] == ["done"]
    assert archives(folder) == [file_of(status)]


@pytest.mark.parametrize("kind", ["directory", "bucket"])
async def test_a_process_that_ended_after_storing_and_before_the_status_says_it_once(folder, server, kind):
    settings = bucket(server) if kind == "bucket" else {}
    life = Life(folder, **settings)
    await life.__aenter__()
    hanging = asyncio.Event()

    async def hang(status, outputs, **_):
        if status.ended:
            hanging.set()
            await asyncio.Event().wait()
        life.statuses.sent.append(status)

    send, life.statuses.send = life.statuses.send, hang
    await life.submit()
    await asyncio.wait_for(hanging.wait(), 10)
    assert len(list(life.store.names())) == 1
    for driver in life.tasks._drivers.values():
        driver.cancel()
    life.runner._stopping = True
    await life.die()
    life.statuses.send = send
    async with Life(folder, life.statuses, **settings) as second:
        await second.has_ended()
        assert [one.status for one in second.of() if one.ended] == ["done"]
        assert len(list(second.store.names())) == 1
        second.store.delete(next(second.store.names()))


async def test_an_end_that_the_topic_knows_and_the_state_does_not_is_taken_over(folder):
    async with Life(folder) as life:
        await life.submit(result_ttl_s=1000)
        done = await life.has_ended()

        await life.execute("UPDATE tasks SET status = 'pending', ended_us = NULL, archive = NULL")
    second = Life(folder)
    second.ended = {("acme", "t"): done}
    async with second:
        row = second.row()
        assert (row.status, row.archive, row.expires_us) == ("done", "kept", parse_time(done.expires))
        assert second.statuses.sent == []


async def test_a_cancel_that_was_read_before_the_process_ended_holds_after_it(folder):
    async with Life(folder) as life:
        await life.submit(barrier=NOT_REACHED)
        # Noted, and gone before the task could act on it.
        await life.execute("UPDATE tasks SET asked = 'cancel'")
    async with Life(folder, life.statuses) as second:
        assert (await second.has_ended()).status == "cancelled"


async def test_the_deadline_counts_from_reading_across_restarts(folder):
    async with Life(folder) as life:
        await life.submit(barrier=NOT_REACHED, deadline_s=1.5)
        await asyncio.sleep(0.8)
    async with Life(folder, life.statuses) as second:
        began = time.monotonic()
        status = await second.has_ended()
        assert seconds_since(began) < 1.2
        assert status.error.code == "deadline_exceeded"
        assert status.duration_s > 1.4


async def test_a_task_whose_end_came_from_another_worker_is_only_remembered(folder):
    async with Life(folder) as life:
        await life.submit()
        done = await life.has_ended()
        count = len(life.statuses.sent)
        task = life.row("t").request
        other = decode_task(task.replace(b'"t"', b'"u"'))
        await life.tasks.accept(life.runner, other, 0, {}, done)
        assert len(life.statuses.sent) == count
        row = life.row("u")
        assert (row.status, row.archive, row.last_status) == ("done", "kept", encode_status(done))


# -- several at once -----------------------------------------------------------------------------------------


async def test_tasks_of_accounts_take_turns_when_the_slots_are_full(tmp_path, monkeypatch):
    fill(tmp_path, accounts=("busy", "small"))
    order = []
    real = requested.select
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def select(view, space, *arguments, **more):
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
        order.append(space.key.account_id)
        return real(view, space, *arguments, **more)

    monkeypatch.setattr(requested, "select", select)
    async with Life(tmp_path) as life:
        for number in range(12):
            await life.submit(f"busy-{number}", "busy")
        await life.submit("small", "small")
        await eventually(lambda: life.tasks._slots.waiting == 12, 5, "twelve in line")
        gate.set()
        await eventually(lambda: sum(status.ended for status in life.statuses.sent) == 13, 10, "all to end")
    assert order.index("small") <= 2
    assert {status.status for status in life.statuses.sent if status.ended} == {"done"}


async def test_as_many_tasks_run_at_once_as_the_setting_says(folder, monkeypatch):
    stall = Stall(monkeypatch, requested, "select")
    async with Life(folder, tasks__concurrency=3) as life:
        for number in range(5):
            await life.submit(str(number))
        await eventually(lambda: life.tasks._slots.held == 3, 5, "three to run")
        await asyncio.sleep(0.1)
        assert (life.tasks._slots.held, life.tasks._slots.waiting) == (3, 2)
        assert life.metrics.tasks_running._value.get() == 3
        assert stall.reached


def test_the_end_of_a_task_tells_whether_its_deletion_waits(folder):
    # `end_task` is what wakes the sweep for a delete that came while the last status was being sent.
    partition = open_partition(folder)
    partition.change_tasks(add_task, StoredTask("acme", "t", "pending", b"{}", 1, 0))
    end = TaskEnd("done", 2, b"{}", "kept", None, None)
    assert not partition.change_tasks(end_task, "acme", "t", end)
    assert partition.change_tasks(ask, "acme", "t", "delete").status == "done"
    assert partition.change_tasks(end_task, "acme", "t", end)
    partition.close()


async def test_a_task_that_waits_says_how_many_records_it_waits_for(tmp_path):
    fill(tmp_path)
    async with Life(tmp_path) as life:
        await life.submit(barrier=life.runner.next_offset + 7)
        status = await life.until("in_progress")
        assert (status.stage, status.progress, status.records_to_barrier) == ("wait", 0.0, 7)
        await life.cancel()
        assert (await life.has_ended()).records_to_barrier is None

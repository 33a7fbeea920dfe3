"""The last word of a task around a rebalance: said before it or after it, by one worker, and counted once."""

from __future__ import annotations

import asyncio

import pytest

from stream_cluster.errors import Cancelled
from stream_cluster.service.task_ends import TaskEnds
from tests.support.kafka import eventually
from tests.support.life import KeptStatuses, Life, fill

HELD_S = 0.3
"""Longer than any of these tasks takes."""


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path)
    return tmp_path


class GatedStatuses(KeptStatuses):
    """Last statuses wait for the brokers until `gate` is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.waiting = False

    async def send(self, status, outputs, **more):
        if status.ended:
            self.waiting = True
            await self.gate.wait()
        await super().send(status, outputs, **more)


def counted(life, status="done"):
    return life.metrics.registry.get_sample_value("stream_cluster_tasks_total", {"status": status})


def ends(life, task_id="t"):
    return [status.status for status in life.of(task_id) if status.ended]


async def snapshots_are_over(life):
    """Nothing is left of the tasks but their last words."""
    await eventually(lambda: not life.tasks.jobs, 10, "the snapshots to be over")


async def test_an_end_counts_once_it_is_said_whatever_becomes_of_the_note(folder, monkeypatch):
    async def is_lost(*_):
        raise Cancelled("the partition went away")

    monkeypatch.setattr(TaskEnds, "store", is_lost)
    async with Life(folder) as life:
        await life.submit()
        await life.until("done")
        await eventually(lambda: not life.tasks._drivers, 5, "the driver to end")
        assert counted(life) == 1
        assert life.row().ended_us is None
        said = life.of()[-1]
    monkeypatch.undo()
    # The next owner finds the word, and does not count it again.
    later = Life(folder)
    later.ended[said.account_id, said.task_id] = said
    async with later:
        await eventually(lambda: later.row().ended_us is not None, 5, "the end to be stored")
        assert counted(later) == 0
        assert ends(later) == []


async def test_no_end_is_said_while_partitions_may_change_hands(folder):
    async with Life(folder) as life:
        await life.tasks.hold_ends(5)
        await life.submit()
        await snapshots_are_over(life)
        await asyncio.sleep(HELD_S)
        assert ends(life) == []
        life.tasks.release_ends()
        await life.has_ended()
        assert ends(life) == ["done"]
        assert counted(life) == 1


async def test_a_held_end_of_a_lost_partition_is_left_to_the_next_owner(folder):
    async with Life(folder) as life:
        await life.tasks.hold_ends(5)
        await life.submit()
        await snapshots_are_over(life)
        life.tasks.give_up(life.runner)
        life.tasks.release_ends()
        await life.tasks.abandon(life.runner)
        assert ends(life) == []
        assert counted(life) == 0
        assert life.row().status == "pending"
    async with Life(folder) as later:
        assert (await later.has_ended()).status == "done"


async def test_a_stop_while_ends_are_held_waits_for_nobody(folder):
    async with Life(folder) as life:
        await life.tasks.hold_ends(5)
        await life.submit()
        await snapshots_are_over(life)
        await asyncio.wait_for(life.tasks.abandon(), 5)
        assert ends(life) == []


async def test_the_hold_waits_for_the_end_that_is_being_said(folder):
    statuses = GatedStatuses()
    async with Life(folder, statuses) as life:
        await life.submit()
        await eventually(lambda: statuses.waiting, 10, "the last word")
        hold = asyncio.create_task(life.tasks.hold_ends(60))
        await asyncio.sleep(HELD_S)
        assert not hold.done()
        statuses.gate.set()
        await asyncio.wait_for(hold, 10)
        assert ends(life) == ["done"]
        assert life.row().status == "done"


async def test_the_hold_waits_no_longer_than_it_may(folder):
    statuses = GatedStatuses()
    async with Life(folder, statuses) as life:
        await life.submit()
        await eventually(lambda: statuses.waiting, 10, "the last word")
        await asyncio.wait_for(life.tasks.hold_ends(0.05), 10)
        statuses.gate.set()
        await life.has_ended()


async def test_an_end_that_is_being_said_is_stored_before_its_partition_closes(folder):
    statuses = GatedStatuses()
    async with Life(folder, statuses) as life:
        await life.submit()
        await eventually(lambda: statuses.waiting, 10, "the last word")
        closing = asyncio.create_task(life.tasks.abandon(life.runner))
        await asyncio.sleep(HELD_S)
        assert not closing.done()
        statuses.gate.set()
        await asyncio.wait_for(closing, 10)
        assert life.row().status == "done"
        assert counted(life) == 1


async def test_a_task_that_is_read_while_its_partition_is_lost_does_not_start_there(folder):
    class Lost(KeptStatuses):
        async def send(self, status, outputs, **more):
            await super().send(status, outputs, **more)
            life.tasks.give_up(life.runner)

    life = Life(folder, Lost())
    async with life:
        with pytest.raises(Cancelled):
            await life.submit()
        assert life.tasks.jobs == []
    # It is in the state all the same, so whoever has the state next does it.
    async with Life(folder) as later:
        assert (await later.has_ended()).status == "done"

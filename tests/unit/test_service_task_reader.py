"""The task reader loses no task, whenever a partition comes to this worker."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition

from stream_cluster.messages import TaskStatus
from stream_cluster.service.task_reader import TaskReader
from tests.support.kafka import eventually

P, Q = TopicPartition("tasks", 0), TopicPartition("tasks", 1)
ONE, TWO = 1, 2
"""Numbers of partitions of the events topic; account `1` lies in the first, account `2` in the second."""


class FakeConsumer:
    """A log in memory with the part of aiokafka's consumer that the reader uses."""

    def __init__(self) -> None:
        self.log: dict[TopicPartition, list[bytes]] = {P: [], Q: []}
        self.positions = {P: 0, Q: 0}

    def add(self, partition: TopicPartition, account: int, task_id: str, kind: str = "clustering") -> None:
        """Append a task, or a request about one."""
        task = {"type": kind, "task_id": task_id, "account_id": str(account)}
        if kind == "clustering":
            task["content"] = {"objects_type": "events"}
        self.log[partition].append(json.dumps(task).encode())

    def assign(self, partitions: list[TopicPartition]) -> None:
        assert set(partitions) == {P, Q}

    async def seek_to_end(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self.positions[partition] = len(self.log[partition])

    async def position(self, partition: TopicPartition) -> int:
        return self.positions[partition]

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        await asyncio.sleep(0)
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: len(self.log[partition]) for partition in partitions}

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset

    async def getmany(self, timeout_ms: int) -> dict[TopicPartition, list[ConsumerRecord]]:
        await asyncio.sleep(0.001)
        fetched = {}
        for partition, values in self.log.items():
            begin, self.positions[partition] = self.positions[partition], len(values)
            if begin < len(values):
                fetched[partition] = [
                    _record(partition, offset, values[offset]) for offset in range(begin, len(values))
                ]
        return fetched


def _record(partition: TopicPartition, offset: int, value: bytes) -> Any:
    where = {"topic": partition.topic, "partition": partition.partition, "offset": offset}
    return SimpleNamespace(**where, timestamp=0, key=None, value=value, headers=())


def _done(task_id: str, **more: Any) -> TaskStatus:
    fields = {"account_id": "1", "status": "done", "progress": 1.0, "time": "2026-05-01T00:00:00Z"}
    return TaskStatus(task_id=task_id, **fields, **more)


def _runner(number: int, stored: dict[tuple[str, int], int]) -> Any:
    partition = SimpleNamespace(stored_offset=lambda topic, number: stored.get((topic, number)))
    return SimpleNamespace(number=number, partition=partition, other_offsets={})


class FakeTasks:
    """Notes what was accepted; `during` runs inside the acceptance of a task."""

    def __init__(self) -> None:
        self.accepted: dict[int, list[str]] = defaultdict(list)
        self.statuses: dict[str, TaskStatus | None] = {}
        self.deleted: list[str] = []
        self.during: dict[str, Callable[[], Awaitable[None]]] = {}

    async def accept(self, runner: Any, task: Any, barrier: int, offsets: Any, ended: Any) -> None:
        self.accepted[runner.number].append(task.task_id)
        self.statuses[task.task_id] = ended
        if task.task_id in self.during:
            await self.during.pop(task.task_id)()

    async def delete(self, runner: Any, account_id: str, task_id: str, offsets: Any) -> None:
        self.deleted.append(task_id)


class Stage:
    """A reader over a log and two partitions, of which none is attached yet."""

    def __init__(self) -> None:
        self.consumer, self.tasks = FakeConsumer(), FakeTasks()
        self.one, self.two = _runner(ONE, {}), _runner(TWO, {})
        self.runners: dict[int, Any] = {}

        self.ended: dict[tuple[str, str], TaskStatus] = {}

        async def end_of(_: int) -> int:
            return 0

        async def read_ended() -> Any:
            return self.ended

        self.reader = TaskReader(
            self.consumer,
            [P, Q],
            self.runners,
            partition_of=int,
            end_of=end_of,
            read_ended=read_ended,
            tasks=self.tasks,
        )

    async def attach(self, runner: Any) -> None:
        """As when a partition has been opened."""
        self.runners[runner.number] = runner
        await self.reader.attach(runner)

    async def read(self, expected: dict[int, list[str]]) -> None:
        """Run until every task has been accepted; then no more may come."""
        running = asyncio.create_task(self.reader.run())
        try:
            count = sum(map(len, expected.values()))
            await eventually(lambda: sum(map(len, self.tasks.accepted.values())) >= count, 2, f"{expected}")
            await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert self.tasks.accepted == expected


async def test_a_partition_sees_the_tasks_from_its_own_offset_on() -> None:
    stage = Stage()
    for number in range(4):
        stage.consumer.add(P, ONE, f"one-{number}")
        stage.consumer.add(P, TWO, f"two-{number}")
    await stage.reader.start()
    stage.one = _runner(ONE, {("tasks", 0): 4})
    await stage.attach(stage.one)
    await stage.attach(stage.two)
    await stage.read({ONE: ["one-2", "one-3"], TWO: ["two-0", "two-1", "two-2", "two-3"]})


async def test_a_task_that_comes_while_its_partition_is_opened_does_not_hide_older_ones() -> None:
    stage = Stage()
    stage.consumer.add(P, ONE, "older")
    await stage.reader.start()
    stage.runners[ONE] = stage.one
    stage.consumer.add(P, ONE, "newer")
    stage.consumer.add(P, TWO, "attaches one")
    stage.tasks.during["attaches one"] = lambda: stage.attach(stage.one)
    await stage.attach(_runner(TWO, {("tasks", 0): 1, ("tasks", 1): 0}))
    await stage.read({ONE: ["older", "newer"], TWO: ["attaches one"]})


async def test_going_back_in_one_partition_of_the_task_topic_drops_nothing_of_another() -> None:
    stage = Stage()
    stage.consumer.add(Q, TWO, "older")
    await stage.reader.start()
    await stage.attach(_runner(ONE, {("tasks", 0): 0, ("tasks", 1): 1}))
    for number in range(3):
        stage.consumer.add(P, ONE, f"one-{number}")
    stage.tasks.during["one-0"] = lambda: stage.attach(stage.two)
    await stage.read({ONE: ["one-0", "one-1", "one-2"], TWO: ["older"]})


async def test_tasks_that_were_fetched_before_going_back_do_not_hide_older_ones() -> None:
    stage = Stage()
    stage.consumer.add(Q, TWO, "older")
    await stage.reader.start()
    await stage.attach(_runner(ONE, {("tasks", 0): 0, ("tasks", 1): 1}))
    stage.consumer.add(P, ONE, "one")
    stage.consumer.add(Q, TWO, "newer")
    stage.tasks.during["one"] = lambda: stage.attach(stage.two)
    await stage.read({ONE: ["one"], TWO: ["older", "newer"]})


async def test_a_state_without_memory_takes_over_what_became_of_old_tasks() -> None:
    stage = Stage()
    stage.ended = {("1", "old"): _done("old"), ("2", "new"): _done("new")}
    stage.consumer.add(P, ONE, "old")
    stage.consumer.add(P, ONE, "new")
    await stage.reader.start()
    await stage.attach(stage.one)
    await stage.read({ONE: ["old", "new"]})
    assert stage.tasks.statuses == {"old": stage.ended["1", "old"], "new": None}


async def test_a_state_that_is_less_behind_than_another_takes_over_too() -> None:
    stage = Stage()
    stage.ended = {("1", "old"): _done("old"), ("2", "answered elsewhere"): _done("answered elsewhere")}
    stage.consumer.add(P, ONE, "old")
    stage.consumer.add(P, TWO, "answered elsewhere")
    await stage.reader.start()
    # The first makes the reader go back to the beginning, before where the second begins.
    await stage.attach(stage.one)
    await stage.attach(_runner(TWO, {("tasks", 0): 1, ("tasks", 1): 0}))
    await stage.read({ONE: ["old"], TWO: ["answered elsewhere"]})
    assert stage.tasks.statuses == {
        "old": stage.ended["1", "old"],
        "answered elsewhere": stage.ended["2", "answered elsewhere"],
    }


async def test_a_state_that_is_not_behind_needs_no_history() -> None:
    stage = Stage()
    stage.ended = {("1", "task"): _done("task")}
    await stage.reader.start()
    await stage.attach(_runner(ONE, {("tasks", 0): 0, ("tasks", 1): 0}))
    stage.consumer.add(P, ONE, "task")
    await stage.read({ONE: ["task"]})
    assert stage.tasks.statuses == {"task": None}


async def test_a_removal_that_was_answered_in_an_earlier_life_is_not_asked_for_again() -> None:
    stage = Stage()
    stage.ended = {("1", "gone"): _done("gone", archive_removed="deleted"), ("1", "there"): _done("there")}
    stage.consumer.add(P, ONE, "gone", "delete")
    stage.consumer.add(P, ONE, "there", "delete")
    stage.consumer.add(P, ONE, "last")
    await stage.reader.start()
    await stage.attach(stage.one)
    await stage.read({ONE: ["last"]})
    assert stage.tasks.deleted == ["there"]

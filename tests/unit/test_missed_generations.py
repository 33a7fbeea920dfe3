"""Partitions that a worker gets again after a generation of the group without it."""

from __future__ import annotations

import asyncio
from unittest.mock import MagicMock

import pytest
from aiokafka import TopicPartition

from stream_cluster.config import Settings
from stream_cluster.service import assignment as module
from stream_cluster.service.assignment import Assignment


class Watched(Assignment):
    """An assignment whose partitions open and close at once."""

    def __init__(self) -> None:
        consumer = MagicMock()
        consumer.partitions_for_topic.return_value = {0, 1}
        super().__init__(
            Settings(),
            consumer,
            MagicMock(),
            MagicMock(),
            partitions=2,
            opener=MagicMock(),
            new_outputs=MagicMock(),
            fail=pytest.fail,
        )
        self.seen: list[str] = []

    async def _open(self, partition, outputs):
        await self._until_left(partition)
        self.seen.append(f"open {partition.partition}")
        self.runners[partition.partition] = MagicMock()
        del self._opening[partition], self._leavers[partition]

    async def _close(self, number):
        self.seen.append(f"close {number}")
        del self.runners[number]


async def assigned(watched, monkeypatch, generation, numbers):
    """What a new assignment leads to."""
    monkeypatch.setattr(module, "generation_of", lambda _: generation)
    await watched._on_assigned({TopicPartition(watched._topic, number) for number in numbers})
    while watched._opening or watched._leaving:
        await asyncio.wait([*watched._opening.values(), *watched._leaving.values()])
    seen, watched.seen = sorted(watched.seen), []
    return seen


async def test_only_what_was_held_in_every_generation_stays_open(monkeypatch):
    watched = Watched()
    assert await assigned(watched, monkeypatch, 7, {0, 1}) == ["open 0", "open 1"]
    # The next generation, and joining the same one again: nobody can have had it between.
    assert await assigned(watched, monkeypatch, 8, {0, 1}) == []
    assert await assigned(watched, monkeypatch, 8, {0, 1}) == []
    assert await assigned(watched, monkeypatch, 9, {0}) == ["close 1"]
    # Somebody else may have had it in 10.
    assert await assigned(watched, monkeypatch, 11, {0}) == ["close 0", "open 0"]
    # A group that was forgotten counts from the start.
    assert await assigned(watched, monkeypatch, 1, {0}) == ["close 0", "open 0"]

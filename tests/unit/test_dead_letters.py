"""A rejected record that does not fit into the dead-letter topic stops nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from stream_cluster.errors import ConfigError
from stream_cluster.messages import RawRecord, Reason, Rejection
from stream_cluster.service.dead_letters import DeadLetters
from stream_cluster.service.metrics import Metrics
from tests.support.life import OwnOutputs


class FakeProducer:
    """Takes records up to a size; refuses others at once, or when the broker answers."""

    def __init__(self, most_bytes: int, *, late: bool) -> None:
        self.most_bytes, self.late = most_bytes, late
        self.taken: list[dict[str, Any]] = []

    async def send(self, topic: str, **record: Any) -> asyncio.Future[None]:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        size = len(record["value"] or b"") + len(record["key"] or b"")
        size += sum(len(name) + len(value) for name, value in record["headers"])
        if size <= self.most_bytes:
            self.taken.append(record)
            answer.set_result(None)
        elif self.late:
            answer.set_exception(MessageSizeTooLargeError())
        else:
            raise MessageSizeTooLargeError
        return answer

    async def send_and_wait(self, topic: str, **record: Any) -> None:
        await (await self.send(topic, **record))


def _rejected(offset: int, size: int, **more: Any) -> tuple[RawRecord, Rejection]:
    fields = {"key": b"acme", "content_type": None, **more}
    record = RawRecord("events", 2, offset, 0, fields["key"], b"x" * size, fields["content_type"])
    return record, Rejection(Reason.TOO_LARGE, "found many bytes", None)


@pytest.mark.parametrize("late", [False, True])
async def test_one_that_is_too_large_goes_without_its_value_and_the_others_with_theirs(late: bool) -> None:
    producer, metrics = FakeProducer(1000, late=late), Metrics()
    letters = DeadLetters("dead", metrics)
    huge = _rejected(2, 5000, key=b"k" * 2000, content_type="c" * 3000)
    rejections = [_rejected(1, 10), huge, _rejected(3, 20)]
    await letters.send(rejections, OwnOutputs(producer), give_up=lambda: False)
    by_offset = {dict(record["headers"])["source-offset"]: record for record in producer.taken}
    assert {offset: record["value"] for offset, record in by_offset.items()} == {
        b"1": b"x" * 10,
        b"2": None,
        b"3": b"x" * 20,
    }
    headers = dict(by_offset[b"2"]["headers"])
    assert headers["value-omitted"] == b"5000"
    assert headers["reason"] == b"too_large"
    assert by_offset[b"2"]["key"] is None
    assert "value-omitted" not in dict(by_offset[b"1"]["headers"])
    assert metrics.registry.get_sample_value("stream_cluster_dead_letters_total") == 3


async def test_a_topic_that_takes_nothing_is_a_matter_of_its_settings() -> None:
    letters = DeadLetters("dead", Metrics())
    outputs = OwnOutputs(FakeProducer(10, late=True))
    with pytest.raises(ConfigError, match=r"topic dead refuses even .* max\.message\.bytes"):
        await letters.send([_rejected(1, 10)], outputs, give_up=lambda: False)

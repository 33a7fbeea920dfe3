"""What a partition's former owner still writes is refused by real brokers, however far it came."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from stream_cluster.config import load_settings
from stream_cluster.errors import BrokerUnavailable, Cancelled
from stream_cluster.sandbox import Broker
from stream_cluster.service.outputs import FencedOutputs
from tests.support.kafka import create_topics, eventually, read_topic

NUMBER = 3


class Member:
    """A worker of a group that this test plays."""

    def __init__(self, bootstrap_servers: str, group: str, topic: str, **changes: Any) -> None:
        overrides = {"kafka.bootstrap_servers": bootstrap_servers, "kafka.group_id": group, **changes}
        self.topic = topic
        self.standing = "owner"
        self.asked = self.lost = 0
        kafka = load_settings(None, {}, overrides).kafka
        self.outputs = FencedOutputs(NUMBER, kafka, self._ask, self._lose)

    async def _ask(self) -> Any:
        self.asked += 1
        return self.standing

    def _lose(self) -> None:
        self.lost += 1

    async def tell(self, *texts: str, between: Callable[[], Any] | None = None) -> None:
        """Write in one transaction; `between` is awaited before its commit."""

        async def send(producer: Any) -> None:
            for text in texts:
                await producer.send_and_wait(self.topic, text.encode(), key=b"account")
            if between is not None:
                await between()

        await self.outputs.write(send, self.topic, give_up=lambda: False)


class Group:
    """Members of one group, and what readers see of them."""

    def __init__(self, broker: Broker, topic: str, stack: AsyncExitStack) -> None:
        self.broker, self.topic, self._stack = broker, topic, stack

    def member(self, **changes: Any) -> Member:
        found = Member(self.broker.bootstrap_servers, f"{self.topic}-group", self.topic, **changes)
        self._stack.push_async_callback(found.outputs.close)
        return found

    async def seen(self, *, committed: bool = True) -> list[str]:
        records = await read_topic(self.broker.bootstrap_servers, self.topic, committed=committed)
        return [record.value.decode() for record in records]


@pytest.fixture
async def group(broker: Broker, unique_topics: Callable[[str], str]) -> Any:
    topic = unique_topics("outputs")
    await create_topics(broker.bootstrap_servers, {topic: 1}, {"max.message.bytes": "20000"})
    async with AsyncExitStack() as stack:
        yield Group(broker, topic, stack)


async def test_a_producer_of_the_old_epoch_is_refused_and_its_worker_loses_the_partition(
    group: Group,
) -> None:
    stale, owner = group.member(), group.member()
    await stale.outputs.take_over()
    await stale.tell("by the first")
    await owner.outputs.take_over()
    stale.standing = "given_up"
    with pytest.raises(Cancelled, match="partition 3 is no longer ours"):
        await stale.tell("too late")
    assert stale.lost == 1
    await owner.tell("by the second")
    assert await group.seen(committed=False) == ["by the first", "by the second"]


async def test_a_transaction_that_is_open_at_the_takeover_is_aborted_and_cannot_be_committed(
    group: Group,
) -> None:
    stale, owner = group.member(), group.member()

    async def taken_over() -> None:
        await owner.outputs.take_over()
        stale.standing = "given_up"

    with pytest.raises(Cancelled):
        await stale.tell("sent", "and acknowledged", between=taken_over)
    await owner.tell("by the owner")
    assert await group.seen() == ["by the owner"]
    assert await group.seen(committed=False) == ["sent", "and acknowledged", "by the owner"]


async def test_an_owner_that_was_fenced_by_a_stale_worker_writes_again(group: Group) -> None:
    stale, owner = group.member(), group.member()
    await owner.outputs.take_over()
    await owner.tell("one")
    stale.standing = "given_up"
    await stale.outputs.take_over()  # of a worker that does not know yet
    with pytest.raises(Cancelled):
        await stale.tell("never")
    await owner.tell("two")
    assert owner.lost == 0
    assert await group.seen(committed=False) == ["one", "two"]


async def test_the_group_is_asked_once_after_a_takeover_and_until_it_answers(group: Group) -> None:
    owner = group.member()
    await owner.outputs.take_over()
    owner.standing = "unknown"
    writing = asyncio.create_task(owner.tell("one"))
    await eventually(lambda: owner.asked >= 2, 20, "the group to be asked again")
    assert await group.seen(committed=False) == []
    owner.standing = "owner"
    await writing
    asked = owner.asked
    await owner.tell("two")
    assert owner.asked == asked
    assert await group.seen() == ["one", "two"]


async def test_a_writer_that_is_cancelled_leaves_a_whole_transaction_behind(group: Group) -> None:
    owner = group.member()
    is_sent = asyncio.Event()

    async def linger() -> None:
        is_sent.set()
        await asyncio.sleep(0.2)

    writing = asyncio.create_task(owner.tell("half", "and half", between=linger))
    await is_sent.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await owner.tell("after it")
    assert await group.seen() == ["half", "and half", "after it"]


async def test_what_is_too_large_fails_alone(group: Group) -> None:
    owner = group.member()
    await owner.tell("one")
    with pytest.raises(MessageSizeTooLargeError):
        await owner.tell("fits", "x" * 50_000)
    await owner.tell("two")
    assert await group.seen() == ["one", "two"]


async def test_writers_of_one_partition_take_turns(group: Group) -> None:
    owner = group.member()
    await asyncio.gather(*(owner.tell(f"{number} a", f"{number} b") for number in range(5)))
    seen = await group.seen()
    assert seen == [text for number in range(5) for text in (f"{number} a", f"{number} b")]


async def test_brokers_that_do_not_answer_are_waited_for_until_it_is_time_to_leave(group: Group) -> None:
    nowhere = {"kafka.request_timeout_ms": 1000}
    nobody = Member("127.0.0.1:1", "group", group.topic, **nowhere)
    taking = asyncio.create_task(nobody.outputs.take_over())
    with pytest.raises(BrokerUnavailable):
        await Member("127.0.0.1:1", "group", group.topic, **nowhere).outputs.write(
            lambda producer: producer.send_and_wait(group.topic, b"x"), group.topic, give_up=lambda: True
        )
    assert not taking.done()
    nobody.outputs.leave()
    with pytest.raises(Cancelled):
        await taking
    await nobody.outputs.close()

"""Messages of a hundred megabytes, on a broker that takes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import LocalBroker, start_local_broker
from stream_cluster.sandbox.broker import MIB, BrokerOptions, RouteClosed
from tests.conftest import no_broker
from tests.support import kafka
from tests.support.client import client_of, clustering
from tests.support.service import ServiceProcess, Topics, overrides_of

HUGE_BYTES = 100 * 1_000_000
LIMIT_BYTES = 128 * MIB


@pytest.fixture(scope="module")
def large_broker() -> Iterator[LocalBroker]:
    """A broker whose largest message is beyond the usual."""
    options = BrokerOptions(message_max_bytes=LIMIT_BYTES, heap_max_mib=1024)
    try:
        broker = start_local_broker(options, lambda _: None)
    except RouteClosed as reason:
        no_broker(reason)
        return
    with broker:
        yield broker


def _huge(account: str) -> bytes:
    event = json.loads(
        next(iter(generate_events(GenerateOptions(events=1, dim=16, accounts=(account,))))).value
    )
    event["event_id"] = "huge"
    event["meta"] = {"padding": "x" * HUGE_BYTES}
    return json.dumps(event).encode()


async def _send(broker: LocalBroker, topics: Topics, values: list[bytes]) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap_servers, max_request_size=LIMIT_BYTES, request_timeout_ms=120_000
    )
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topics.events, value, key=b"demo")
    finally:
        await producer.stop()


async def _letters(broker: LocalBroker, topic: str, count: int) -> list:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=broker.bootstrap_servers,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=LIMIT_BYTES,
        fetch_max_bytes=LIMIT_BYTES,
    )
    await consumer.start()
    try:
        async with asyncio.timeout(120):
            return [await consumer.getone() for _ in range(count)]
    finally:
        await consumer.stop()


def _peak_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("takes_them", [False, True], ids=["limit of 10 MiB", "limit of 128 MiB"])
async def test_a_message_of_a_hundred_megabytes(
    large_broker: LocalBroker, tmp_path: Path, takes_them: bool
) -> None:
    topics = Topics.named("large")
    counts = {topics.events: 1, topics.tasks: 2, topics.results: 2, topics.dead_letters: 1}
    await kafka.create_topics(large_broker.bootstrap_servers, counts)
    good = [record.value for record in generate_events(GenerateOptions(events=40, dim=16))]
    changes = {"kafka__max_message_bytes": LIMIT_BYTES} if takes_them else {}
    overrides = overrides_of(large_broker, topics, tmp_path, **changes)
    with ServiceProcess(overrides, tmp_path / "log") as process:
        await asyncio.to_thread(process.wait_for, "partition_opened")
        pid = process._process.pid
        before = psutil.Process(pid).memory_info().rss
        huge = _huge("demo")
        await _send(large_broker, topics, [*good[:20], huge, huge, huge, *good[20:]])
        async with client_of(large_broker, topics) as client:
            await client.submit(clustering("after", threshold=0.5))
            status = await client.ended("after", timeout_s=240)
        assert status["status"] == "done", status
        assert status["objects"] == len(good) + takes_them
        # The record as fetched, as bytes, and as a decoded message; not one for each of the three.
        grown = _peak_bytes(pid) - before
        print(f"peak memory grew by {grown / 1e6:.0f} MB")
        assert grown < 8 * HUGE_BYTES
        process.terminate()
        assert (await asyncio.to_thread(process.wait, 60))[0] == 0
    if takes_them:
        return
    for letter in await _letters(large_broker, topics.dead_letters, 3):
        headers = dict(letter.headers)
        assert headers["reason"] == b"too_large"
        # With this limit the service's own producer would not send it again.
        assert letter.value is None
        assert headers["value-omitted"] == str(len(huge)).encode()
        assert letter.key == b"demo"
    assert len(process.logged("dead_letter_without_value")) == 3

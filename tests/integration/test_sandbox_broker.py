"""The sandbox broker does what the service and its tests will ask of a Kafka."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from stream_cluster.errors import BrokerUnavailable
from stream_cluster.sandbox import Broker, BrokerOptions, LocalBroker, start_local_broker
from stream_cluster.sandbox.broker import RouteClosed
from stream_cluster.sandbox.external import ADDRESS_VARIABLE
from stream_cluster.sandbox.jars import require_jars_or_maven
from tests.conftest import no_broker
from tests.support import kafka

NewTopic = Callable[[str, int], Awaitable[str]]


async def test_broker_is_real_and_says_what_it_is(broker: Broker) -> None:
    assert broker.is_real
    assert broker.kind in {"external", "docker", "maven"}
    assert broker.bootstrap_servers in str(broker)
    broker.check()


async def test_records_come_back_with_key_value_and_headers(broker: Broker, new_topic: NewTopic) -> None:
    topic = await new_topic("events", 3)
    records = [(b"key-%d" % (i % 7), b"value-%d" % i, [("n", b"%d" % i)]) for i in range(200)]
    placed = await kafka.produce(broker.bootstrap_servers, topic, records)
    found = await kafka.read_topic(broker.bootstrap_servers, topic)
    assert sorted((r.key, r.value, list(r.headers)) for r in found) == sorted(records)
    assert {(m.partition, m.offset) for m in placed} == {(r.partition, r.offset) for r in found}
    for number in range(7):
        assert len({r.partition for r in found if r.key == b"key-%d" % number}) == 1


async def test_keys_go_to_the_partition_that_murmur2_gives(broker: Broker, new_topic: NewTopic) -> None:
    topic = await new_topic("events", 10)
    # Kafka's murmur2 of b"21" is -973932308 (UtilsTest in Apache Kafka); & 0x7fffffff, modulo 10.
    placed = await kafka.produce(broker.bootstrap_servers, topic, [(b"21", b"", [])])
    assert placed[0].partition == (-973932308 & 0x7FFFFFFF) % 10


async def test_a_record_of_ten_mebibytes_passes(broker: Broker, new_topic: NewTopic) -> None:
    if broker.kind == "external":
        pytest.skip("the largest message of an external broker is its owner's choice")
    topic = await new_topic("large", 1)
    value = os.urandom(10 * 1024 * 1024)
    await kafka.produce(broker.bootstrap_servers, topic, [(None, value, [])])
    assert [record.value for record in await kafka.read_topic(broker.bootstrap_servers, topic)] == [value]


async def test_consumer_group_goes_on_where_it_committed(broker: Broker, new_topic: NewTopic) -> None:
    topic = await new_topic("events", 1)
    await kafka.produce(broker.bootstrap_servers, topic, [(None, b"%d" % i, []) for i in range(6)])

    async def take(count: int) -> list[bytes]:
        consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=broker.bootstrap_servers,
            group_id=topic,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        await consumer.start()
        try:
            async with asyncio.timeout(30):
                values = [(await consumer.getone()).value for _ in range(count)]
            await consumer.commit()
            return values
        finally:
            await consumer.stop()

    assert await take(2) == [b"0", b"1"]
    assert await take(4) == [b"2", b"3", b"4", b"5"]


async def test_offsets_are_found_by_end_and_by_time(broker: Broker, new_topic: NewTopic) -> None:
    topic = await new_topic("events", 1)
    await kafka.produce(broker.bootstrap_servers, topic, [(None, b"early", [])])
    await asyncio.sleep(0.02)
    between_ms = int(time.time() * 1000)
    await asyncio.sleep(0.02)
    await kafka.produce(broker.bootstrap_servers, topic, [(None, b"late", []), (None, b"later", [])])
    partition = TopicPartition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers)
    await consumer.start()
    try:
        consumer.assign([partition])
        assert await consumer.end_offsets([partition]) == {partition: 3}
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        found = await consumer.offsets_for_times({partition: between_ms})
        assert found[partition].offset == 1
    finally:
        await consumer.stop()


async def test_topics_are_not_created_by_asking_for_them(
    broker: Broker, unique_topics: Callable[[str], str]
) -> None:
    if broker.kind == "external":
        pytest.skip("automatic creation of topics on an external broker is its owner's choice")
    with pytest.raises((KafkaError, TimeoutError)):
        async with asyncio.timeout(2):
            await kafka.produce(broker.bootstrap_servers, unique_topics("absent"), [(None, b"", [])])


async def test_killed_broker_keeps_its_data_and_its_port(
    local_broker: LocalBroker, unique_topics: Callable[[str], str]
) -> None:
    topic = unique_topics("events")
    address = local_broker.bootstrap_servers
    await kafka.create_topics(address, {topic: 2})
    await kafka.produce(address, topic, [(b"%d" % i, b"before", []) for i in range(50)])
    local_broker.kill()
    local_broker.check()
    with pytest.raises(KafkaError):
        await kafka.read_topic(address, topic, timeout_s=2)
    local_broker.restart()
    assert local_broker.bootstrap_servers == address
    await kafka.produce(address, topic, [(b"51", b"after", [])])
    values = [record.value for record in await kafka.read_topic(address, topic)]
    assert sorted(values) == [b"after"] + [b"before"] * 50


async def test_frozen_broker_goes_on_and_a_death_by_itself_is_noticed(
    local_broker: LocalBroker, unique_topics: Callable[[str], str]
) -> None:
    topic = unique_topics("events")
    second = local_broker.addresses("SECOND")
    assert second != local_broker.bootstrap_servers
    await kafka.create_topics(second, {topic: 1})
    await kafka.produce(second, topic, [(None, b"value", [])])
    local_broker.pause()
    with pytest.raises((KafkaError, TimeoutError)):
        async with asyncio.timeout(1):
            await kafka.read_topic(second, topic)
    local_broker.resume()
    assert len(await kafka.read_topic(second, topic)) == 1

    java_below(os.getpid(), local_broker.log_path.parent).kill()
    with pytest.raises(BrokerUnavailable, match="exit code -9"):
        kafka.wait_until(lambda: notices_nothing(local_broker), 10, "the death to be noticed")


@pytest.mark.parametrize(
    "properties",
    [
        pytest.param({"message.max.bytes": "many"}, id="refused by the storage tool"),
        pytest.param({"metric.reporters": "no.such.Reporter"}, id="refused by the broker"),
    ],
)
def test_kafka_that_does_not_start_shows_why_and_leaves_nothing(
    local_kafka: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, properties: dict[str, str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = set(psutil.Process().children())
    with pytest.raises(RouteClosed) as error:
        start_local_broker(BrokerOptions(extra_properties=properties), lambda _: None)
    assert next(iter(properties.values())) in str(error.value)
    assert list(tmp_path.iterdir()) == []
    assert set(psutil.Process().children()) <= before


@pytest.mark.slow
def test_three_brokers_replicate_and_outlive_one(
    local_kafka: None, unique_topics: Callable[[str], str]
) -> None:
    topic = unique_topics("events")

    async def fill_and_read(bootstrap_servers: str) -> int:
        await kafka.produce(bootstrap_servers, topic, [(None, b"value", [])] * 10)
        return len(await kafka.read_topic(bootstrap_servers, topic))

    with start_local_broker(BrokerOptions(brokers=3), lambda _: None) as three:
        asyncio.run(kafka.create_topics(three.bootstrap_servers, {topic: 3}, replication_factor=3))
        assert asyncio.run(fill_and_read(three.bootstrap_servers)) == 10
        three.kill(0)
        left = ",".join(three.bootstrap_servers.split(",")[1:])
        assert asyncio.run(fill_and_read(left)) == 20


def test_broker_dies_with_its_launcher(local_kafka: None, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != ADDRESS_VARIABLE}
    # No engine at that address, so that it is a local process wherever the test runs.
    environment |= {"DOCKER_HOST": "tcp://127.0.0.1:1", "TMPDIR": str(tmp_path)}
    launcher = subprocess.Popen(
        [sys.executable, "-m", "stream_cluster.sandbox"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    with launcher:
        try:
            assert launcher.stdout is not None
            address = launcher.stdout.readline().strip()
            java = java_below(launcher.pid, tmp_path)
        finally:
            launcher.kill()
    kafka.wait_until(lambda: not java.is_running(), 10, f"the broker at {address} to die")
    kafka.wait_until(lambda: list(tmp_path.iterdir()) == [], 10, "its folder to be removed")


def notices_nothing(broker: LocalBroker) -> bool:
    """Never true: ends only by the exception that `check` raises."""
    broker.check()
    return False


def java_below(pid: int, folder: Path) -> psutil.Process:
    """The Kafka process that `pid` started in `folder`."""
    children = psutil.Process(pid).children()
    return next(child for child in children if Path(child.cwd()).is_relative_to(folder))


@pytest.fixture
def local_kafka() -> None:
    """Skip, or fail in CI, where no local Kafka can be had."""
    try:
        require_jars_or_maven()
    except RouteClosed as reason:
        no_broker(reason)

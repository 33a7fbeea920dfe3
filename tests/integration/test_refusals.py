"""What the service refuses to run with, and what it says then."""

from __future__ import annotations

import asyncio
import gc
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from stream_cluster.errors import BrokerUnavailable, ConfigError, LogGap, StateLocked, StreamClusterError
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from tests.support.client import client_of, clustering
from tests.support.service import (
    ServiceProcess,
    Topics,
    Worker,
    make_topics,
    overrides_of,
    running_service,
)
from tests.support.topics import add_partitions, delete_records, recreate, topic_sizes

PERSON_ACTS, NO_ANSWER, STATE_UNUSABLE, GAP = 2, 3, 4, 5


async def _fill(broker: Broker, topics: Topics, folder: Path, count: int = 40) -> None:
    """Let a service apply some records, and stop it."""
    async with client_of(broker, topics) as client, running_service(broker, topics, folder) as worker:
        await client.produce(generate_events(GenerateOptions(events=count, dim=8)))
        await worker.applied(count)


async def _refusal(broker: Broker, topics: Topics, folder: Path, **changes: Any) -> StreamClusterError:
    """The error that ends a service that starts."""
    async with running_service(broker, topics, folder, wait=False, **changes) as worker:
        error = await worker.ended()
    assert isinstance(error, StreamClusterError), error
    return error


def _exit(process: ServiceProcess, timeout_s: float = 20) -> tuple[int, str]:
    """(exit code, what it wrote last)."""
    with process:
        code, _ = process.wait(timeout_s)
    assert "Traceback" not in process.log()
    return code, process.log().splitlines()[-1]


async def test_a_state_of_another_number_of_partitions_is_refused(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "grown")
    await _fill(broker, topics, tmp_path)
    await add_partitions(broker.bootstrap_servers, topics.events, 3)
    error = await _refusal(broker, topics, tmp_path)
    assert isinstance(error, ConfigError)
    for part in ("partition-0.sqlite", "partitions = '1'", "'3'"):
        assert part in str(error)
    process = ServiceProcess(overrides_of(broker, topics, tmp_path), tmp_path / "log")
    code, last = await asyncio.to_thread(_exit, process)
    assert code == PERSON_ACTS
    assert "partitions" in last


async def test_a_state_of_another_topic_is_refused(broker: Broker, tmp_path: Path) -> None:
    topics, others = await make_topics(broker, "mine"), await make_topics(broker, "another")
    await _fill(broker, topics, tmp_path)
    error = await _refusal(broker, others, tmp_path)
    assert isinstance(error, ConfigError)
    assert topics.events in str(error)
    assert others.events in str(error)
    await _fill(broker, topics, tmp_path, 0)  # it still is what it was


async def test_a_state_of_another_partitioner_is_refused(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "partitioner")
    await _fill(broker, topics, tmp_path)
    error = await _refusal(broker, topics, tmp_path, kafka__partitioner="crc32")
    assert isinstance(error, ConfigError)
    assert "murmur2" in str(error)
    assert "crc32" in str(error)


async def test_a_second_process_on_a_state_directory_is_refused(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "locked")
    async with running_service(broker, topics, tmp_path) as worker:
        error = await _refusal(broker, topics, tmp_path)
        assert isinstance(error, StateLocked)
        process = ServiceProcess(overrides_of(broker, topics, tmp_path), tmp_path / "log")
        code, last = await asyncio.to_thread(_exit, process)
        assert code == STATE_UNUSABLE
        assert "in use by process" in last
        assert await worker.get("/readyz") == (200, "ok\n")


async def test_absent_topics_are_named(broker: Broker, tmp_path: Path) -> None:
    topics = Topics.named("absent")
    error = await _refusal(broker, topics, tmp_path)
    assert isinstance(error, ConfigError)
    for name in (topics.events, topics.tasks, topics.results, topics.dead_letters):
        assert name in str(error)
    assert "kafka.create_topics" in str(error)
    process = ServiceProcess(overrides_of(broker, topics, tmp_path), tmp_path / "log")
    code, last = await asyncio.to_thread(_exit, process)
    assert code == PERSON_ACTS
    assert topics.events in last
    assert topics.events not in await topic_sizes(broker.bootstrap_servers)


async def test_absent_topics_are_created_when_allowed(broker: Broker, tmp_path: Path) -> None:
    topics = Topics.named("created", partitions=3)
    allowed = {"kafka__create_topics": True, "kafka__replication_factor": 1, "kafka__partitions": 3}
    async with running_service(broker, topics, tmp_path, **allowed) as worker:
        assert worker.sample("partitions") == 3
        sizes = await topic_sizes(broker.bootstrap_servers)
    for name in (topics.events, topics.tasks, topics.results, topics.dead_letters):
        assert sizes[name] == 3


async def test_more_copies_than_brokers_are_refused(broker: Broker, tmp_path: Path) -> None:
    if broker.kind == "external":
        pytest.skip("how many brokers there are is not known")
    topics = Topics.named("copies")
    error = await _refusal(broker, topics, tmp_path, kafka__create_topics=True, kafka__replication_factor=3)
    assert isinstance(error, ConfigError)
    assert "cannot be created" in str(error)


@pytest.fixture
def nobody() -> str:
    """An address that nobody listens on, and that nobody else is given meanwhile."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{reserved.getsockname()[1]}"


def _without_broker(nobody: str, timeout_s: float) -> dict[str, Any]:
    return {"kafka__bootstrap_servers": nobody, "kafka__connect_timeout_s": timeout_s}


async def test_an_absent_broker_is_told_within_the_timeout(
    broker: Broker, tmp_path: Path, nobody: str
) -> None:
    changes = _without_broker(nobody, 1.5)
    began = time.monotonic()
    error = await _refusal(broker, Topics.named("no-broker"), tmp_path, **changes)
    assert isinstance(error, BrokerUnavailable)
    assert nobody in str(error)
    assert 1.5 <= time.monotonic() - began < 5
    process = ServiceProcess(
        overrides_of(broker, Topics.named("no-broker"), tmp_path, **changes), tmp_path / "log"
    )
    code, last = await asyncio.to_thread(_exit, process)
    assert code == NO_ANSWER
    assert nobody in last


async def test_sigterm_ends_the_wait_for_a_broker(broker: Broker, tmp_path: Path, nobody: str) -> None:
    overrides = overrides_of(broker, Topics.named("no-broker"), tmp_path, **_without_broker(nobody, 60))
    with ServiceProcess(overrides, tmp_path / "log") as process:
        process.wait_for("broker_unavailable")
        process.terminate()
        code, took_s = process.wait(15)
    assert (code, took_s < 5) == (0, True)


async def test_a_stop_while_the_group_is_joined_leaves_nothing_behind(
    broker: Broker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topics = await make_topics(broker, "early-stop")
    async with running_service(broker, topics, tmp_path / "first") as first:
        for delay_s in (0.0, 0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.3):
            async with running_service(broker, topics, tmp_path / "second", wait=False) as second:
                await asyncio.sleep(delay_s)
                await second.stop()
        # Sooner than the group gives up a member that is silent.
        await first.until(lambda: first.sample("partitions") == 1, 5, "the partition to be back")
        await first.until(lambda: not first.service.ready_problems(), 20, "the first to be ready again")
    gc.collect()
    # Of a connection that was being made, aiokafka itself loses track.
    assert "Unclosed AIOKafkaConsumer" not in caplog.text
    assert "PartitionRunner" not in caplog.text


async def _gap(worker: Worker) -> str:
    error = await worker.ended()
    assert isinstance(error, LogGap), error
    return str(error)


async def test_a_recreated_topic_is_a_gap_in_the_log(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "recreated")
    await _fill(broker, topics, tmp_path, 40)
    await recreate(broker.bootstrap_servers, topics.events)
    async with running_service(broker, topics, tmp_path, wait=False) as worker:
        message = await _gap(worker)
    assert topics.events in message
    assert "below 40, but the log ends at 0" in message
    process = ServiceProcess(overrides_of(broker, topics, tmp_path), tmp_path / "log")
    code, last = await asyncio.to_thread(_exit, process)
    assert code == GAP
    assert "the topic was recreated" in last


async def test_an_accepted_gap_is_in_the_state_and_in_every_later_manifest(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "accepted")
    await _fill(broker, topics, tmp_path, 40)
    records = list(generate_events(GenerateOptions(events=30, dim=8, seed=2)))
    async with client_of(broker, topics) as client:
        await client.produce(records)
        await delete_records(broker.bootstrap_servers, topics.events, 55)
        async with running_service(broker, topics, tmp_path, accept_gap=True) as worker:
            await worker.applied(15)
            account = records[0].key.decode()
            await client.submit(clustering("after", account, threshold=0.6))
            archive = await client.archive("after", account, timeout_s=60)
    (gap,) = archive.manifest["gaps"]
    assert gap.pop("accepted_at").endswith("Z")
    assert gap == {"topic": topics.events, "partition": 0, "from_offset": 40, "to_offset": 55}
    # Without the option too: what was accepted is no gap any more.
    async with running_service(broker, topics, tmp_path) as worker:
        await worker.until(lambda: not worker.service.ready_problems(), 30, "ready")


async def test_a_recreated_topic_is_read_from_its_begin_when_the_gap_is_accepted(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "accepted-anew")
    await _fill(broker, topics, tmp_path, 40)
    await recreate(broker.bootstrap_servers, topics.events)
    async with client_of(broker, topics) as client:
        await client.produce(generate_events(GenerateOptions(events=20, dim=8, seed=2)))
    async with running_service(broker, topics, tmp_path, accept_gap=True) as worker:
        await worker.applied(20)
    # It has gone on in the new log, which is shorter than the old one was.
    async with running_service(broker, topics, tmp_path) as worker:
        assert worker.sample("records_total", result="accepted") == 0


async def test_a_recreated_topic_with_as_many_records_is_a_gap_in_the_log(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "recreated-full")
    await _fill(broker, topics, tmp_path, 40)
    # The same log is known again.
    async with running_service(broker, topics, tmp_path):
        pass
    await recreate(broker.bootstrap_servers, topics.events)
    async with client_of(broker, topics) as client:
        await client.produce(generate_events(GenerateOptions(events=60, dim=8, seed=2)))
    async with running_service(broker, topics, tmp_path, wait=False) as worker:
        message = await _gap(worker)
    assert "the log has another record at offset 39 than the state has applied" in message
    async with running_service(broker, topics, tmp_path, accept_gap=True) as worker:
        await worker.applied(60)


async def test_records_that_retention_took_are_a_gap_in_the_log(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "retention")
    await _fill(broker, topics, tmp_path, 40)
    async with client_of(broker, topics) as client:
        await client.produce(generate_events(GenerateOptions(events=60, dim=8, seed=2)))
    # What has been applied may go.
    await delete_records(broker.bootstrap_servers, topics.events, 40)
    async with running_service(broker, topics, tmp_path) as worker:
        await worker.applied(60)
    async with client_of(broker, topics) as client:
        await client.produce(generate_events(GenerateOptions(events=60, dim=8, seed=3)))
    await delete_records(broker.bootstrap_servers, topics.events, 130)
    async with running_service(broker, topics, tmp_path, wait=False) as worker:
        message = await _gap(worker)
    assert "needs offset 100" in message
    assert "begins at 130; 30 records are gone" in message


async def test_a_new_state_in_a_group_that_had_what_is_gone_is_a_gap_in_the_log(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "lost")
    await _fill(broker, topics, tmp_path / "1", 40)
    await delete_records(broker.bootstrap_servers, topics.events, 25)
    async with running_service(broker, topics, tmp_path / "2", wait=False) as worker:
        message = await _gap(worker)
    assert "needs offset 0 next, but the log begins at 25; 25 records are gone" in message
    async with running_service(broker, topics, tmp_path / "2", accept_gap=True) as worker:
        await worker.applied(15)
    async with running_service(broker, topics, tmp_path / "2") as worker:
        assert worker.sample("records_total", result="accepted") == 0


async def test_a_new_state_begins_where_the_log_begins(broker: Broker, tmp_path: Path) -> None:
    topics = await make_topics(broker, "begins")
    async with client_of(broker, topics) as client:
        await client.produce(generate_events(GenerateOptions(events=60, dim=8)))
    await delete_records(broker.bootstrap_servers, topics.events, 25)
    async with running_service(broker, topics, tmp_path) as worker:
        await worker.applied(35)
        assert worker.records() == {"accepted": 35, "duplicate": 0, "rejected": 0}

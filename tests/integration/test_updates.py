"""Cluster updates through the broker: replayed from the start, they give the clusters of a snapshot."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from stream_cluster.errors import ConfigError
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.messages import ClusterReplay, decode_update
from stream_cluster.messages.updates import ObjectUpdate
from stream_cluster.model import SpaceKey
from stream_cluster.service.relay import Relay
from tests.support import kafka
from tests.support.client import client_of, clustering
from tests.support.service import ServiceProcess, make_topics, overrides_of, running_service

ACCOUNTS = ("acme", "globex")
ON = {"updates__enabled": True, "ingest__batch_max_records": 16}
QUICK = {"kafka__session_timeout_ms": 1500, "kafka__heartbeat_interval_ms": 200}


def events(count, *, seed=1, accounts=ACCOUNTS):
    options = GenerateOptions(
        events=count,
        people=count // 8,
        dim=32,
        seed=seed,
        accounts=accounts,
        start_time="2020-01-01T00:00:00Z",
    )
    return list(generate_events(options))


async def make_updates_topic(broker, topics, partitions):
    await kafka.create_topics(broker.bootstrap_servers, {topics.updates: partitions})


async def replayed(broker, topics):
    """All updates of the topic, and what they come to; each twice, as if delivered again."""
    records = await kafka.read_topic(broker.bootstrap_servers, topics.updates)
    updates = [decode_update(record.value) for record in records]
    assert [record.key.decode() for record in records] == [update.account_id for update in updates]
    replay = ClusterReplay()
    for number, update in enumerate(updates):
        replay.apply(update)
        assert not any(replay.apply(again) for again in updates[max(0, number - 3) : number + 1])
    return updates, replay


async def assert_replay_is_snapshot(broker, topics, client, name):
    """Compare the replay with the archives of all accounts."""
    for account in ACCOUNTS:
        await client.submit(clustering(name, account))
    archives = {account: await client.archive(name, account, timeout_s=60) for account in ACCOUNTS}
    # What the snapshot holds has been committed; the relay may be a moment behind.
    deadline = time.monotonic() + 20
    while True:
        updates, replay = await replayed(broker, topics)
        found = {}
        for account, archive in archives.items():
            version = archive.manifest["parameters"]["descriptor_version"]
            found[account] = dict(replay.clusters(SpaceKey(account, "event", "face", version)))
        expected = {
            account: {cluster["id"]: frozenset(cluster["objects"]) for cluster in archive.clusters}
            for account, archive in archives.items()
        }
        if found == expected:
            return updates
        assert time.monotonic() < deadline, "the replay differs from the archives"
        await asyncio.sleep(0.2)


def changes(sent):
    """Deletes and new creation times for the objects that were sent, as (account, message)."""
    objects = [json.loads(record.value) for record in sent]
    for number, event in enumerate(objects):
        common = {"account_id": event["account_id"]}
        if number % 7 == 0:
            yield event["account_id"], {**common, "action": "delete", "event_ids": [event["event_id"]]}
        elif number % 11 == 0:
            time_text = "2019-05-01T00:00:00Z"
            fields = {"action": "update", "event_id": event["event_id"], "create_time": time_text}
            yield event["account_id"], {**common, **fields}


async def send_changes(client, sent):
    for account, message in changes(sent):
        await client.produce_lines(account, [json.dumps(message).encode()])


async def test_the_replay_after_kills_is_the_snapshot(broker, tmp_path):
    topics = await make_topics(broker, "updates-kill", 2)
    await make_updates_topic(broker, topics, 2)
    sent = events(1200)
    overrides = overrides_of(broker, topics, tmp_path, log__level="debug", **ON, **QUICK)
    async with client_of(broker, topics) as client:
        await client.produce(sent[:900])
        await send_changes(client, sent[:900])
        for kill in range(2):
            # A member that was killed stays in its group until its session ends.
            with ServiceProcess(
                {**overrides, "kafka.group_id": f"{topics.events}-{kill}"}, tmp_path / "log"
            ) as one:
                one.wait_for("batch_applied", 12)
                one.kill()
        async with running_service(broker, topics, tmp_path, **ON) as worker:
            await client.produce(sent[900:])
            await send_changes(client, sent[900:])
            updates = await assert_replay_is_snapshot(broker, topics, client, "all")
            assert worker.sample("updates_total") > 0
            worker.service._refresh()
            assert worker.sample("outbox_messages") == 0
    assert {type(update).__name__ for update in updates} == {"ObjectUpdate", "ChangeUpdate"}
    assert any(update.merged for update in updates if isinstance(update, ObjectUpdate))
    assert len({update.epoch for update in updates if update.account_id == "acme"}) == 1


async def test_a_partition_that_moves_between_states_is_restated(broker, tmp_path):
    topics = await make_topics(broker, "updates-move")
    await make_updates_topic(broker, topics, 1)
    sent = events(400)
    async with client_of(broker, topics) as client:
        for number, place in enumerate(("one", "other", "one", "one")):
            (tmp_path / place).mkdir(exist_ok=True)
            async with running_service(broker, topics, tmp_path / place, **ON):
                await client.produce(sent[number * 100 : number * 100 + 100])
                await send_changes(client, sent[number * 100 : number * 100 + 100])
                updates = await assert_replay_is_snapshot(broker, topics, client, f"task {number}")
    # The last start found its own updates at the end of the topic, and went on.
    assert len({update.epoch for update in updates}) == 3


async def test_updates_that_are_switched_on_later_begin_with_all_clusters(broker, tmp_path):
    topics = await make_topics(broker, "updates-later")
    sent = events(300)
    async with client_of(broker, topics) as client:
        async with running_service(broker, topics, tmp_path) as worker:
            await client.produce(sent[:200])
            await worker.applied(200)
        create = {"kafka__create_topics": True, "kafka__replication_factor": 1, "kafka__partitions": 5}
        async with running_service(broker, topics, tmp_path, **ON, **create):
            await client.produce(sent[200:])
            updates = await assert_replay_is_snapshot(broker, topics, client, "all")
    assert len([update for update in updates if isinstance(update, ObjectUpdate)]) <= 100


async def test_ingest_waits_while_the_outbox_is_full(broker, tmp_path, monkeypatch):
    topics = await make_topics(broker, "updates-full")
    await make_updates_topic(broker, topics, 1)
    may_send = asyncio.Event()
    send = Relay._send

    async def at_gate(relay, rows):
        await may_send.wait()
        return await send(relay, rows)

    monkeypatch.setattr(Relay, "_send", at_gate)
    limits = {"updates__outbox_max_messages": 40, "ingest__batch_max_records": 16}
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, updates__enabled=True, **limits) as worker,
    ):
        await client.produce(events(300, accounts=("acme",)))
        try:
            await worker.until(
                lambda: worker.service._assignment.runners[0].relay.is_full, 20, "a full outbox"
            )
            await asyncio.sleep(0.5)
            waiting = worker.records()["accepted"]
            assert 40 <= waiting < 40 + 16
            worker.service._refresh()
            assert worker.sample("outbox_messages") == waiting
            assert not worker.service.live_problems()
        finally:
            may_send.set()
        await worker.applied(300)
        await worker.until(lambda: worker.sample("updates_total") == 300, 20, "all updates acknowledged")


async def test_a_topic_with_other_partitions_is_refused(broker, tmp_path):
    topics = await make_topics(broker, "updates-count", 2)
    await make_updates_topic(broker, topics, 3)
    async with running_service(broker, topics, tmp_path, wait=False, updates__enabled=True) as worker:
        error = await worker.ended()
    assert isinstance(error, ConfigError)
    assert f"topic {topics.updates} has 3 partitions, expected 2" in str(error)


@pytest.mark.parametrize("value", [b"not an update"])
async def test_a_topic_with_something_else_is_refused(broker, tmp_path, value):
    topics = await make_topics(broker, "updates-foreign")
    await make_updates_topic(broker, topics, 1)
    await kafka.produce(broker.bootstrap_servers, topics.updates, [(b"acme", value, [])])
    async with running_service(broker, topics, tmp_path, wait=False, updates__enabled=True) as worker:
        error = await worker.ended()
    assert isinstance(error, ConfigError)
    assert "expected a cluster update" in str(error)

"""Updates, deletes, erase and retention through the topics."""

from __future__ import annotations

import asyncio
import json
import time

from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.state.database import database_path
from tests.integration.test_cli_broker import Terminal
from tests.support.client import client_of, clustering
from tests.support.service import make_topics, overrides_of, running_service

ACCOUNT = "acme"


def events(count):
    options = GenerateOptions(
        events=count, people=40, dim=64, accounts=(ACCOUNT,), start_time="2020-01-01T00:00:00Z"
    )
    return list(generate_events(options))


def members(archive):
    return {name for cluster in archive.clusters for name in cluster["objects"]}


async def test_updates_deletes_and_erase_show_in_the_next_snapshot_and_leave_the_files(broker, tmp_path):
    topics = await make_topics(broker, "changes")
    sent = events(300)
    ids = [json.loads(record.value)["event_id"] for record in sent]
    changed, deleted, erased = ids[0], ids[10:40], ids[50:53]
    async with client_of(broker, topics) as client, running_service(broker, topics, tmp_path) as worker:
        await client.produce(sent)
        changes = [
            {
                "action": "update",
                "event_id": changed,
                "account_id": ACCOUNT,
                "source": "moved",
                "track_id": None,
            },
            {"action": "update", "event_id": "gone", "account_id": ACCOUNT, "age": 3},
            {"action": "delete", "event_ids": deleted, "account_id": ACCOUNT},
        ]
        await client.produce_lines(ACCOUNT, [json.dumps(change).encode() for change in changes])
        await client.submit(
            clustering("before", ACCOUNT, threshold=0.55, report={"columns": ["source", "track_id"]})
        )
        before = await client.archive("before", ACCOUNT)
        assert members(before) == set(ids) - set(deleted)
        (row,) = [row for row in before.report if row["event_id"] == changed]
        assert (row["source"], row["track_id"]) == ("moved", "")
        counts = before.manifest["counts"]
        assert (counts["objects_received"], counts["deleted"], counts["objects"]) == (300, 30, 270)
        assert worker.sample("records_total", result="unknown_object") == 1
        worker.service._refresh()
        assert worker.sample("rows", descriptor_type="face") == 270

        shell = Terminal(overrides_of(broker, topics, tmp_path))
        names = [part for object_id in erased for part in ("--object", object_id)]
        ended = await shell.run("erase", "--account", ACCOUNT, *names, "--archives", "--yes", "--json")
        assert ended.code == 0, ended.stderr
        assert json.loads(ended.stdout)["archives_deleted"] == 1
        await client.submit(clustering("after", ACCOUNT, threshold=0.55))
        after = await client.archive("after", ACCOUNT)
        assert members(after) == set(ids) - set(deleted) - set(erased)
        cause = {"descriptor_type": "face", "cause": "request"}
        assert worker.sample("deleted_objects_total", **cause) == 33

        path = database_path(tmp_path / "state", 0)
        wal = path.with_name(f"{path.name}-wal")
        await worker.until(lambda: wal.stat().st_size == 0, 20, "the log to be emptied")
        data = path.read_bytes()
        assert [name for name in [*deleted, *erased] if name.encode() in data] == []
        assert changed.encode() in data


async def test_objects_past_their_age_disappear_by_themselves(broker, tmp_path):
    topics = await make_topics(broker, "retention")
    sent = events(300)
    fresh = [json.loads(record.value) for record in events(20)]
    for number, event in enumerate(fresh):
        event |= {
            "event_id": f"fresh-{number}",
            "create_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    settings = {"retention__face": "1d", "retention__interval_s": 0.2}
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, **settings) as worker,
    ):
        await client.produce(sent)
        await client.produce_lines(ACCOUNT, [json.dumps(event).encode() for event in fresh])
        await worker.applied(320)
        swept = {"descriptor_type": "face", "cause": "retention"}
        await worker.until(
            lambda: worker.sample("deleted_objects_total", **swept) == 300, 20, "the old objects to go"
        )
        await asyncio.sleep(1.1)  # the default of create_time__lt: what is dated in this second
        await client.submit(clustering("left", ACCOUNT, threshold=0.55))
        archive = await client.archive("left", ACCOUNT)
        assert members(archive) == {event["event_id"] for event in fresh}
        assert archive.manifest["counts"]["deleted"] == 300

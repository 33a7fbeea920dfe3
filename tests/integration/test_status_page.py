"""The status page of a real service on a real broker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from tests.support.client import client_of, clustering
from tests.support.kafka import eventually
from tests.support.service import Worker, make_topics, running_service

EVENTS = 200


async def facts_of(worker: Worker) -> dict[str, Any]:
    """What the page is told now."""
    status, text = await worker.get("/status.json")
    assert status == 200
    found: dict[str, Any] = json.loads(text)
    return found


async def test_the_page_follows_events_and_a_task_and_knows_it_after_a_restart(
    broker: Broker, tmp_path: Path
) -> None:
    topics = await make_topics(broker, "status")
    events = list(generate_events(GenerateOptions(events=EVENTS, dim=8)))
    async with client_of(broker, topics) as client:
        async with running_service(broker, topics, tmp_path, http__status_page=True) as worker:
            status, page = await worker.get("/status")
            assert status == 200
            assert "<title>stream-cluster</title>" in page
            await client.produce(events)
            await worker.applied(EVENTS)
            await client.submit(clustering("one"), clustering("two", objects_type="faces"))

            async def both_ended() -> bool:
                return len((await facts_of(worker))["tasks"]["ended"]) == 2

            await eventually(both_ended, 30, "both tasks to be shown as ended")
            facts = await facts_of(worker)
            assert facts["ready"] is True
            (partition,) = facts["partitions"]
            assert partition == {
                "partition": 0,
                "state": "open",
                "next_offset": EVENTS,
                "lag_records": 0,
                "buffered_records": 0,
            }
            assert facts["rate"]["records"] == EVENTS
            assert facts["spaces_total"]["objects"] == sum(space["objects"] for space in facts["spaces"]) > 0
            assert {space["engine"] for space in facts["spaces"]} <= {"exact", "not loaded"}
            ended = {task["task_id"]: task for task in facts["tasks"]["ended"]}
            assert (ended["one"]["status"], ended["two"]["status"]) == ("done", "failed")
            assert ended["one"]["archive"].startswith("file://")
            assert ended["two"]["error"] == "empty_selection"
        async with running_service(broker, topics, tmp_path, http__status_page=True) as worker:
            again = await facts_of(worker)
            assert again["tasks"]["ended"] == facts["tasks"]["ended"]
            assert again["rate"]["records"] == 0
        async with running_service(broker, topics, tmp_path) as worker:
            assert (await worker.get("/status"))[0] == 404
            assert (await worker.get("/status.json"))[0] == 404

"""Where answers go: an object store that is down or slow, a results topic that is gone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from stream_cluster.cli.failures import USAGE
from stream_cluster.sandbox import Broker
from tests.faults.record import Row
from tests.faults.stream import RECOVERY_S, Stream
from tests.faults.workers import generated, now
from tests.support import kafka
from tests.support.archives import expected_clusters, read_archive, sightings
from tests.support.client import Client, Status, client_of, clustering
from tests.support.s3 import BUCKET, S3Server
from tests.support.service import ServiceProcess, make_topics, overrides_of, running_service
from tests.support.topics import delete_topic

EVENTS = 300


async def _is_in_the_bucket(
    client: Client, bucket: S3Server, folder: Path, row: Row, task_id: str, records: list[Any]
) -> Status:
    status = await client.ended(task_id, timeout_s=RECOVERY_S)
    assert status["status"] == "done", status
    path = folder / f"{task_id}.zip"
    bucket.client.download_file(BUCKET, f"faces/archives/demo/{task_id}.zip", str(path))
    row.check(read_archive(path, status), expected_clusters(sightings(records, "demo"), 0.55))
    return status


@pytest.mark.fault(
    what="the object store of the archives is down",
    survives="the state and ingest; tasks fail after `results.s3.retry_s` and can be sent again",
    seen="the task fails with `result_store_unavailable`; `archive_not_stored` in the log",
    short=True,
)
async def test_an_object_store_that_is_down_fails_tasks_and_nothing_else(
    broker: Broker, tmp_path: Path, row: Row, bucket: S3Server
) -> None:
    records = generated(EVENTS)
    topics = await make_topics(broker, "store-down")
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, **bucket.overrides()) as worker,
    ):
        await client.produce(records[:100])
        bucket.gateway.down = True
        await client.submit(clustering("in vain", threshold=0.55))
        failed = await client.ended("in vain", timeout_s=RECOVERY_S)
        assert failed["error"]["code"] == "result_store_unavailable"
        await client.produce(records[100:])
        await worker.applied(EVENTS)
        assert not worker.service.ready_problems()
        bucket.gateway.down = False
        began = now()
        await client.submit(clustering("again", threshold=0.55))
        await _is_in_the_bucket(client, bucket, tmp_path, row, "again", records)
        row.ready(began)
    assert bucket.unfinished_uploads() == []


@pytest.mark.fault(
    what="the object store hangs in the midst of an upload",
    survives="everything; the task waits for it until its deadline, ingest goes on",
    seen="`in_progress` with the stage `upload`; `stream_cluster_tasks_running`",
)
async def test_an_object_store_that_hangs_holds_its_task_alone(
    broker: Broker, tmp_path: Path, row: Row, bucket: S3Server
) -> None:
    records = generated(EVENTS)
    topics = await make_topics(broker, "store-slow")
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, **bucket.overrides()) as worker,
    ):
        await client.produce(records[:100])
        await worker.applied(100)
        bucket.gateway.is_held = lambda method, path: method == "PUT" and path.endswith("slow.zip")
        await client.submit(clustering("slow", threshold=0.55))
        await client.until_stage("upload", "slow")
        await client.produce(records[100:])
        await worker.applied(EVENTS)
        bucket.gateway.open()
        began = now()
        await _is_in_the_bucket(client, bucket, tmp_path, row, "slow", records[:100])
        row.ready(began)


@pytest.mark.fault(
    what="the results topic is deleted while the service runs, with a task under way",
    survives="everything; the status waits until the topic is there again",
    seen="`not_acknowledged` with the topic",
)
async def test_a_results_topic_that_goes_missing_is_waited_for(
    broker: Broker, tmp_path: Path, row: Row
) -> None:
    records = generated(EVENTS)
    topics = await make_topics(broker, "no-results")
    servers = broker.bootstrap_servers
    overrides = overrides_of(broker, topics, tmp_path, kafka__request_timeout_ms=2000)
    with ServiceProcess(overrides, tmp_path / "log") as process:
        async with client_of(broker, topics) as client:
            await client.produce(records)
            await client.submit(clustering("before", threshold=0.55))
            await client.archive("before", timeout_s=RECOVERY_S)
        await delete_topic(servers, topics.results)
        value = json.dumps(clustering("waits", threshold=0.55)).encode()
        await kafka.produce(servers, topics.tasks, [(b"demo", value, ())])
        await asyncio.to_thread(process.wait_for, "not_acknowledged", 1, RECOVERY_S)
        assert process.logged("not_acknowledged")[0]["topic"] == topics.results
        await kafka.create_topics(servers, {topics.results: 2})
        began = now()
        async with client_of(broker, topics) as client:
            archive = await client.archive("waits", timeout_s=RECOVERY_S)
            row.ready(began)
            row.check(archive, expected_clusters(sightings(records, "demo"), 0.55))


@pytest.mark.fault(
    what="the results topic is missing at the start",
    survives="everything: nothing is begun",
    seen="`ConfigError` that names the topic; exit code 2",
)
async def test_a_results_topic_that_is_missing_at_the_start_is_named(
    stream: Stream, tmp_path: Path, row: Row
) -> None:
    async with stream.run(tmp_path) as run:
        with run.start(kafka__results_topic="nowhere") as process:
            assert await run.died(process) == USAGE
            (failure,) = process.logged("service_failed")
        assert failure["kind"] == "ConfigError"
        assert failure["error"].startswith("topic nowhere does not exist")

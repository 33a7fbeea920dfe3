"""Archives in a bucket, removals, callbacks and kills, through Kafka and by the command line."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_cluster.cli.failures import USAGE
from stream_cluster.sandbox import Broker
from tests.integration.test_cli_broker import terminal
from tests.support.client import Client, client_of, clustering
from tests.support.files import event_lines
from tests.support.http import Receiver
from tests.support.kafka import eventually
from tests.support.s3 import S3Server, s3_server
from tests.support.service import ServiceProcess, make_topics, overrides_of, running_service

ACCOUNT = "demo"
# The next process has to wait until the group has given the killed one up.
SHORT = {"kafka__session_timeout_ms": 1500, "kafka__heartbeat_interval_ms": 200}


@pytest.fixture
def server() -> Iterator[S3Server]:
    with s3_server() as found:
        yield found


async def _produce(client: Client) -> None:
    await client.produce_lines(ACCOUNT, event_lines())


def _size_of(url: str) -> int:
    with urllib.request.urlopen(url) as response:
        return len(response.read())


def _ends(client: Client, task_id: str) -> list[tuple[str, str | None]]:
    return [
        (status["status"], status["archive_removed"])
        for status in client.statuses(task_id)
        if status["status"] in {"done", "failed", "cancelled"}
    ]


async def test_a_task_goes_from_the_topic_to_a_bucket_a_callback_and_its_removal(
    broker: Broker, tmp_path: Path, server: S3Server
) -> None:
    topics = await make_topics(broker, "life")
    with Receiver() as receiver:
        changes: dict[str, Any] = {
            **server.overrides(),
            "results__presign_s": 300,
            "results__sweep_interval_s": 0.2,
            "callbacks__allowed_hosts": receiver.host,
            "callbacks__secret": "secret",
        }
        shell = terminal(broker, topics, tmp_path)
        async with client_of(broker, topics) as client, running_service(broker, topics, tmp_path, **changes):
            await _produce(client)
            submit = ("task", "submit", "--account", ACCOUNT, "--wait", "--timeout-s", "50", "--json")
            more = ("--result-ttl-s", 3600, "--deadline-s", 60, "--callback-url", receiver.url)
            submitted = await shell.run(*submit, "--task-id", "t1", *more)
            assert submitted.code == 0, submitted.stderr
            status = json.loads(submitted.stdout)
            size_bytes = await asyncio.to_thread(_size_of, status["result_url"])
            assert size_bytes == status["archive"]["size_bytes"]
            await eventually(lambda: len(receiver.calls) == 1, 10, "the callback")
            assert json.loads(receiver.calls[0][2])["result_url"] == status["result_url"]
            await client.submit({**clustering("t2"), "result_ttl_s": 1})
            await eventually(lambda: ("done", "expired") in _ends(client, "t2"), 20, "the archive to expire")

            listed = await shell.run("task", "list", "--account", ACCOUNT, "--json")
            found = {one["task_id"]: one for one in json.loads(listed.stdout)["tasks"]}
            assert found["t1"]["archive"]["url"] == "s3://results/faces/archives/demo/t1.zip"
            assert found["t2"]["archive_removed"] == "expired"
            assert "t1" in (await shell.run("task", "list", "--status", "done")).stdout
            assert (await shell.run("task", "list", "--status", "failed")).stdout == ""

            delete = ("task", "delete", "--account", ACCOUNT, "--wait", "--timeout-s", "50")
            deleted = await shell.run(*delete, "t1")
            unknown = await shell.run(*delete, "nobody-sent-it")
            assert (deleted.code, deleted.stdout) == (0, "deleted\n")
            assert unknown.code == 1
            assert unknown.stderr.startswith("error: unknown_task: ")
            assert server.object_names() == []
            assert _ends(client, "t1") == [("done", None), ("done", "deleted")]


@pytest.mark.parametrize("moment", ["before the upload", "after the upload"])
async def test_a_task_killed_around_its_upload_is_done_once_after_the_restart(
    broker: Broker, tmp_path: Path, server: S3Server, moment: str
) -> None:
    topics = await make_topics(broker, "life-kill")
    overrides = overrides_of(broker, topics, tmp_path, **server.overrides(), **SHORT)

    def is_held(method: str, path: str) -> bool:
        return method == "PUT" and path.endswith("t.zip")

    server.gateway.is_held = is_held
    server.gateway.hold_after = moment == "after the upload"
    async with client_of(broker, topics) as client:
        await _produce(client)
        with ServiceProcess(overrides, tmp_path / "log") as process:
            await client.submit(clustering("t"))
            assert await asyncio.to_thread(server.gateway.held.wait, 30)
            process.kill()
        assert len(server.object_names()) == (moment == "after the upload")
        assert _ends(client, "t") == []
        server.gateway.open()
        async with running_service(broker, topics, tmp_path, **server.overrides(), **SHORT):
            status = await client.ended("t", timeout_s=60)
            await client.submit(clustering("after"))
            await client.ended("after")
    assert _ends(client, "t") == [("done", None)]
    head = server.client.head_object(Bucket="results", Key="faces/archives/demo/t.zip")
    assert head["ContentLength"] == status["archive"]["size_bytes"]
    assert not list((tmp_path / "state" / "spool").iterdir())


async def test_a_service_whose_bucket_is_wrong_does_not_start(
    broker: Broker, tmp_path: Path, server: S3Server
) -> None:
    topics = await make_topics(broker, "life-bucket")
    overrides = overrides_of(broker, topics, tmp_path, **server.overrides(bucket="nowhere"))
    with ServiceProcess(overrides, tmp_path / "log") as process:
        code, _ = await asyncio.to_thread(process.wait, 30)
        assert code == USAGE
        assert "results.s3: bucket nowhere" in process.log()


async def test_a_stop_does_not_wait_for_a_store_that_hangs(
    broker: Broker, tmp_path: Path, server: S3Server
) -> None:
    topics = await make_topics(broker, "life-stop")
    overrides = overrides_of(broker, topics, tmp_path, **server.overrides())
    server.gateway.is_held = lambda method, path: method == "PUT" and path.endswith("t.zip")
    async with client_of(broker, topics) as client:
        await _produce(client)
        with ServiceProcess(overrides, tmp_path / "log") as process:
            await client.submit(clustering("t"))
            assert await asyncio.to_thread(server.gateway.held.wait, 30)
            process.terminate()
            code, took_s = await asyncio.to_thread(process.wait, 20)
        assert (code, took_s < 5) == (0, True), (took_s, process.log()[-2000:])
        assert _ends(client, "t") == []

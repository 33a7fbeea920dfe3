"""`stream-cluster produce` and `task`, as processes, against a real broker and a running service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiokafka.structs import ConsumerRecord

from stream_cluster.messages import partition_for
from stream_cluster.sandbox import Broker
from tests.support.cli import COMMAND
from tests.support.files import clusters_of, event_lines, expected_clusters, write_lines
from tests.support.kafka import eventually, read_topic
from tests.support.service import FeedGate, Topics, make_topics, overrides_of, running_service


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        return self.stdout.splitlines()[-1]


class Terminal:
    """Runs commands with the settings of a test in their environment."""

    def __init__(self, overrides: dict[str, Any]) -> None:
        own = {
            f"STREAM_CLUSTER_{key.replace('.', '__').upper()}": str(value) for key, value in overrides.items()
        }
        inherited = {name: value for name, value in os.environ.items() if "STREAM_CLUSTER" not in name}
        self._env = {**inherited, **own}

    async def start(self, *arguments: object) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        words = [*COMMAND, *(str(argument) for argument in arguments)]
        return await asyncio.create_subprocess_exec(
            *words, env=self._env, stdin=pipe, stdout=pipe, stderr=pipe
        )

    async def run(self, *arguments: object, stdin: bytes | None = None) -> Ended:
        return await self.end(await self.start(*arguments), stdin)

    async def end(self, process: asyncio.subprocess.Process, stdin: bytes | None = None) -> Ended:
        out, err = await asyncio.wait_for(process.communicate(stdin), 60)
        assert process.returncode is not None
        return Ended(process.returncode, out.decode(), err.decode())


def terminal(broker: Broker, topics: Topics, folder: Path, **changes: Any) -> Terminal:
    return Terminal(overrides_of(broker, topics, folder, **changes))


async def sent(broker: Broker, topics: Topics) -> list[ConsumerRecord]:
    return await read_topic(broker.bootstrap_servers, topics.events)


@pytest.mark.parametrize("partitioner", ["murmur2", "crc32"])
async def test_produce_keeps_bytes_and_order_and_keys_by_account(broker, tmp_path, partitioner):
    topics = await make_topics(broker, "cli-produce", partitions=5)
    lines = event_lines(events=300, accounts=("a", "b", "c", "d"))
    path = write_lines(tmp_path / "events.jsonl.gz", lines)
    shell = terminal(broker, topics, tmp_path, kafka__partitioner=partitioner)
    ended = await shell.run("produce", path, "--json")
    assert ended.code == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert printed["messages"] == 300
    assert printed["value_bytes"] == sum(map(len, lines))
    records = await sent(broker, topics)
    assert Counter(record.value for record in records) == Counter(lines)
    accounts = {record.value: json.loads(record.value)["account_id"] for record in records}
    for record in records:
        assert record.key == accounts[record.value].encode()
        assert record.partition == partition_for(accounts[record.value], 5, partitioner)
        assert record.headers == (("content-type", b"application/json"),)
    for partition in range(5):
        mine = [record.value for record in records if record.partition == partition]
        assert mine == [line for line in lines if partition_for(accounts[line], 5, partitioner) == partition]


async def test_produce_passes_on_what_a_slow_pipe_gives_without_waiting_for_its_end(broker, tmp_path):
    topics = await make_topics(broker, "cli-pipe")
    process = await terminal(broker, topics, tmp_path).start("produce", "-")
    [first, second] = event_lines(events=2)
    assert process.stdin is not None
    process.stdin.write(first + b"\n")
    await process.stdin.drain()

    async def arrived() -> bool:
        return [record.value for record in await sent(broker, topics)] == [first]

    await eventually(arrived, 30, "the first line, while the pipe is open")
    ended = await Terminal({}).end(process, second + b"\n")
    assert ended.code == 0, ended.stderr
    assert [record.value for record in await sent(broker, topics)] == [first, second]


async def test_produce_stops_at_a_line_without_account_and_says_what_was_sent(broker, tmp_path):
    topics = await make_topics(broker, "cli-refused")
    lines = event_lines(events=3)
    path = write_lines(tmp_path / "events.jsonl", [*lines, b'{"event_id": "x"}', *lines])
    ended = await terminal(broker, topics, tmp_path).run("produce", path)
    assert ended.code == 2
    assert ended.stderr.splitlines()[-1] == (
        f"error: {path}:4: found no legible account_id, which is the key; 3 messages before it were sent"
    )
    assert [record.value for record in await sent(broker, topics)] == lines


async def test_produce_obeys_its_rate_and_ends_on_ctrl_c_with_everything_acknowledged(broker, tmp_path):
    topics = await make_topics(broker, "cli-rate")
    lines = event_lines(events=400)
    path = write_lines(tmp_path / "events.jsonl", lines)
    shell = terminal(broker, topics, tmp_path)
    process = await shell.start("produce", path, "--rate", 50)

    async def some_arrived() -> bool:
        return len(await sent(broker, topics)) >= 5

    await eventually(some_arrived, 30, "the first messages")
    process.send_signal(signal.SIGINT)
    ended = await shell.end(process)
    assert (ended.code, ended.stdout) == (130, "")
    assert ended.stderr == "interrupted; what was sent is acknowledged\n"
    records = await sent(broker, topics)
    assert 5 <= len(records) < 400
    assert [record.value for record in records] == lines[: len(records)]


async def test_a_topic_that_does_not_exist_is_code_2(broker, tmp_path):
    topics = await make_topics(broker, "cli-absent")
    path = write_lines(tmp_path / "events.jsonl", event_lines(events=1))
    ended = await terminal(broker, topics, tmp_path).run(
        "produce", path, "--topic", f"{topics.events}.absent"
    )
    assert ended.code == 2
    assert "does not exist" in ended.stderr


async def test_a_submitted_task_ends_with_its_archive_as_the_last_line(broker, tmp_path):
    topics = await make_topics(broker, "cli-task", partitions=3)
    lines = event_lines(events=200)
    path = write_lines(tmp_path / "events.jsonl", lines)
    shell = terminal(broker, topics, tmp_path)
    submit = ("task", "submit", "--account", "demo", "--threshold", "0.75", "--columns", "source")
    async with running_service(broker, topics, tmp_path):
        assert (await shell.run("produce", path)).code == 0
        ended = await shell.run(*submit, "--wait", "--timeout-s", "50")
        assert ended.code == 0, ended.stderr
        assert clusters_of(Path(ended.last_line)) == expected_clusters(lines, 0.75)

        # Files give the same clusters without a broker.
        offline = await shell.run("cluster", path, "--threshold", "0.75", "-o", tmp_path / "offline.zip")
        assert offline.code == 0, offline.stderr
        assert clusters_of(tmp_path / "offline.zip") == clusters_of(Path(ended.last_line))

        # Without --wait, its id; watching finds the end even when it has passed, also as JSON.
        task_id = (await shell.run(*submit)).stdout.strip()
        watched = await shell.run("task", "watch", task_id, "--account", "demo", "--timeout-s", "50")
        assert watched.code == 0, watched.stderr
        assert watched.last_line.endswith(f"{task_id}.zip")
        again = await shell.run(*submit, "--task-id", task_id, "--wait", "--json", "--timeout-s", "50")
        status = json.loads(again.stdout)
        assert (status["status"], status["task_id"], status["objects"]) == ("done", task_id, 200)

        # Too late to cancel.
        cancelled = await shell.run(
            "task", "cancel", task_id, "--account", "demo", "--wait", "--timeout-s", "50"
        )
        assert cancelled.code == 1
        assert "had ended before" in cancelled.stderr


async def test_a_task_that_fails_is_code_1_with_its_error(broker, tmp_path):
    topics = await make_topics(broker, "cli-fails")
    shell = terminal(broker, topics, tmp_path)
    async with running_service(broker, topics, tmp_path):
        ended = await shell.run("task", "submit", "--account", "nobody", "--wait", "--timeout-s", "50")
        refused = await shell.run(
            "task", "submit", "--account", "nobody", "--save-images", "--wait", "--timeout-s", "50"
        )
    assert (ended.code, ended.stdout) == (1, "")
    assert ended.stderr.startswith("error: empty_selection: ")
    assert refused.code == 1
    assert "content.save_images: no image root is configured" in refused.stderr


async def test_a_waiting_task_is_cancelled_and_both_sides_hear_of_it(broker, tmp_path):
    topics = await make_topics(broker, "cli-cancel")
    path = write_lines(tmp_path / "events.jsonl", event_lines())
    shell = terminal(broker, topics, tmp_path)
    # Records that are held back keep the task waiting for its barrier.
    with FeedGate() as gate:
        async with running_service(broker, topics, tmp_path) as worker:
            assert (await shell.run("produce", path)).code == 0
            await eventually(lambda: gate.held() == 60, 30, "the records at the gate")
            submit = ("task", "submit", "--account", "demo", "--task-id", "t1")
            waiting = await shell.start(*submit, "--wait", "--timeout-s", "50")
            await worker.until(lambda: worker.sample("tasks_waiting") == 1, 30, "the task")
            late = await shell.run("task", "watch", "t1", "--account", "demo", "--timeout-s", "1")
            cancel = await shell.run(
                "task", "cancel", "t1", "--account", "demo", "--wait", "--timeout-s", "50"
            )
            ended = await shell.end(waiting)
            gate.open()
    assert late.code == 3
    assert "the task is in_progress (wait, 0%, 60 records to go) after 1 s" in late.stderr
    assert (cancel.code, cancel.stdout) == (0, "cancelled\n")
    assert ended.code == 1
    assert ended.stderr.splitlines()[-1] == "error: the task was cancelled"


async def test_without_a_worker_waiting_ends_with_code_3(broker, tmp_path):
    topics = await make_topics(broker, "cli-alone")
    ended = await terminal(broker, topics, tmp_path).run(
        "task", "submit", "--account", "demo", "--wait", "--timeout-s", "0.5"
    )
    assert ended.code == 3
    assert "no worker has answered within 0.5 s" in ended.stderr


async def test_ctrl_c_while_waiting_tells_how_to_follow_the_task(broker, tmp_path):
    topics = await make_topics(broker, "cli-interrupted")
    shell = terminal(broker, topics, tmp_path)
    process = await shell.start("task", "submit", "--account", "demo", "--task-id", "t9", "--wait")

    async def submitted() -> bool:
        return len(await read_topic(broker.bootstrap_servers, topics.tasks)) == 1

    await eventually(submitted, 30, "the task on its topic")
    process.send_signal(signal.SIGINT)
    ended = await shell.end(process)
    assert ended.code == 130
    assert "stream-cluster task watch t9 --account demo follows it" in ended.stderr

"""Tasks that fail, wait, are cancelled, come twice, or come garbled."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stream_cluster.errors import StateError
from stream_cluster.generate import GeneratedRecord, GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from stream_cluster.service import tasks
from stream_cluster.state.partition import Partition
from stream_cluster.state.view import PartitionView
from tests.support.archives import expected_clusters, sightings
from tests.support.client import Client, client_of, clustering
from tests.support.service import FeedGate, Worker, make_topics, running_service

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Stage:
    """A service with some objects of the account `demo`."""

    client: Client
    worker: Worker
    folder: Path
    records: list[GeneratedRecord]
    """Generated; those before `produced` are in the topic."""
    produced: int = 0

    async def produce(self, count: int) -> None:
        """Send the next records."""
        await self.client.produce(self.records[self.produced : self.produced + count])
        self.produced += count


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    records = list(generate_events(GenerateOptions(events=3000, people=80, dim=32, seed=5)))
    topics = await make_topics(broker, "task-requests", 2)
    folder = tmp_path_factory.mktemp("task-requests")
    async with client_of(broker, topics) as client, running_service(broker, topics, folder) as worker:
        stage = Stage(client, worker, folder, records)
        await stage.produce(200)
        await worker.applied(200)
        yield stage


def _later(task: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {**task, **fields}


WRONG = {
    "images without a root": (clustering("", save_images=True), "bad_request", "no image root"),
    "unknown filter": (clustering("", filters={"sourcess": ["cam1"]}), "unknown_field", "sources"),
    "unknown column": (clustering("", report={"columns": ["sauce"]}), "bad_request", "there are age, area"),
    "path to nothing": (clustering("", filters={"meta": {}}), "bad_request", "content.filters.meta"),
    "filter of faces": (clustering("", filters={"list_id": ["x"]}), "unknown_field", "list_id"),
    "wrong type": (clustering("", threshold="high"), "bad_request", "threshold"),
    "beyond the range": (clustering("", threshold=1.5), "bad_request", "threshold"),
    "bad time": (
        clustering("", filters={"create_time__gte": "yesterday"}),
        "bad_request",
        "create_time__gte",
    ),
    "no content": ({"account_id": "demo"}, "bad_request", "content"),
    "no objects_type": ({"account_id": "demo", "content": {}}, "bad_request", "objects_type"),
    "unknown type": ({"account_id": "demo", "type": "destroy"}, "bad_request", "type"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_request_is_answered_with_what_is_wrong(stage: Stage, name: str) -> None:
    task, code, word = WRONG[name]
    await stage.client.submit({**task, "task_id": f"wrong {name}"})
    status = await stage.client.ended(f"wrong {name}")
    assert (status["status"], status["error"]["code"]) == ("failed", code)
    assert word in status["error"]["message"]


EMPTY = {
    "nothing passes the filter": ("demo", {"filters": {"sources": ["nowhere"]}}),
    "no such version": ("demo", {"descriptor_version": 99}),
    "no such descriptor type": ("demo", {"descriptor_type": "body"}),
    "no such object type": ("demo", {"objects_type": "faces"}),
    "no such account": ("nobody", {}),
}


@pytest.mark.parametrize("name", EMPTY)
async def test_an_empty_selection_is_said(stage: Stage, name: str) -> None:
    account_id, content = EMPTY[name]
    await stage.client.submit(clustering(f"empty {name}", account_id, **content))
    status = await stage.client.ended(f"empty {name}", account_id)
    assert (status["status"], status["error"]["code"]) == ("failed", "empty_selection")


async def test_a_task_id_sent_again_is_the_same_task(stage: Stage) -> None:
    await stage.client.submit(*[clustering("again", threshold=0.6)] * 3)
    first = await stage.client.archive("again")
    data, written = first.path.read_bytes(), first.path.stat().st_mtime_ns
    await stage.client.submit(clustering("again", threshold=0.9), clustering("after again"))
    await stage.client.ended("after again")
    states = [status["status"] for status in stage.client.statuses("again")]
    assert states.count("pending") == states.count("done") == 1
    assert (first.path.read_bytes(), first.path.stat().st_mtime_ns) == (data, written)


async def test_a_task_in_messagepack_is_a_task(stage: Stage) -> None:
    await stage.client.submit(clustering("packed", threshold=0.6), packed=True)
    archive = await stage.client.archive("packed")
    seen = sightings(stage.records[: stage.produced], "demo")
    assert archive.members == expected_clusters(seen, 0.6)


async def test_unreadable_tasks_are_passed_over(stage: Stage) -> None:
    for value in (b"", b"{", b"\xc1\xc1", b"[1, 2]", b'{"task_id": "x"}', b'{"account_id": "demo"}'):
        await stage.client.submit_bytes("demo", value)
    await stage.client.submit(clustering("after garbage"))
    await stage.client.archive("after garbage")


async def test_a_snapshot_holds_what_was_in_the_log_when_its_task_was_read(stage: Stage) -> None:
    with FeedGate() as gate:
        await stage.produce(150)
        await stage.client.submit(clustering("barrier", threshold=0.6))
        await stage.client.reached("pending", "barrier")
        barrier = stage.produced
        await stage.produce(150)
        await stage.worker.until(lambda: gate.held() == 300, 10, "all records at the gate")
        assert {status["status"] for status in stage.client.statuses("barrier")} <= {"pending", "in_progress"}
        gate.open()
        archive = await stage.client.archive("barrier")
    assert archive.manifest["as_of"]["next_offset"] == barrier
    assert archive.members == expected_clusters(sightings(stage.records[:barrier], "demo"), 0.6)
    await stage.worker.applied(stage.produced)


async def test_a_task_that_waits_can_be_cancelled(stage: Stage) -> None:
    with FeedGate() as gate:
        await stage.produce(20)
        await stage.client.submit(clustering("cancel-waiting"))
        await stage.client.reached("in_progress", "cancel-waiting")
        assert stage.client.statuses("cancel-waiting")[-1]["stage"] == "wait"
        await stage.client.submit({"type": "cancel", "task_id": "cancel-waiting", "account_id": "nobody"})
        await stage.client.submit({"type": "cancel", "task_id": "cancel-waiting", "account_id": "demo"})
        status = await stage.client.ended("cancel-waiting")
        gate.open()
    assert (status["status"], status["archive"]) == ("cancelled", None)
    assert not list(stage.folder.rglob("cancel-waiting*"))
    await stage.client.submit(clustering("cancel-waiting"), clustering("after cancel"))
    await stage.client.archive("after cancel")
    assert stage.client.statuses("cancel-waiting")[-1] == status


class _Held:
    """Holds snapshots at their beginning until they are interrupted, or until `go`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.began, self.go = threading.Event(), threading.Event()
        real = tasks.run_snapshot

        def held(view: Any, request: Any, target: Path, **more: Any) -> Any:
            self.began.set()
            while not (more["interrupt"].cancelled or self.go.wait(0.01)):
                pass
            return real(view, request, target, **more)

        patch.setattr(tasks, "run_snapshot", held)


async def test_a_task_that_runs_can_be_cancelled(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    held = _Held(monkeypatch)
    await stage.client.submit(clustering("cancel-running", threshold=0.2))
    await stage.worker.until(held.began.is_set, 10, "the snapshot to begin")
    assert stage.worker.sample("tasks_running") == 1
    # Only one task runs at a time, so this one waits for its turn.
    await stage.client.submit(clustering("waits for its turn", threshold=0.2))
    await stage.client.reached("in_progress", "waits for its turn")
    await stage.client.submit({"type": "cancel", "task_id": "cancel-running", "account_id": "demo"})
    status = await stage.client.ended("cancel-running")
    assert status["status"] == "cancelled"
    assert not list(stage.folder.rglob("*cancel-running*"))
    held.go.set()
    await stage.client.archive("waits for its turn")


async def test_a_task_that_waits_too_long_exceeds_its_deadline(stage: Stage) -> None:
    with FeedGate() as gate:
        await stage.produce(20)
        await stage.client.submit(_later(clustering("late-waiting"), deadline_s=0.3))
        status = await stage.client.ended("late-waiting")
        gate.open()
    assert (status["status"], status["error"]["code"]) == ("failed", "deadline_exceeded")


async def test_a_task_that_runs_too_long_exceeds_its_deadline(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = _Held(monkeypatch)
    await stage.client.submit(_later(clustering("late-running", threshold=0.2), deadline_s=0.5))
    await stage.worker.until(held.began.is_set, 10, "the snapshot to begin")
    # The deadline passes while the snapshot is held.
    statuses = stage.client.statuses
    await stage.client.submit(_later(clustering("late-queued"), deadline_s=0.6))
    assert (await stage.client.ended("late-queued"))["error"]["code"] == "deadline_exceeded"
    held.go.set()
    status = await stage.client.ended("late-running")
    assert (status["status"], status["error"]["code"]) == ("failed", "deadline_exceeded")
    assert statuses("late-running")[0]["status"] == "pending"
    assert not list(stage.folder.rglob("*late-running*"))


async def test_a_task_that_meets_a_fault_of_the_service_fails_alone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def faulty(*_: Any, **__: Any) -> Any:
            raise RuntimeError("the disk is on fire")

        patch.setattr(tasks, "run_snapshot", faulty)
        await stage.client.submit(clustering("fault"))
        status = await stage.client.ended("fault")
    assert (status["status"], status["archive"]) == ("failed", None)
    assert status["error"] == {"code": "internal_error", "message": "RuntimeError: the disk is on fire"}
    await stage.client.submit(clustering("after fault"))
    await stage.client.archive("after fault")


async def test_a_task_that_ends_while_its_view_is_opened_leaves_none_open(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open view would keep the database's log from ever shrinking."""
    opened: list[PartitionView] = []
    open_view = Partition.view

    def slowly(partition: Partition) -> PartitionView:
        time.sleep(0.8)
        opened.append(open_view(partition))
        return opened[-1]

    monkeypatch.setattr(Partition, "view", slowly)
    await stage.client.submit(_later(clustering("late-view"), deadline_s=0.2))
    status = await stage.client.ended("late-view")
    assert status["error"]["code"] == "deadline_exceeded"
    await stage.client.submit(clustering("after late-view"))
    await stage.client.archive("after late-view")
    assert len(opened) == 2

    def is_closed(view: PartitionView) -> bool:
        try:
            view.next_offset()
        except StateError:
            return True
        return False

    await stage.worker.until(lambda: all(map(is_closed, opened)), 5, "both views to be closed")

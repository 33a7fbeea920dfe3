"""The status page: what it tells, what it keeps to itself, and how it is served."""

from __future__ import annotations

import json
from types import SimpleNamespace

import aiohttp
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from stream_cluster.config.settings import HttpSettings
from stream_cluster.matching.matcher import RecallSample
from stream_cluster.messages import ArchiveRef, TaskFault, TaskStatus, encode_status
from stream_cluster.model import SpaceKey
from stream_cluster.service.http import HttpServer
from stream_cluster.service.status_board import MAX_ENDED, MAX_SPACES, RATE_S, StatusBoard
from stream_cluster.service.status_page import StatusPage
from stream_cluster.state.space import Space
from stream_cluster.state.tasks import StoredTask
from tests.support.status_facts import facts

SECRET = "https://bucket/x.zip?signature=abc"


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


def status(task_id, state="done", *, account="acme", minute=0, **more):
    if state == "done":
        more.setdefault(
            "archive", ArchiveRef(url=f"s3://b/{account}/{task_id}.zip", size_bytes=1, sha256="0" * 64)
        )
        more.setdefault("result_url", SECRET)
    time = f"2026-05-01T10:{minute // 60:02}:{minute % 60:02}.000Z"
    return TaskStatus(task_id=task_id, account_id=account, status=state, progress=1.0, time=time, **more)


def matcher(engine="exact", recall=(0, 0)):
    return SimpleNamespace(engine=engine, nbytes=1000, recall=RecallSample(*recall))


def space(objects, *, account="acme", held=None, deleted=0):
    key = SpaceKey(account, "event", "face", 62)
    return Space(1, key, 512, 0.4, next_row=objects + deleted, deleted=deleted, matcher=held)


def assignment_of(*spaces, loading=(2,)):
    partition = SimpleNamespace(spaces=lambda: list(spaces))
    runner = SimpleNamespace(partition=partition, next_offset=981, buffered_records=4, number=0)
    return SimpleNamespace(
        runners={0: runner}, loading=set(loading), paused={0}, lag_records=lambda number: 12 + number
    )


def tasks_of(*jobs):
    return SimpleNamespace(jobs=list(jobs))


def job(task_id, *, view=None, began=40.0, stage="match", account="acme"):
    return SimpleNamespace(
        key=(account, task_id),
        progress=(stage, 0.43),
        runner=SimpleNamespace(number=0),
        view=view,
        began=began,
    )


def board(**settings):
    return StatusBoard(HttpSettings(**settings), Clock())


def report(told, assignment=None, tasks=None, problems=(), partition_of=lambda _: 0):
    found = told.report(assignment, tasks, partition_of=partition_of, problems=problems)
    return json.loads(msgspec.json.encode(found))


def shape(value):
    """Names of the fields, of all items of a list together."""
    if isinstance(value, dict):
        return {name: shape(item) for name, item in value.items()}
    if isinstance(value, list):
        together = {}
        for item in value:
            together |= shape(item) if isinstance(item, dict) else {}
        return together
    return None


def test_a_report_has_the_fields_that_the_page_is_tested_with():
    told = board()
    told.note(status("a", objects=5, clusters=2, largest_cluster=3, duration_s=1.5))
    told.note(status("b", "failed", error=TaskFault(code="empty_selection", message="personal details")))
    made = report(
        told,
        assignment_of(space(7, held=matcher("hnsw", (200, 199)), deleted=3)),
        tasks_of(job("run", view=object()), job("wait")),
        problems=["partition 2: loading"],
    )
    assert shape(made) == shape(facts(spaces=facts()["spaces"][:1], tasks=facts()["tasks"]))
    assert made["spaces"][0] == {
        "partition": 0,
        "account_id": "acme",
        "object_type": "event",
        "descriptor_type": "face",
        "version": 62,
        "dimension": 512,
        "objects": 7,
        "engine": "hnsw",
        "memory_bytes": 1000,
        "recall": {"links": 200, "share": 0.995},
    }
    assert [one["state"] for one in made["partitions"]] == ["paused", "loading"]
    assert (made["ready"], made["problems"]) == (False, ["partition 2: loading"])
    assert (made["tasks"]["running"], made["tasks"]["waiting"]) == (1, 1)
    assert [one["task_id"] for one in made["tasks"]["active"]] == ["run", "wait"]
    assert made["tasks"]["active"][0]["elapsed_s"] == 10.0


def test_nothing_is_known_before_the_service_has_connected():
    made = report(board(), problems=["connecting to Kafka"], partition_of=None)
    assert (made["partitions"], made["spaces"], made["tasks"]["active"]) == ([], [], [])


def test_neither_a_presigned_address_nor_the_text_of_an_error_is_told():
    told = board()
    told.note(status("a"))
    told.note(status("b", "failed", error=TaskFault(code="bad_request", message="personal details")))
    text = json.dumps(report(told, assignment_of()))
    assert "signature" not in text
    assert "personal" not in text
    assert "s3://b/acme/a.zip" in text


def test_without_ids_numbers_stand_for_them_and_archives_have_no_address():
    told = board(status_page_ids=False)
    told.note(status("secret-task", account="secret-account"))
    made = report(
        told, assignment_of(space(1, account="secret-account")), tasks_of(job("j", account="secret-account"))
    )
    assert "secret" not in json.dumps(made)
    assert made["shows_ids"] is False
    assert made["spaces"][0]["account_id"] == made["tasks"]["ended"][0]["account_id"]
    assert made["tasks"]["ended"][0]["archive"] is None


def test_an_archive_that_is_gone_has_no_address_and_its_task_ended_when_it_did():
    told = board()
    told.note(status("a", minute=1))
    told.note(status("b", minute=2))
    told.note(status("a", minute=3, archive_removed="expired"))
    last, first = report(told, assignment_of())["tasks"]["ended"]
    assert (last["task_id"], first["task_id"]) == ("b", "a")
    assert (first["archive"], first["archive_removed"]) == (None, "expired")


def test_what_is_told_is_bounded_and_the_latest_and_largest_stay():
    told = board()
    for number in reversed(range(MAX_ENDED + 7)):
        told.note(status(f"t{number}", minute=number))
        told.note(status(f"t{number}", "in_progress", minute=number))
    made = report(told, assignment_of(*(space(n, account=f"a{n}") for n in range(MAX_SPACES + 9))))
    assert [one["task_id"] for one in made["tasks"]["ended"]] == [
        f"t{number}" for number in reversed(range(7, MAX_ENDED + 7))
    ]
    assert [one["objects"] for one in made["spaces"]] == list(range(MAX_SPACES + 8, 8, -1))
    assert made["spaces_total"] == {"spaces": MAX_SPACES + 9, "objects": sum(range(MAX_SPACES + 9))}


def test_tasks_of_an_earlier_life_are_known_and_those_of_other_workers_are_not():
    told = board()
    for account, archive in (("acme", "expired"), ("far", "kept")):
        sent = encode_status(status("a", account=account))
        told.recall(StoredTask(account, "a", "done", b"{}", 0, 0, None, 1, sent, archive))
    made = report(told, assignment_of(), partition_of=lambda account: 0 if account == "acme" else 5)
    (only,) = made["tasks"]["ended"]
    assert (only["account_id"], only["archive_removed"]) == ("acme", "expired")


def test_the_rate_is_that_of_the_last_minute():
    clock = Clock()
    told = StatusBoard(HttpSettings(), clock)
    assert report(told)["rate"] == {"records": 0, "records_per_s": 0.0, "by_second": []}
    for second in range(200):
        clock.now += 1
        told.applied(1000 if second < 100 else 50)
        told.beat()
    rate = report(told)["rate"]
    assert rate == {"records": 105_000, "records_per_s": 50.0, "by_second": [50.0] * RATE_S}


async def served(page, path):
    server = HttpServer(
        HttpSettings(host="127.0.0.1", port=0),
        CollectorRegistry(),
        list,
        list,
        refresh=lambda: None,
        status_page=page,
    )
    await server.start()
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{server.port}{path}") as response,
        ):
            return response.status, response.headers, await response.text()
    finally:
        await server.stop()


@pytest.mark.parametrize("path", ["/status", "/status.json"])
async def test_there_is_no_status_page_unless_it_is_wanted(path):
    assert HttpSettings().status_page is False
    assert (await served(None, path))[0] == 404


async def test_the_page_may_load_nothing_and_run_only_what_is_its_own():
    code, headers, text = await served(StatusPage(dict), "/status")
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert code == 200
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    for kind in ("script-src", "style-src"):
        assert policy[kind].startswith("'sha256-")
        assert "unsafe" not in policy[kind]
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "http://" not in text
    assert "https://" not in text
    assert "innerHTML" not in text


async def test_many_who_look_cost_one_report():
    asked = []

    def count():
        asked.append(1)
        return {"asked": len(asked)}

    page = StatusPage(count)
    assert json.loads((await served(page, "/status.json"))[2]) == {"asked": 1}
    assert json.loads((await served(page, "/status.json"))[2]) == {"asked": 1}
    page._gathered_at -= 10
    assert json.loads((await served(page, "/status.json"))[2]) == {"asked": 2}

"""The life of tasks on a real partition: ends, cancels at every stage, deletes, restarts, fairness."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from stream_cluster.errors import Cancelled, TaskError
from stream_cluster.messages import decode_task, encode_status, parse_time
from stream_cluster.model import Interrupt
from stream_cluster.snapshot import archive, linkage, rematch, run
from stream_cluster.snapshot import request as requested
from stream_cluster.state.tasks import StoredTask, TaskEnd, add_task, ask, end_task
from stream_cluster.state.view import PartitionView
from tests.support.kafka import eventually
from tests.support.life import Life, fill, seconds_since
from tests.support.partitions import open_partition
from tests.support.s3 import s3_server

NOT_REACHED = 10**9
ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def server():
    with s3_server() as found:
        yield found


def bucket(server, **more):
    return {**server.overrides(), **more}


def archives(folder):
    """All files below the results and on their way there."""
    found = [*(folder / "results").rglob("*"), *(folder / "spool").rglob("*")]
    return [path for path in found if path.is_file()]


def file_of(status):
    return Path(unquote(urlsplit(status.archive.url).path))


def is_due(interrupt):
    """Whether the work is to stop."""
    try:
        interrupt.check()
    except (Cancelled, TaskError):
        return True
    return False


class Stall:
    """Holds a function of a stage until its task is asked to stop; then the function does its work."""

    def __init__(self, monkeypatch, module, name, instead=None):
        real = getattr(module, name)
        self.reached = False
        self.interrupt: Interrupt | None = None
        real_begin = Interrupt.__init__

        def begin(interrupt, *arguments, **more):
            real_begin(interrupt, *arguments, **more)
            self.interrupt = interrupt

        def stalled(*arguments, **more):
            self.reached = True
            while instead is None and not is_due(self.interrupt):
                time.sleep(0.005)
            return (instead or real)(*arguments, **more)

        monkeypatch.setattr(Interrupt, "__init__", begin)
        monkeypatch.setattr(module, name, stalled)


def endless_query(view, *arguments, **more):
    return list(view.query(ENDLESS))


STAGES = {
    "select": (requested, "select", None),
    "a query that sorts": (requested, "select", endless_query),
    "a query of codes": (PartitionView, "codes", endless_query),
    "match": (rematch, "all_pairs", None),
    "linkage": (linkage, "merge_above", None),
    "clusters from the forest": (run, "labels_from_forest", None),
    "numbers": (run, "number_clusters", None),
    "manifest": (run, "_manifest", None),
    "clusters": (archive, "_write_jsonl", None),
    "report": (archive, "_report", None),
    "digest": (archive, "_sha256", None),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("how", ["cancel", "deadline", "delete"])
async def test_a_task_is_stopped_within_a_second_at_every_stage(folder, monkeypatch, stage, how):
    module, name, instead = STAGES[stage]
    stall = Stall(monkeypatch, module, name, instead)
    content = {"threshold": 0.2 if name in {"all_pairs", "codes"} else 0.6}  # below and above the floor
    if stage == "linkage":
        content["linkage"] = "average"
    async with Life(folder) as life:
        deadline_s = 0.4 if how == "deadline" else None
        began = time.monotonic()
        await life.submit(content=content, deadline_s=deadline_s)
        if how != "deadline":
            await eventually(lambda: stall.reached, 5, stage)
            began = time.monotonic()
            await (life.cancel() if how == "cancel" else life.delete())
        status = await life.has_ended()
        assert seconds_since(began) < (1 if deadline_s is None else deadline_s + 1)
        assert stall.reached
        assert status.status == ("failed" if how == "deadline" else "cancelled")
        assert how != "deadline" or status.error.code == "deadline_exceeded"
        assert status.archive is None
        assert archives(folder) == []


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize("waits_for", ["barrier", "slot"])
async def test_a_task_that_waits_is_stopped_within_a_second(folder, monkeypatch, waits_for, how):
    if waits_for == "slot":
        Stall(monkeypatch, requested, "select")
    async with Life(folder) as life:
        if waits_for == "slot":
            await life.submit("first")
            await eventually(lambda: life.tasks._slots.held == 1, 5, "the first to run")
        began = time.monotonic()
        barrier = NOT_REACHED if waits_for == "barrier" else 0
        await life.submit(barrier=barrier, deadline_s=0.3 if how == "deadline" else None)
        if how == "cancel":
            await asyncio.sleep(0.1)
            began = time.monotonic()
            await life.cancel()
        status = await life.has_ended()
        assert seconds_since(began) < 1.3
        assert status.status == ("cancelled" if how == "cancel" else "failed")
        assert status.stage is None
        # Nothing is left in line: a later task gets the slot.
        await life.cancel("first")
        await life.submit("later", content={"threshold": 0.3})
        await eventually(lambda: not life.tasks._slots.waiting, 5, "an empty line")


@pytest.mark.parametrize("how", ["cancel", "deadline"])
async def test_an_upload_that_hangs_is_given_up_within_a_second_and_leaves_nothing(folder, server, how):
    server.gateway.released.clear()
    server.gateway.held.clear()
    async with Life(folder, **bucket(server)) as life:
        server.gateway.is_held = lambda method, path: method == "PUT" and path.endswith(".zip")
        began = time.monotonic()
        await life.submit(deadline_s=0.8 if how == "deadline" else None)
        if how == "cancel":
            await asyncio.to_thread(server.gateway.held.wait, 5)
            await life.until(lambda status: status.stage == "upload")
            began = time.monotonic()
            await life.cancel()
        status = await life.has_ended()
        assert seconds_since(began) < (1 if how == "cancel" else 1.8)
        assert status.status == ("cancelled" if how == "cancel" else "failed")
        # The store took it after all; the worker removes it again.
        begin = len(server.gateway.seen)
        server.gateway.open()
        await eventually(
            lambda: any(
                "delete" in f"{method} {path}".lower() for method, path in server.gateway.seen[begin:]
            ),
            5,
            f"the archive to be taken back; {server.gateway.seen}",
        )
        await eventually(lambda: server.object_names() == [], 5, "an empty bucket")
        assert archives(folder) == []


async def test_progress_names_each_stage_and_never_goes_back(folder, server):
    async with Life(folder, tasks__progress_interval_s=0.001, **bucket(server)) as life:
        await life.submit(barrier=NOT_REACHED)
        await asyncio.sleep(0.02)
        life.runner.feed([], NOT_REACHED)
        last = await life.has_ended()
        states = [status.status for status in life.of()]
        assert states[0] == "pending"
        assert set(states[1:-1]) == {"in_progress"}
        assert states[-1] == last.status == "done"
        shares = [status.progress for status in life.of()]
        assert shares == sorted(shares)
        assert "wait" in {status.stage for status in life.of()}


async def test_a_done_task_in_a_bucket_names_its_archive_and_how_to_get_it(folder, server):
    async with Life(folder, **bucket(server, results__presign_s=60)) as life:
        await life.submit(result_ttl_s=3600)
        status = await life.has_ended()
    assert status.archive.url == "s3://results/faces/archives/acme/t.zip"
    assert status.result_url.startswith(f"{server.endpoint}/results/faces/archives/acme/t.zip?")
    assert 3590e6 < parse_time(status.expires) - parse_time(status.time) < 3610e6
    with life.store.open(life.store.names("acme").__next__()) as file:
        assert len(file.read()) == status.archive.size_bytes
    life.store.delete(next(life.store.names("acme")))


async def test_a_store_that_is_down_fails_the_task_and_the_next_one_is_done(folder, server):
    async with Life(folder, **bucket(server)) as life:
        server.gateway.down = True
        try:
            await life.submit("unlucky")
            status = await life.has_ended("unlucky")
        finally:
            server.gateway.down = False
        assert (status.status, status.error.code) == ("failed", "result_store_unavailable")
        assert "s3://results/faces/archives/acme/unlucky.zip" in status.error.message
        await life.submit("lucky")
        assert (await life.has_ended("lucky")).status == "done"
        await life.delete("lucky")
        await eventually(lambda: server.object_names() == [], 5, "an empty bucket")


async def test_a_results_directory_that_cannot_be_written_fails_the_task_with_the_same_code(folder):
    async with Life(folder) as life:
        (folder / "results" / "acme").write_text("in the way")
        await life.submit()
        status = await life.has_ended()
        assert (status.status, status.error.code) == ("failed", "result_store_unavailable")


# -- removal -------------------------------------------------------------------------------------------------


async def test_a_deleted_task_loses_its_archive_and_says_so_each_time_it_is_asked(folder):
    async with Life(folder) as life:
        await life.submit()
        done = await life.has_ended()
        assert file_of(done).exists()
        await life.delete()
        gone = await life.until(lambda status: status.archive_removed is not None)
        assert (gone.status, gone.archive, gone.result_url) == ("done", None, None)
        assert (gone.archive_removed, gone.objects, gone.clusters) == ("deleted", done.objects, done.clusters)
        assert archives(folder) == []
        await eventually(lambda: life.row().archive == "deleted", 5, "the state to know")
        await life.delete()
        assert [status.archive_removed for status in life.of()][-2:] == ["deleted", "deleted"]
        await life.submit()
        assert life.of()[-1].archive_removed == "deleted", "the id is taken"


async def test_a_delete_of_a_running_task_cancels_it_first(folder, monkeypatch):
    stall = Stall(monkeypatch, requested, "select")
    async with Life(folder) as life:
        await life.submit()
        await eventually(lambda: stall.reached, 5, "select")
        await life.delete()
        gone = await life.until(lambda status: status.archive_removed is not None)
        ends = [(status.status, status.archive_removed) for status in life.of() if status.ended]
        assert ends == [("cancelled", None), ("cancelled", "deleted")]
        assert gone.archive is None


async def test_a_delete_of_a_task_that_is_not_known_is_answered_with_unknown_task(folder):
    async with Life(folder) as life:
        await life.submit()
        await life.has_ended()
        await life.delete("other")
        await life.delete(account="stranger")
        for status in (life.of("other")[-1], life.statuses.sent[-1]):
            assert (status.status, status.error.code) == ("failed", "unknown_task")
        assert life.statuses.sent[-1].account_id == "stranger"
        assert len(archives(folder)) == 1


@pytest.mark.parametrize("kind", ["directory", "bucket"])
async def test_an_archive_expires_after_its_time_also_across_a_restart(folder, server, kind):
    settings = bucket(server) if kind == "bucket" else {}
    async with Life(folder, results__sweep_interval_s=3600, **settings) as life:
        await life.submit("short", result_ttl_s=3600)
        await life.submit("kept")
        await life.has_ended("short")
        await life.has_ended("kept")
        assert len(list(life.store.names())) == 2
        # An hour passes while no worker is there.
        await life.execute("UPDATE tasks SET expires_us = expires_us - 3600000000")
    async with Life(folder, life.statuses, **settings) as second:
        gone = await second.until(lambda status: status.archive_removed is not None, "short")
        assert (gone.status, gone.archive_removed, gone.expires) == ("done", "expired", None)
        assert [name.name for name in second.store.names()] == ["kept.zip"]
        await eventually(lambda: second.row("short").archive == "expired", 5, "the state to know")
        removed = second.metrics.archives_removed.labels("expired")._value
        await eventually(lambda: removed.get() == 1, 5, "the metric")
        await second.delete("kept")
        await second.until(lambda status: status.archive_removed == "deleted", "kept")
    async with Life(folder, life.statuses, **settings):
        await asyncio.sleep(0.3)
    assert len([status for status in life.of("short") if status.archive_removed]) == 1


async def test_the_configured_time_to_live_holds_for_tasks_that_name_none(folder):
    async with Life(folder, results__ttl_s=1000) as life:
        await life.submit("usual")
        await life.submit("own", result_ttl_s=5)
        await life.submit("for ever", result_ttl_s=2**53)
        for task_id, seconds in (("usual", 1000), ("own", 5)):
            status = await life.has_ended(task_id)
            assert parse_time(status.expires) - parse_time(status.time) == pytest.approx(
                seconds * 1e6, abs=1e6
            )
        assert (await life.has_ended("for ever")).expires is None


async def test_a_store_that_is_down_delays_a_removal_but_does_not_lose_it(folder, server):
    async with Life(folder, **bucket(server, results__s3__retry_s=0.2)) as life:
        await life.submit()
        await life.has_ended()
        server.gateway.down = True
        try:
            await life.delete()
            await eventually(lambda: life.metrics.removal_failures._value.get() >= 1, 10, "a failed try")
        finally:
            server.gateway.down = False
        await life.until(lambda status: status.archive_removed == "deleted")
        assert server.object_names() == []


async def test_old_tasks_are_forgotten_once_their_archives_are_gone(folder):
    async with Life(folder) as life:
        for task_id in ("gone", "kept"):
            await life.submit(task_id)
            await life.has_ended(task_id)
        await life.submit("failed", content={"descriptor_type": "body"})
        await life.has_ended("failed")
        await life.delete("gone")
        await eventually(lambda: life.row("gone").archive == "deleted", 5, "removed")
        year_us = 365 * 86_400_000_000
        await life.execute(f"UPDATE tasks SET ended_us = ended_us - {year_us}")
        await eventually(lambda: life.row("gone") is None and life.row("failed") is None, 5, "forgotten")
        assert life.row("kept") is not None
        await life.delete("kept")
        await life.until(lambda status: status.archive_removed == "deleted", "kept")


# -- restarts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["select", "match", "clusters", "report", "digest"])
async def test_a_task_under_way_at_the_end_of_the_process_is_done_once_afterwards(folder, stage):
    module, name, instead = STAGES[stage]
    with pytest.MonkeyPatch.context() as patch:
        stall = Stall(patch, module, name, instead)
        life = Life(folder)
        await life.__aenter__()
        await life.submit(content={"threshold": 0.2})
        await eventually(lambda: stall.reached, 5, stage)
        await life.die()
    assert {status.status for status in life.of()} <= {"pending", "in_progress"}
    async with Life(folder, life.statuses) as second:
        status = await second.has_ended()
    assert [one.status for one in second.of() if one.ended] == ["done"]
    assert archives(folder) == [file_of(status)]


@pytest.mark.parametrize("kind", ["directory", "bucket"])
async def test_a_process_that_ended_after_storing_and_before_the_status_says_it_once(folder, server, kind):
    settings = bucket(server) if kind == "bucket" else {}
    life = Life(folder, **settings)
    await life.__aenter__()
    hanging = asyncio.Event()

    async def hang(status, outputs, **_):
        if status.ended:
            hanging.set()
            await asyncio.Event().wait()
        life.statuses.sent.append(status)

    send, life.statuses.send = life.statuses.send, hang
    await life.submit()
    await asyncio.wait_for(hanging.wait(), 10)
    assert len(list(life.store.names())) == 1
    for driver in life.tasks._drivers.values():
        driver.cancel()
    life.runner._stopping = True
    await life.die()
    life.statuses.send = send
    async with Life(folder, life.statuses, **settings) as second:
        await second.has_ended()
        assert [one.status for one in second.of() if one.ended] == ["done"]
        assert len(list(second.store.names())) == 1
        second.store.delete(next(second.store.names()))


async def test_an_end_that_the_topic_knows_and_the_state_does_not_is_taken_over(folder):
    async with Life(folder) as life:
        await life.submit(result_ttl_s=1000)
        done = await life.has_ended()

        await life.execute("UPDATE tasks SET status = 'pending', ended_us = NULL, archive = NULL")
    second = Life(folder)
    second.ended = {("acme", "t"): done}
    async with second:
        row = second.row()
        assert (row.status, row.archive, row.expires_us) == ("done", "kept", parse_time(done.expires))
        assert second.statuses.sent == []


async def test_a_cancel_that_was_read_before_the_process_ended_holds_after_it(folder):
    async with Life(folder) as life:
        await life.submit(barrier=NOT_REACHED)
        # Noted, and gone before the task could act on it.
        await life.execute("UPDATE tasks SET asked = 'cancel'")
    async with Life(folder, life.statuses) as second:
        assert (await second.has_ended()).status == "cancelled"


async def test_the_deadline_counts_from_reading_across_restarts(folder):
    async with Life(folder) as life:
        await life.submit(barrier=NOT_REACHED, deadline_s=1.5)
        await asyncio.sleep(0.8)
    async with Life(folder, life.statuses) as second:
        began = time.monotonic()
        status = await second.has_ended()
        assert seconds_since(began) < 1.2
        assert status.error.code == "deadline_exceeded"
        assert status.duration_s > 1.4


async def test_a_task_whose_end_came_from_another_worker_is_only_remembered(folder):
    async with Life(folder) as life:
        await life.submit()
        done = await life.has_ended()
        count = len(life.statuses.sent)
        task = life.row("t").request
        other = decode_task(task.replace(b'"t"', b'"u"'))
        await life.tasks.accept(life.runner, other, 0, {}, done)
        assert len(life.statuses.sent) == count
        row = life.row("u")
        assert (row.status, row.archive, row.last_status) == ("done", "kept", encode_status(done))


# -- several at once -----------------------------------------------------------------------------------------


async def test_tasks_of_accounts_take_turns_when_the_slots_are_full(tmp_path, monkeypatch):
    fill(tmp_path, accounts=("busy", "small"))
    order = []
    real = requested.select
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def select(view, space, *arguments, **more):
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)
        order.append(space.key.account_id)
        return real(view, space, *arguments, **more)

    monkeypatch.setattr(requested, "select", select)
    async with Life(tmp_path) as life:
        for number in range(12):
            await life.submit(f"busy-{number}", "busy")
        await life.submit("small", "small")
        await eventually(lambda: life.tasks._slots.waiting == 12, 5, "twelve in line")
        gate.set()
        await eventually(lambda: sum(status.ended for status in life.statuses.sent) == 13, 10, "all to end")
    assert order.index("small") <= 2
    assert {status.status for status in life.statuses.sent if status.ended} == {"done"}


async def test_as_many_tasks_run_at_once_as_the_setting_says(folder, monkeypatch):
    stall = Stall(monkeypatch, requested, "select")
    async with Life(folder, tasks__concurrency=3) as life:
        for number in range(5):
            await life.submit(str(number))
        await eventually(lambda: life.tasks._slots.held == 3, 5, "three to run")
        await asyncio.sleep(0.1)
        assert (life.tasks._slots.held, life.tasks._slots.waiting) == (3, 2)
        assert life.metrics.tasks_running._value.get() == 3
        assert stall.reached


def test_the_end_of_a_task_tells_whether_its_deletion_waits(folder):
    # `end_task` is what wakes the sweep for a delete that came while the last status was being sent.
    partition = open_partition(folder)
    partition.change_tasks(add_task, StoredTask("acme", "t", "pending", b"{}", 1, 0))
    end = TaskEnd("done", 2, b"{}", "kept", None, None)
    assert not partition.change_tasks(end_task, "acme", "t", end)
    assert partition.change_tasks(ask, "acme", "t", "delete").status == "done"
    assert partition.change_tasks(end_task, "acme", "t", end)
    partition.close()


async def test_a_task_that_waits_says_how_many_records_it_waits_for(tmp_path):
    fill(tmp_path)
    async with Life(tmp_path) as life:
        await life.submit(barrier=life.runner.next_offset + 7)
        status = await life.until("in_progress")
        assert (status.stage, status.progress, status.records_to_barrier) == ("wait", 0.0, 7)
        await life.cancel()
        assert (await life.has_ended()).records_to_barrier is None

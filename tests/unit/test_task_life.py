"""The life of tasks on a real partition: ends, cancels at every stage, deletes, restarts, fairness."""

from __future__ import annotations

import asyncio
import time

import pytest

from stream_cluster.messages import parse_time
from stream_cluster.snapshot import request as requested
from tests.support.kafka import eventually
from tests.support.life import Life, fill, seconds_since
from tests.support.stages import NOT_REACHED, STAGES, Stall, archives, bucket, file_of


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path)
    return tmp_path


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

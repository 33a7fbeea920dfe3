"""Backups of several owners, their age, and a store that fails."""

from __future__ import annotations

import os
import threading
import time
from pathlib import PurePosixPath

import pytest

from stream_cluster.errors import BackupsUnavailable, Cancelled
from stream_cluster.model import Interrupt
from stream_cluster.service.backup_store import BucketBackups
from stream_cluster.service.partition_backups import PartitionBackups, TakenOver
from stream_cluster.state.database import database_path
from tests.support.backups import back_up, contents, filled, in_directory, restore_newest, store_of
from tests.support.partitions import deletion, records

HOUR_US = 3_600_000_000


@pytest.fixture(params=["directory", "bucket"])
def store(request, tmp_path):
    return store_of(request, tmp_path)


# -- two workers ---------------------------------------------------------------------------------------


def test_of_many_who_want_one_name_one_gets_it(store):
    name = PurePosixPath("events/0/epochs/0000000001.json")
    won = []
    start = threading.Barrier(6)

    def want(number):
        start.wait()
        if store.create(name, b"%d" % number):
            won.append(b"%d" % number)

    threads = [threading.Thread(target=want, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [store.read(name)]


def test_owners_that_race_for_an_epoch_have_different_ones(store):
    backups = [PartitionBackups(store, "events", 0) for _ in range(5)]
    taken = []
    threads = [
        threading.Thread(target=lambda one=one: taken.append(one.take_epoch(3, "w"))) for one in backups
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(taken)) == 5
    assert min(taken) >= 3
    assert not backups[0].is_taken_over(max(taken))
    assert all(backups[0].is_taken_over(epoch) for epoch in sorted(taken)[:-1])


def test_a_worker_that_was_taken_over_while_it_stored_leaves_nothing(store, tmp_path):
    stale_state, state = tmp_path / "stale", tmp_path / "state"
    filled(stale_state, 400).close()
    filled(state, 100).close()
    backups = PartitionBackups(store, "events", 0)
    stale = backups.take_epoch(5, "a")

    def lose() -> bool:
        raise AssertionError("asked although somebody had taken a higher epoch")

    owner = backups.take_epoch(6, "b")
    back_up(backups, state, epoch=owner)
    with pytest.raises(TakenOver):
        back_up(backups, stale_state, epoch=stale, is_owner=lose)
    with pytest.raises(TakenOver):
        back_up(backups, stale_state, epoch=owner, is_owner=lambda: False)
    newest = backups.newest_first()
    assert [(key.epoch, key.next_offset) for key in newest] == [(owner, 100)]
    assert sum(name.endswith(".zst") for name, _ in store.names(PurePosixPath("events/0"))) == 1


def test_a_former_owner_that_finished_late_is_not_the_newest(store, tmp_path):
    filled(tmp_path / "stale", 400).close()
    filled(tmp_path / "state", 100).close()
    backups = PartitionBackups(store, "events", 0)
    back_up(backups, tmp_path / "state", epoch=6)
    back_up(backups, tmp_path / "stale", epoch=5)
    assert [(key.epoch, key.next_offset) for key in backups.newest_first()] == [(6, 100), (5, 400)]


# -- retention -----------------------------------------------------------------------------------------


def test_what_was_deleted_leaves_the_backups_with_their_age(tmp_path, monkeypatch):
    state = tmp_path / "state"
    partition = filled(state, 50)
    backups = in_directory(tmp_path / "backups")
    for step in range(4):
        back_up(backups, state)
        assert len(backups.prune(3, None)) == (step == 3)
        gone = [deletion(f"acme-{step:05}")]
        partition.apply(records(gone, first_offset=50 + step))
    back_up(backups, state)
    assert len(backups.newest_first()) == 4
    folder = tmp_path / "backups" / "events" / "0"
    later_us = time.time_ns() // 1000 + 10 * HOUR_US
    monkeypatch.setattr("stream_cluster.service.partition_backups.now_us", lambda: later_us)
    backups.prune(3, 3600)
    (newest,) = backups.newest_first()
    assert newest.next_offset == 54
    assert sorted(path.suffix for path in folder.iterdir() if path.is_file()) == [".json", ".zst"]
    partition.close()
    restored = contents(restore_newest(backups, tmp_path / "restored"))
    assert {f"acme-{number:05}" for number in range(4)}.isdisjoint(row[2] for row in restored["objects"])


def test_what_never_became_a_backup_goes_after_a_day_and_not_before(tmp_path):
    filled(tmp_path / "state").close()
    backups = in_directory(tmp_path / "backups")
    made = back_up(backups, tmp_path / "state")
    folder = tmp_path / "backups" / "events" / "0"
    orphan = folder / made.manifest.data.replace(made.manifest.data[-12:-4], "00000000")
    lonely = folder / ("0000000009" + made.manifest.data[10:])
    unfinished = folder / f".{lonely.name}.abc.tmp"
    for path in (lonely, unfinished):
        path.write_bytes(b"x")
    backups.prune(3, None)
    assert lonely.exists()
    assert unfinished.exists()
    for path in (lonely, unfinished):
        os.utime(path, (time.time() - 90_000,) * 2)
    backups.prune(3, None)
    assert not lonely.exists()
    assert not unfinished.exists()
    assert not orphan.exists()
    assert backups.manifest(backups.newest_first()[0]) == made.manifest


# -- faults of the store -------------------------------------------------------------------------------


def test_a_store_that_does_not_answer_fails_the_backup_and_leaves_no_scratch(server, tmp_path):
    filled(tmp_path / "state").close()
    backups = PartitionBackups(BucketBackups(server.backup_settings(retry_s=0.2, timeout_s=2)), "events", 0)
    server.gateway.down = True
    try:
        with pytest.raises(BackupsUnavailable):
            back_up(backups, tmp_path / "state")
    finally:
        server.gateway.down = False
    assert list((tmp_path / "state" / "backup").iterdir()) == []


def test_a_backup_that_is_stopped_leaves_nothing_in_the_bucket(server, tmp_path):
    filled(tmp_path / "state", 4000).close()
    backups = PartitionBackups(BucketBackups(server.backup_settings(prefix="stopped")), "events", 0)
    interrupt = Interrupt()

    def cancel(stage, share):
        if stage == "store":
            interrupt.cancel()

    with pytest.raises(Cancelled):
        backups.make(
            database_path(tmp_path / "state", 0),
            tmp_path / "state" / "backup",
            1,
            is_owner=lambda: True,
            interrupt=interrupt,
            progress=cancel,
        )
    assert not [name for name in server.object_names() if name.startswith("stopped")]
    assert server.unfinished_uploads() == []


def test_a_manifest_that_was_created_by_a_try_whose_answer_was_lost_counts(server):
    store = BucketBackups(server.backup_settings(prefix="lost"))
    name = PurePosixPath("events/0/x.json")
    assert store.create(name, b"same")
    assert store.create(name, b"same")
    assert not store.create(name, b"other")

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import subprocess
import threading
import time
from pathlib import PurePosixPath

import cramjam
import msgspec
import pytest

from stream_cluster.errors import BackupDamaged, StateCorrupt, StateError
from stream_cluster.model import Interrupt
from stream_cluster.service.partition_backups import PartitionBackups
from stream_cluster.state.backup import copy as copying
from stream_cluster.state.backup.choose import candidates, outdated, reason_to_restore
from stream_cluster.state.backup.manifest import (
    BackupKey,
    decode_manifest,
    encode_manifest,
    next_epoch,
    parse_key,
)
from stream_cluster.state.backup.place import clean_up, local_offset, place_database
from stream_cluster.state.database import database_path
from tests.support.backups import (
    back_up,
    contents,
    filled,
    in_directory,
    messages,
    restore_newest,
    store_of,
)
from tests.support.partitions import open_partition, records

HOUR_US = 3_600_000_000


@pytest.fixture(params=["directory", "bucket"])
def store(request, tmp_path):
    return store_of(request, tmp_path)


# -- the newest, and which are kept --------------------------------------------------------------------


def test_a_backup_of_a_later_epoch_is_newer_however_far_it_is():
    stale, owner = BackupKey(4, 9_000, 50), BackupKey(5, 10, 1)
    assert max(stale, owner) == owner
    assert sorted([owner.name, stale.name]) == [stale.name, owner.name]
    assert parse_key(owner.name) == owner
    assert parse_key("0000000005-x.json") is None


def test_an_epoch_is_above_all_that_were_taken_or_used_and_no_lower_than_the_generation():
    used = [BackupKey(7, 1, 1)]
    assert next_epoch([], [], 0) == 1
    assert next_epoch([], [], 12) == 12
    assert next_epoch([3, 9], used, 4) == 10
    # The group has another name now, and its generations begin anew.
    assert next_epoch([], used, 1) == 8


def test_all_but_the_newest_few_go_and_old_ones_of_these_but_never_the_newest():
    now = 100 * HOUR_US
    keys = [BackupKey(1, offset, offset * HOUR_US) for offset in (10, 60, 95, 99)]
    assert outdated(keys, keep=3, max_age_us=None, now_us=now) == [keys[0]]
    assert outdated(keys, keep=3, max_age_us=24 * HOUR_US, now_us=now) == [keys[0], keys[1]]
    assert outdated(keys[:1], keep=3, max_age_us=HOUR_US, now_us=now) == []


@pytest.mark.parametrize(
    ("local", "begin", "far_behind", "reason"),
    [
        (None, 0, 10, "empty_disk"),
        (50, 60, 10, "log_gap"),
        (50, 0, 50, "far_behind"),
        (50, 0, 51, None),
        (50, 0, None, None),
        (60, 60, None, None),
    ],
)
def test_a_backup_is_looked_for_only_where_it_may_help(local, begin, far_behind, reason):
    assert reason_to_restore(local, begin, 100, far_behind) == reason


def test_only_backups_that_help_are_candidates():
    keys = [BackupKey(1, offset, 0) for offset in (40, 70, 90, 120)]
    by_reason = {
        reason: [
            key.next_offset for key in candidates(keys, reason, local=local, begin=60, end=100, far_behind=25)
        ]
        for reason, local in (("empty_disk", None), ("log_gap", 50), ("far_behind", 66))
    }
    # One that the log ends before is of another log, and one that ends in the gap does not bridge it.
    assert by_reason == {"empty_disk": [120, 90, 70, 40], "log_gap": [90, 70], "far_behind": []}


# -- making and restoring ------------------------------------------------------------------------------


def test_a_restored_database_holds_what_was_backed_up_and_another_worker_goes_on_with_it(store, tmp_path):
    partition = filled(tmp_path / "state")
    backups = PartitionBackups(store, "events", 0)
    made = back_up(backups, tmp_path / "state")
    partition.close()
    path = restore_newest(backups, tmp_path / "other")
    assert contents(path) == contents(database_path(tmp_path / "state", 0))
    assert (path.stat().st_mode & 0o777) == 0o600
    assert made.manifest.next_offset == 300
    assert made.manifest.objects == 300
    assert store.folders() == [PurePosixPath("events/0")]
    outcomes = []
    for folder in ("state", "other"):
        again = open_partition(tmp_path / folder)
        outcomes.append(again.apply(records(messages(50, first=300), first_offset=300)).links)
        again.close()
    assert outcomes[0] == outcomes[1] != {"face": 0}
    assert list((tmp_path / "state" / "backup").iterdir()) == []


def test_a_backup_beside_ingest_is_the_state_between_two_batches(tmp_path):
    state = tmp_path / "state"
    partition = filled(state, 2000)
    stop = threading.Event()
    applied = []

    def ingest():
        for batch in itertools.count():
            if stop.is_set():
                return
            first = 2000 + batch * 20
            partition.apply(records(messages(20, first=first), first_offset=first))
            applied.append(partition.next_offset)

    writer = threading.Thread(target=ingest)
    writer.start()
    backups = in_directory(tmp_path / "backups")
    try:
        offsets = []
        for number in range(3):
            seen = len(applied)
            while len(applied) < seen + 2 and writer.is_alive():
                time.sleep(0.005)
            offsets.append(back_up(backups, state, epoch=1 + number).manifest.next_offset)
    finally:
        stop.set()
        writer.join()
    partition.close()
    assert offsets == sorted(offsets)
    for key in backups.newest_first():
        target = tmp_path / "restored"
        backups.restore(backups.manifest(key), target, Interrupt())
        # The same batches, and nothing of the next one.
        (tmp_path / str(key.next_offset)).mkdir()
        fresh = open_partition(tmp_path / str(key.next_offset))
        fresh.apply(records(messages(2000)))
        for first in range(2000, key.next_offset, 20):
            fresh.apply(records(messages(20, first=first), first_offset=first))
        fresh.close()
        assert contents(target) == contents(database_path(tmp_path / str(key.next_offset), 0))


def test_the_copy_is_not_begun_anew_when_the_writer_commits_meanwhile(tmp_path, monkeypatch):
    state = tmp_path / "state"
    partition = filled(state, 3000)
    monkeypatch.setattr(copying, "_PAGES_PER_STEP", 5)
    begun = []
    commits = iter(range(3000, 3100))

    def progress(stage, share):
        if stage == "copy" and share < 1 and len(begun) < 100:
            begun.append(share)
            first = next(commits)
            partition.apply(records(messages(1, first=first), first_offset=first))

    backups = in_directory(tmp_path / "backups")
    made = backups.make(
        database_path(state, 0),
        state / "backup",
        1,
        is_owner=lambda: True,
        interrupt=Interrupt(),
        progress=progress,
    )
    partition.close()
    assert len(begun) > 20
    assert begun == sorted(begun)
    assert made.manifest.next_offset == 3000


def test_the_data_is_a_zstandard_file_like_any_other(tmp_path):
    filled(tmp_path / "state").close()
    made = back_up(in_directory(tmp_path / "backups"), tmp_path / "state")
    data = (tmp_path / "backups" / "events" / "0" / made.manifest.data).read_bytes()
    plain = bytes(cramjam.zstd.decompress(data))
    assert plain[:15] == b"SQLite format 3"
    assert len(plain) == made.manifest.database_bytes
    if shutil.which("zstd"):
        assert subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout == plain


def test_a_state_that_has_applied_nothing_is_not_backed_up(tmp_path):
    (tmp_path / "state").mkdir()
    open_partition(tmp_path / "state").close()
    backups = in_directory(tmp_path / "backups")
    assert back_up(backups, tmp_path / "state") is None
    assert backups.newest_first() == []


def test_a_full_disk_costs_the_backup_and_not_the_state(tmp_path, monkeypatch):
    partition = filled(tmp_path / "state")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(copying.shutil, "disk_usage", lambda _: usage._replace(free=200 << 20))
    with pytest.raises(StateError, match="free, expected"):
        back_up(in_directory(tmp_path / "backups"), tmp_path / "state")
    partition.apply(records(messages(5, first=300), first_offset=300))
    partition.close()


def test_a_damaged_database_is_found_before_it_replaces_good_backups(tmp_path):
    filled(tmp_path / "state", 2000).close()
    path = database_path(tmp_path / "state", 0)
    backups = in_directory(tmp_path / "backups")
    back_up(backups, tmp_path / "state")
    data = bytearray(path.read_bytes())
    for page in range(len(data) // 4096 // 2, len(data) // 4096 // 2 + 6):
        data[page * 4096 : page * 4096 + 40] = os.urandom(40)
    path.write_bytes(data)
    with pytest.raises(StateCorrupt):
        back_up(backups, tmp_path / "state", epoch=2)
    assert [key.epoch for key in backups.newest_first()] == [1]


# -- damage --------------------------------------------------------------------------------------------


def _truncate(data, manifest):
    return data[:-1]


def _flip(data, manifest):
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def _swap(data, manifest):
    other = cramjam.zstd.compress(bytes(manifest.database_bytes), 1)
    return bytes(other).ljust(len(data), b"\0")[: len(data)]


@pytest.mark.parametrize("harm", [_truncate, _flip, _swap, lambda data, manifest: b""])
def test_data_that_was_changed_is_refused_and_nothing_is_left_on_the_disk(tmp_path, harm):
    filled(tmp_path / "state").close()
    backups = in_directory(tmp_path / "backups")
    made = back_up(backups, tmp_path / "state")
    path = tmp_path / "backups" / "events" / "0" / made.manifest.data
    path.write_bytes(harm(path.read_bytes(), made.manifest))
    with pytest.raises(BackupDamaged):
        backups.restore(made.manifest, tmp_path / "target", Interrupt())
    assert not (tmp_path / "target").exists()


def test_a_backup_whose_data_is_gone_is_damaged(store, tmp_path):
    filled(tmp_path / "state").close()
    backups = PartitionBackups(store, "events", 0)
    made = back_up(backups, tmp_path / "state")
    store.delete(PurePosixPath("events/0") / made.manifest.data)
    with pytest.raises(BackupDamaged, match="gone"):
        backups.restore(made.manifest, tmp_path / "target", Interrupt())


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"format": "another"},
        {"next_offset": 7},
        {"block_bytes": 0},
        {"block_bytes": 1 << 40},
        {"blocks": [1, 2]},
        {"data": "../../etc/passwd"},
        {"database_bytes": "many"},
    ],
)
def test_a_manifest_that_was_changed_is_refused(tmp_path, change):
    filled(tmp_path / "state").close()
    made = back_up(in_directory(tmp_path / "backups"), tmp_path / "state").manifest
    name = made.key.name
    assert decode_manifest(encode_manifest(made), name) == made
    changed = msgspec.json.encode(msgspec.to_builtins(made) | change)
    with pytest.raises(BackupDamaged):
        decode_manifest(changed, name)
    with pytest.raises(BackupDamaged):
        decode_manifest(encode_manifest(made)[:-20], name)


# -- taking its place ----------------------------------------------------------------------------------


def test_a_log_of_the_former_database_is_not_applied_to_the_restored_one(tmp_path):
    state = tmp_path / "state"
    backups = in_directory(tmp_path / "backups")
    partition = filled(state, 100)
    back_up(backups, state)
    partition.apply(records(messages(100, first=100), first_offset=100))
    # As if killed: the log stays beside the database.
    killed = tmp_path / "killed"
    shutil.copytree(state, killed)
    partition.close()
    assert database_path(killed, 0).with_name("partition-0.sqlite-wal").stat().st_size > 0
    assert local_offset(killed, 0, "events") == 200
    path = restore_newest(backups, killed)
    assert local_offset(killed, 0, "events") == 100
    assert contents(path)["offsets"] == [("events", 0, 100)]
    assert sorted(one.name for one in killed.iterdir()) == ["backup", "partition-0.sqlite"]


@pytest.mark.parametrize("step", [1, 2, 3])
def test_killed_while_a_database_takes_its_place_the_next_start_restores_again(tmp_path, monkeypatch, step):
    state = tmp_path / "state"
    backups = in_directory(tmp_path / "backups")
    filled(state, 100).close()
    back_up(backups, state)
    calls = []

    rename = type(state).rename

    def killed(path, *arguments):
        calls.append(path)
        if len(calls) == step:
            raise KeyboardInterrupt
        return rename(path, *arguments)

    target = state / "partition-0.sqlite.new.restoring"
    backups.restore(backups.manifest(backups.newest_first()[0]), target, Interrupt())
    with monkeypatch.context() as patch:
        patch.setattr(type(state), "rename", killed)
        with contextlib.suppress(KeyboardInterrupt):
            place_database(target, state, 0)
    (state / "backup" / "copy-x.tmp").touch()
    clean_up(state)
    assert list((state / "backup").iterdir()) == []
    assert local_offset(state, 0, "events") == (100 if step != 2 else None)
    assert not list(state.glob("*.restoring"))
    path = restore_newest(backups, state)
    assert contents(path)["offsets"] == [("events", 0, 100)]
    clean_up(state)
    assert sorted(one.name for one in state.iterdir()) == ["backup", "partition-0.sqlite"]


def test_a_database_whose_creation_was_not_finished_counts_as_none(tmp_path):
    assert local_offset(tmp_path, 0, "events") is None
    database_path(tmp_path, 0).touch()
    assert local_offset(tmp_path, 0, "events") is None
    open_partition(tmp_path).close()
    assert local_offset(tmp_path, 0, "events") is None

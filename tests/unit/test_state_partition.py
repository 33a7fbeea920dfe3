"""A partition's database: commits, restarts, refusals, and what a view of it sees."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from stream_cluster.errors import ConfigError, StateCorrupt, StateError, StateFormatError, StateLocked
from stream_cluster.messages import Reason, Rejection
from stream_cluster.model import SpaceKey
from stream_cluster.state.lock import DirectoryLock
from stream_cluster.state.tasks import StoredTask, TaskEnd, end_task
from stream_cluster.state.view import PartitionView
from tests.support.partitions import (
    FLOOR,
    IDENTITY,
    clusters_of,
    message,
    open_partition,
    records,
    snapshot,
    vectors,
)
from tests.support.reference import exact_clusters

DATABASE = "partition-0.sqlite"


def objects(count=30, **options):
    return [message(number, vector, **options) for number, vector in enumerate(vectors(count))]


@pytest.fixture
def filled(tmp_path):
    """A closed partition with 30 objects."""
    partition = open_partition(tmp_path)
    partition.apply(records(objects()))
    partition.close()
    return tmp_path


def test_a_commit_stores_objects_codes_links_counters_and_the_offset_together(tmp_path):
    partition = open_partition(tmp_path)
    outcome = partition.apply(records(objects()), next_offset=35)
    assert (outcome.records, outcome.accepted, outcome.objects["face"]) == (30, 30, 30)
    assert outcome.links["face"] > 30
    with partition.view() as view:
        (space,) = view.spaces("acme")
        assert space.key == SpaceKey("acme", "event", "face", 1)
        assert (space.dim, space.next_row, space.floor_cosine) == (8, 30, FLOOR)
        assert space.links_seen == outcome.links["face"]
        assert view.next_offset() == 35
        assert view.counters() == {("accepted", ""): 30}
        assert len(view.codes(space, np.arange(30, dtype=np.uint32))) == 30
    partition.close()


def test_prepare_alone_changes_nothing(tmp_path):
    partition = open_partition(tmp_path)
    partition.prepare(records(objects()), 30)
    with partition.view() as view:
        assert view.spaces() == []
        assert view.next_offset() == 0
    assert partition.spaces() == []
    partition.close()


def test_a_commit_that_fails_leaves_database_and_memory_as_they_were(tmp_path, monkeypatch):
    partition = open_partition(tmp_path)
    all_records = records(objects())
    partition.apply(all_records[:10])

    def full_disk(*_, **__):
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("stream_cluster.state.store.write_links", full_disk)
        with pytest.raises(StateError, match=r"partition-0.sqlite.*disk is full"):
            partition.apply(all_records[10:])
    assert partition.next_offset == 10
    assert [space.next_row for space in partition.spaces()] == [10]
    partition.apply(all_records[10:])
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    assert clusters_of(archive) == exact_clusters(objects(), 0.6)
    partition.close()


_KILLED = """
import os, sys
from stream_cluster.state import partition as module, store
from tests.support.partitions import open_partition, records
from tests.unit.test_state_partition import objects

partition = open_partition(sys.argv[1], synchronous="full")
partition.apply(records(objects())[:10])
if sys.argv[2] == "before":
    store.write_links = lambda *_, **__: os._exit(9)
else:
    module.Partition._remember = lambda *_, **__: os._exit(9)
partition.apply(records(objects())[10:])
"""


@pytest.mark.parametrize(("moment", "next_offset"), [("before", 10), ("after", 30)])
def test_a_process_that_dies_around_the_commit_leaves_all_of_the_batch_or_nothing(
    tmp_path, moment, next_offset
):
    died = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), moment], check=False)
    assert died.returncode == 9
    partition = open_partition(tmp_path)
    assert partition.next_offset == next_offset
    partition.apply(records(objects()))  # all of them again, as Kafka would deliver them
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    assert clusters_of(archive) == exact_clusters(objects(), 0.6)
    partition.close()


def test_a_view_does_not_see_what_is_committed_after_it_was_opened(tmp_path):
    partition = open_partition(tmp_path)
    all_records = records(objects())
    partition.apply(all_records[:10])
    view = partition.view()
    partition.apply(all_records[10:])
    assert (view.next_offset(), view.spaces()[0].next_row) == (10, 10)
    assert next(view.query("SELECT count(*) FROM objects")) == (10,)
    view.close()
    with partition.view() as later:
        assert later.next_offset() == 30
    partition.close()


def test_a_descriptor_of_another_dimension_is_rejected_with_its_whole_record(tmp_path):
    partition = open_partition(tmp_path)
    partition.apply(records(objects(3)))
    bad = message(7, np.ones(5, np.float32))
    batch = partition.prepare(records([bad], first_offset=3), 4)
    ((record, rejection),) = batch.rejections
    assert record.offset == 3
    assert rejection == Rejection(
        Reason.WRONG_DIMENSION, "5 values, but face version 1 of this account has 8", "acme"
    )
    outcome = partition.commit(batch)
    assert dict(outcome.rejected) == {"wrong_dimension": 1}
    assert partition.next_offset == 4
    with partition.view() as view:
        assert view.counters("acme") == {("accepted", ""): 3, ("rejected", "wrong_dimension"): 1}
    partition.close()


def test_the_first_descriptor_of_a_batch_fixes_the_dimension_of_a_new_space(tmp_path):
    partition = open_partition(tmp_path)
    outcome = partition.apply(
        records([message(0, np.ones(8, np.float32)), message(1, np.ones(9, np.float32))])
    )
    assert (outcome.accepted, dict(outcome.rejected)) == (1, {"wrong_dimension": 1})
    partition.close()


def test_rejections_of_unknown_accounts_are_counted_without_their_name(tmp_path):
    partition = open_partition(tmp_path)
    made_up = [replace(record, value=record.value[:-40]) for record in records(objects(3, account="x"))]
    partition.apply(made_up)
    with partition.view() as view:
        assert view.counters("x") == {}
        assert view.counters() == {("rejected", "undecodable"): 3}
    partition.close()


def test_a_damaged_chunk_is_found_by_its_checksum(filled):
    with sqlite3.connect(filled / DATABASE) as connection:
        connection.execute("UPDATE codes SET data = zeroblob(length(data))")
    partition = open_partition(filled)
    with pytest.raises(StateCorrupt, match=r"codes of space 1 from row 0: checksum"):
        partition.apply(records([message(99, vectors(1)[0])], first_offset=30))
    partition.close()


def test_a_damaged_page_is_reported_as_damage_with_what_to_do(filled):
    path = filled / DATABASE
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = os.urandom(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(StateCorrupt, match=r"partition-0.sqlite: damaged database .* restore this partition"):
        open_partition(filled)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    (tmp_path / DATABASE).write_bytes(b"not a database at all" * 100)
    with pytest.raises(StateCorrupt, match="damaged database"):
        open_partition(tmp_path)


def test_a_database_whose_creation_was_not_finished_has_no_state_yet_and_is_made_by_the_next_writer(tmp_path):
    sqlite3.connect(tmp_path / DATABASE).execute("PRAGMA journal_mode = WAL").connection.close()
    with pytest.raises(StateError, match="no state yet, its creation is not finished"):
        PartitionView(tmp_path / DATABASE)
    open_partition(tmp_path).close()
    with PartitionView(tmp_path / DATABASE) as view:
        assert view.next_offset() == 0


def test_another_programs_database_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StateFormatError, match="not a stream-cluster state database"):
        open_partition(tmp_path)


def test_another_format_version_is_refused(filled):
    with sqlite3.connect(filled / DATABASE) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(StateFormatError, match="state format 99, but this release reads format 2"):
        open_partition(filled)
    with pytest.raises(StateFormatError):
        PartitionView(filled / DATABASE)


@pytest.mark.parametrize("change", [{"partitions": 2}, {"partitioner": "crc32"}, {"topic": "other"}])
def test_a_state_of_another_topic_or_partitioning_is_refused(filled, change):
    with pytest.raises(ConfigError, match=f"written for {next(iter(change))} = "):
        open_partition(filled, identity=replace(IDENTITY, **change))


def test_a_floor_once_raised_is_not_lowered_again(tmp_path):
    for floor in (0.5, 0.8, 0.3):
        partition = open_partition(tmp_path, floor=floor)
        begin = partition.next_offset
        partition.apply(records(objects()[begin : begin + 10], first_offset=begin))
        partition.close()
    with PartitionView(tmp_path / DATABASE) as view:
        assert view.spaces()[0].floor_cosine == 0.8


def test_tasks_are_stored_once_with_the_offsets_of_their_topic(tmp_path):
    partition = open_partition(tmp_path)
    task = StoredTask("acme", "t1", "pending", b"{}", 1, 10)
    assert partition.add_task(task, {("tasks", 0): 5})
    assert not partition.add_task(replace(task, barrier=99), {("tasks", 0): 6})
    assert partition.add_task(replace(task, account_id="other"), {})
    end = TaskEnd("done", 2, b"{}", "kept", None, None)
    assert not partition.change_tasks(end_task, "other", "t1", end)
    partition.close()
    partition = open_partition(tmp_path)
    assert partition.unfinished_tasks() == [task]
    with partition.view() as view:
        rows = view.query("SELECT account_id, task_id, status, barrier FROM tasks ORDER BY account_id")
        assert list(rows) == [("acme", "t1", "pending", 10), ("other", "t1", "done", 10)]
    assert partition.stored_offset("tasks", 0) == 6
    assert partition.stored_offset("tasks", 1) is None
    partition.close()


def test_a_state_directory_serves_one_process(tmp_path):
    with (
        DirectoryLock(tmp_path / "new"),
        pytest.raises(StateLocked, match=f"in use by process {os.getpid()}"),
    ):
        DirectoryLock(tmp_path / "new")
    DirectoryLock(tmp_path / "new").release()


def test_a_directory_that_cannot_be_made_is_a_configuration_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"state.directory .*Not a directory"):
        DirectoryLock(tmp_path / "file" / "state")


def test_the_state_is_readable_by_its_owner_only(filled):
    assert (filled / DATABASE).stat().st_mode & 0o777 == 0o600

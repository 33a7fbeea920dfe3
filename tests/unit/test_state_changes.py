"""Updates, deletes, retention and the upgrade of a partition's database."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stream_cluster.errors import ConfigError, StateFormatError
from stream_cluster.graph.forest import maximum_spanning_forest
from stream_cluster.messages import Metadata, ObjectMessage
from stream_cluster.model import Links
from stream_cluster.state import removal
from stream_cluster.state.chunks import read_codes, write_codes, write_links
from stream_cluster.state.schema import APPLICATION_ID
from stream_cluster.state.view import PartitionView
from tests.support.partitions import (
    IDENTITY,
    T0_US,
    clusters_of,
    deletion,
    directory,
    manifest_of,
    message,
    open_partition,
    records,
    snapshot,
    vectors,
)
from tests.support.reference import exact_clusters

DATABASE = "partition-0.sqlite"
OLD_TABLES = Path(__file__).parent.parent / "support" / "state_v1.sql"


def objects(count=30, **options):
    return [message(number, vector, **options) for number, vector in enumerate(vectors(count))]


def update(object_id, fields, account="acme", **metadata):
    return ObjectMessage(
        account_id=account,
        object_type="event",
        action="update",
        object_ids=(object_id,),
        metadata=Metadata(**metadata),
        descriptors=(),
        updated_fields=frozenset(fields),
    )


def apply(partition, *messages):
    return partition.apply(records(messages, first_offset=partition.next_offset))


def stored(partition, object_id, columns):
    with partition.view() as view:
        sql = f"SELECT {columns} FROM objects WHERE object_id = ?"
        return list(view.query(sql, [object_id]))


def test_an_update_changes_the_named_fields_only_and_null_clears(tmp_path):
    partition = open_partition(tmp_path)
    apply(partition, message(0, vectors(1)[0], source="cam", track_id="t1", tags=("a",)))
    change = update("acme-00000", {"source", "tags", "age"}, tags=("b", "c"), age=30)
    outcome = apply(partition, change)
    assert (outcome.updated, outcome.unknown, outcome.accepted) == (1, 0, 0)
    expected = [(None, "t1", '["b","c"]', 30, T0_US)]
    assert stored(partition, "acme-00000", "source, track_id, tags, age, create_time_us") == expected
    apply(partition, change)
    assert stored(partition, "acme-00000", "source, track_id, tags, age, create_time_us") == expected
    partition.close()


def test_an_update_reaches_every_space_of_its_object(tmp_path):
    partition = open_partition(tmp_path)
    vector = vectors(1)[0]
    apply(
        partition, message(0, vector), message(0, vector, kind="body"), message(0, vector, object_type="face")
    )
    apply(partition, update("acme-00000", {"age"}, age=40))
    with partition.view() as view:
        rows = view.query("SELECT object_type, age FROM objects JOIN spaces USING (space_id) ORDER BY 1, 2")
        assert list(rows) == [("event", 40), ("event", 40), ("face", None)]
    partition.close()


def test_changes_of_objects_that_are_not_there_are_counted_and_do_nothing(tmp_path):
    partition = open_partition(tmp_path)
    apply(partition, *objects(3))
    changes = [update("gone", {"age"}, age=1), deletion("gone"), deletion("x", account="made-up")]
    outcome = apply(partition, *changes)
    assert (outcome.unknown, dict(outcome.rejected)) == (3, {})
    with partition.view() as view:
        assert view.counters("acme") == {("accepted", ""): 3, ("unknown_object", ""): 2}
        assert view.counters("made-up") == {}
        assert view.counters("") == {("unknown_object", ""): 1}
    partition.close()


def test_counts_of_a_batch_with_changes_reconcile_in_the_manifest(tmp_path):
    partition = open_partition(tmp_path)
    all_objects = objects(20)
    apply(
        partition, *all_objects, all_objects[3], deletion("acme-00003", "acme-00004", "gone"), all_objects[4]
    )
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    counts = manifest_of(archive)["counts"]
    assert (counts["duplicates"], counts["deleted"], counts["objects"]) == (1, 2, 19)
    assert counts["objects_received"] == 22
    left = [one for one in all_objects if one.object_id != "acme-00003"]
    assert clusters_of(archive) == exact_clusters(left, 0.6)
    partition.close()


def test_everything_of_an_account_goes_and_nothing_of_another(tmp_path):
    partition = open_partition(tmp_path)
    faces = objects(10, object_type="face")
    apply(partition, *objects(10), *faces, *objects(10, account="other"))
    outcome = apply(partition, deletion(everything=("event",)))
    assert (outcome.deleted, outcome.objects_deleted["face"], outcome.cause) == (1, 10, "request")
    with partition.view() as view:
        assert [(space.key[:2], space.objects) for space in view.spaces()] == [
            (("acme", "event"), 0),
            (("acme", "face"), 10),
            (("other", "event"), 10),
        ]
    apply(partition, deletion(everything=("event", "face")), objects(1)[0])
    with partition.view() as view:
        assert [space.objects for space in view.spaces("acme")] == [1, 0]
        assert len(view.links(view.spaces("acme")[0].space_id, -2)) == 0
    partition.close()


@pytest.mark.parametrize("count", [40, 3000])
def test_no_byte_of_a_deleted_object_is_left_in_the_files_once_the_log_is_emptied(tmp_path, count):
    made = np.random.default_rng(5).integers(-127, 128, (count, 64)).astype(np.int8)
    messages = [
        message(number, vector, source=f"camera-of-{number:05}", external_id=f"person-{number:05}")
        for number, vector in enumerate(made)
    ]
    partition = open_partition(tmp_path)
    for begin in range(0, count, 500):
        apply(partition, *messages[begin : begin + 500])
    gone = list(range(1, count, 3))
    apply(partition, update(f"acme-{gone[0]:05}", {"source"}, source="camera-of-nobody"))
    assert not partition.erased_in_wal
    apply(partition, deletion(*(f"acme-{number:05}" for number in gone)))
    assert partition.erased_in_wal
    view = partition.view()
    assert not partition.empty_wal()  # a view from before it is open
    view.close()
    assert partition.vacuum_due_us(1000) == 1000
    partition.vacuum(5_000_000)
    assert partition.vacuum_due_us(1000) is None
    assert partition.empty_wal()
    assert not partition.erased_in_wal
    assert (tmp_path / f"{DATABASE}-wal").stat().st_size == 0
    data = (tmp_path / DATABASE).read_bytes()
    for number in range(count):
        marks = (f"acme-{number:05}", f"camera-of-{number:05}", f"person-{number:05}")
        found = [mark.encode() in data for mark in marks]
        # A code may lie across pages: look for a part of it.
        found += [made[number, :16].tobytes() in data or made[number, -16:].tobytes() in data]
        if number == gone[0]:
            assert found == [False] * 4
        else:
            assert found == [number not in gone] * 4, (number, found)
    apply(partition, deletion("acme-00000"))
    assert partition.vacuum_due_us(1000) == 5_001_000
    partition.close()


def test_a_chunk_whose_objects_are_all_deleted_gives_up_its_bytes(tmp_path):
    partition = open_partition(tmp_path)
    apply(partition, *objects(10))
    apply(partition, message(50, np.ones(8, np.float32)))
    apply(partition, deletion(*(f"acme-{number:05}" for number in range(10))))
    with partition.view() as view:
        assert list(view.query("SELECT rows, length(data), crc32 = 0 FROM codes")) == [(10, 0, 1), (1, 8, 0)]
    partition.close()
    partition = open_partition(tmp_path)
    apply(partition, message(51, np.ones(8, np.float32)))
    (space,) = partition.spaces()
    assert space.matcher.store.is_removed(np.arange(12)).tolist() == [True] * 10 + [False] * 2
    partition.close()


def test_removed_rows_are_found_by_nobody_after_a_restart_whatever_the_floor(tmp_path):
    partition = open_partition(tmp_path, floor=-0.9)
    apply(partition, *objects(10), deletion("acme-00004"))
    partition.close()
    partition = open_partition(tmp_path, floor=-0.9)
    apply(partition, message(20, vectors(1)[0]))
    with partition.view() as view:
        links = view.links(1, -2)
        assert 4 not in links.a.tolist() + links.b.tolist()
    partition.close()


def test_a_raised_floor_hides_weaker_links_from_the_repair(tmp_path):
    """0-1-2-3 in a chain through 1 and 2, and a link between the ends below the new floor."""
    partition = open_partition(tmp_path, floor=0.1)
    # Angles in degrees; 0 and 70 are joined by 35, and weakly by 140 on the way round.
    angles = {0: 0, 1: 25, 2: 50, 3: 75}
    messages = [
        message(number, np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))], np.float32))
        for number, angle in angles.items()
    ]
    apply(partition, *messages)
    partition.close()
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        # As if an earlier batch had left a weak link beside the forest.
        weak = Links(np.array([0], np.uint32), np.array([3], np.uint32), np.array([0.2], np.float32))
        write_links(connection, 1, weak, merged=False)
    partition = open_partition(tmp_path, floor=0.6)
    apply(partition, deletion("acme-00001"))
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.61)
    assert clusters_of(archive) == exact_clusters([messages[0], messages[2], messages[3]], 0.61)
    partition.close()


def test_small_components_are_compared_together_and_large_ones_alone():
    component = np.repeat([0, 3, 4, 9], [600, 400, 100, 5000])
    assert list(removal._bundles(component)) == [slice(0, 1000), slice(1000, 1100), slice(1100, 6100)]
    assert list(removal._bundles(component[:5])) == [slice(0, 5)]


_KILLED = """
import os, sys
from stream_cluster.state import partition as module, store
from tests.support.partitions import open_partition
from tests.support.partitions import deletion
from tests.unit.test_state_changes import apply, objects

partition = open_partition(sys.argv[1], synchronous="full")
apply(partition, *objects()[:20])
if sys.argv[2] == "during":
    store.replace_links = lambda *_, **__: os._exit(9)
else:
    module.Partition._remember = lambda *_, **__: os._exit(9)
apply(partition, *objects()[20:], deletion(*(f"acme-{n:05}" for n in range(0, 30, 2))), objects()[4])
"""


@pytest.mark.parametrize(("moment", "next_offset"), [("during", 20), ("after", 32)])
def test_a_process_that_dies_around_a_batch_with_deletes_leaves_all_of_it_or_nothing(
    tmp_path, moment, next_offset
):
    died = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path), moment], check=False)
    assert died.returncode == 9
    partition = open_partition(tmp_path)
    assert partition.next_offset == next_offset
    log = [*objects(), deletion(*(f"acme-{n:05}" for n in range(0, 30, 2))), objects()[4]]
    partition.apply(records(log))  # all of it again, as Kafka would deliver it
    left = [one for number, one in enumerate(objects()) if number % 2 or number == 4]
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.5)
    assert clusters_of(archive) == exact_clusters(left, 0.5)
    with partition.view() as view:
        forest = maximum_spanning_forest(view.links(1, 0.45))
    with directory() as folder:
        fresh = open_partition(folder)
        apply(fresh, *[one for one in left if one.object_id != "acme-00004"], objects()[4])
        with fresh.view() as view:
            expected = maximum_spanning_forest(view.links(1, 0.45))
        fresh.close()
    assert forest.similarity.tolist() == expected.similarity.tolist()
    partition.close()


# -- retention -----------------------------------------------------------------------------------------


def sweep_round(partition, now_us, max_objects):
    """Whole round; the number of objects that each slice deleted."""
    sizes = []
    begin = True
    while begin or partition.is_sweeping:
        batch = partition.prepare_sweep(now_us, max_objects, begin=begin)
        outcome = partition.commit(batch)
        assert outcome.cause == "retention"
        sizes.append(sum(outcome.objects_deleted.values()))
        begin = False
    return sizes


def test_a_sweep_deletes_what_is_past_the_age_of_its_type_in_bounded_slices(tmp_path):
    partition = open_partition(tmp_path, retention_us={"face": 10_000_000})
    bodies = objects(kind="body")
    undated = message(40, vectors(1)[0], create_time_us=None)
    apply(partition, *objects(), *bodies, undated)
    before = partition.next_offset
    # Object n is dated n seconds after T0; at T0 + 22 s those before 12 s are older than 10 s.
    assert sweep_round(partition, T0_US + 22_000_000, 5) == [5, 5, 2]
    assert partition.next_offset == before
    left = [*objects()[12:], undated]
    archive, _ = snapshot(partition, tmp_path / "face.zip", threshold=0.5)
    assert clusters_of(archive) == exact_clusters(left, 0.5)
    archive, _ = snapshot(partition, tmp_path / "body.zip", threshold=0.5, descriptor_type="body")
    assert clusters_of(archive) == exact_clusters(bodies, 0.5)
    assert sweep_round(partition, T0_US + 22_000_000, 5) == [0]
    partition.close()


def test_without_retention_a_sweep_finds_nothing(tmp_path):
    partition = open_partition(tmp_path)
    apply(partition, *objects())
    assert sweep_round(partition, T0_US * 2, 100) == [0]
    partition.close()


# -- upgrade -------------------------------------------------------------------------------------------


def make_version_1(path, messages):
    """A database as that release wrote it: the same but for the tables, and with unsigned checksums."""
    with directory() as folder:
        partition = open_partition(folder)
        apply(partition, *messages)
        partition.close()
        with sqlite3.connect(folder / DATABASE) as source, sqlite3.connect(path) as connection:
            connection.executescript(OLD_TABLES.read_text())
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("PRAGMA user_version = 1")
            for (table,) in list(connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")):
                if table.startswith("sqlite_"):
                    continue
                columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
                names = ", ".join(columns)
                for row in source.execute(f"SELECT {names} FROM {table}"):
                    values = dict(zip(columns, row, strict=True))
                    if "crc32" in values:
                        values["crc32"] = zlib.crc32(values["data"])
                    connection.execute(
                        f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(columns))})",
                        list(values.values()),
                    )
    connection.close()


def tables_of(path):
    """Columns of each table, and the statements of the indexes."""
    with sqlite3.connect(path) as connection:
        names = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
            if not name.startswith("sqlite_")
        ]
        columns = {
            name: sorted(row[1:] for row in connection.execute(f"SELECT * FROM pragma_table_info('{name}')"))
            for name in names
        }
        columns = {name: sorted(row[:4] for row in rows) for name, rows in columns.items()}
        indexes = {
            sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE type = 'index'") if sql
        }
    return columns, indexes


def test_a_file_of_version_1_is_upgraded_and_goes_on(tmp_path):
    make_version_1(tmp_path / DATABASE, objects()[:20])
    with pytest.raises(StateFormatError, match=r"state format 1, .* start the service with it once"):
        PartitionView(tmp_path / DATABASE)
    partition = open_partition(tmp_path)
    assert partition.next_offset == 20
    apply(partition, *objects()[20:], deletion("acme-00002"))
    left = [one for one in objects() if one.object_id != "acme-00002"]
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.5)
    assert clusters_of(archive) == exact_clusters(left, 0.5)
    partition.close()


def test_an_upgraded_file_has_the_tables_of_a_new_one(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    make_version_1(tmp_path / "old" / DATABASE, objects(3))
    for folder in ("old", "new"):
        open_partition(tmp_path / folder).close()
    assert tables_of(tmp_path / "old" / DATABASE) == tables_of(tmp_path / "new" / DATABASE)


def test_a_file_of_version_1_of_another_topic_is_refused_as_it_is(tmp_path):
    make_version_1(tmp_path / DATABASE, objects(3))
    with pytest.raises(ConfigError, match="written for topic = 'events'"):
        open_partition(tmp_path, identity=replace(IDENTITY, topic="other"))
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)


def test_an_upgrade_that_is_cut_short_leaves_version_1(tmp_path, monkeypatch):
    make_version_1(tmp_path / DATABASE, objects(3))
    script = (
        "ALTER TABLE spaces ADD COLUMN deleted INTEGER NOT NULL DEFAULT 0; ALTER TABLE missing ADD COLUMN x;"
    )
    with monkeypatch.context() as patch:
        patch.setattr("stream_cluster.state.database.UPGRADE_1_TO_2", script)
        with pytest.raises(Exception, match="no such table: missing"):
            open_partition(tmp_path)
    open_partition(tmp_path).close()


def test_a_checksum_keeps_its_size_when_codes_are_erased(tmp_path):
    """Else SQLite would move the whole chunk for every object that is deleted."""
    partition = open_partition(tmp_path)
    random = np.random.default_rng(1)
    codes = random.integers(-127, 128, (1000, 512)).astype(np.int8)
    apply(partition, *(message(number, code) for number, code in enumerate(codes)))
    partition.empty_wal()
    apply(partition, deletion("acme-00500"))
    wal_bytes = (tmp_path / f"{DATABASE}-wal").stat().st_size
    assert wal_bytes < 150_000, "the chunk of 512,000 bytes was written again"
    assert sum(len(block) for _, block in read_codes(partition._db, 1, 512)) == 1000
    partition.close()


def test_codes_are_written_with_signed_checksums(tmp_path):
    partition = open_partition(tmp_path)
    for row in range(40):
        write_codes(partition._db, 7, row, np.full((1, 4), row + 1, np.int8))
    found = [crc32 for (crc32,) in partition._db.execute("SELECT crc32 FROM codes")]
    assert min(found) < 0 < max(found)
    assert all(-(2**31) <= crc32 < 2**31 for crc32 in found)
    partition.close()

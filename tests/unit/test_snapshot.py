"""Snapshots: selection, numbering, the archive's bytes, and how they end."""

from __future__ import annotations

import hashlib
import json
import zipfile

import numpy as np
import pytest

from stream_cluster.config import Settings
from stream_cluster.errors import Cancelled, ResultsUnavailable, TaskError
from stream_cluster.messages import Content, Filters, Report, TaskRequest
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.snapshot.clusters import number_clusters
from stream_cluster.snapshot.paths import archive_path, safe_name
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import run_snapshot
from stream_cluster.snapshot.selection import PackedStrings
from tests.support.partitions import (
    NOW_US,
    clusters_of,
    manifest_of,
    message,
    partition_of,
    records,
    rows_of,
    snapshot,
    vectors,
)

AXES = np.eye(8, dtype=np.float32)


def request(**content):
    content.setdefault("objects_type", "events")
    task = TaskRequest(task_id="t", account_id="acme", content=Content(**content))
    return resolve_request(task, Settings(), NOW_US)


def test_clusters_are_numbered_by_size_then_by_their_oldest_member():
    clusters = number_clusters(np.array([4, 0, 2, 2, 4, 1, 2, 3], np.int32))
    assert clusters.sizes.tolist() == [3, 2, 1, 1, 1]
    assert clusters.numbers.tolist() == [1, 2, 0, 0, 1, 3, 0, 4]
    assert [clusters.members(number).tolist() for number in range(5)] == [[2, 3, 6], [0, 4], [1], [5], [7]]


def test_objects_of_one_age_are_ordered_by_id_and_those_of_unknown_age_come_last(tmp_path):
    messages = [
        message(3, AXES[0], create_time_us=None),
        message(2, AXES[1], create_time_us=NOW_US - 5),
        message(1, AXES[2], create_time_us=NOW_US - 5),
        message(0, AXES[3], create_time_us=NOW_US - 9),
    ]
    partition = partition_of(tmp_path, messages)
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    assert [row[1] for row in rows_of(archive)[1:]] == [
        "acme-00000",
        "acme-00001",
        "acme-00002",
        "acme-00003",
    ]
    partition.close()


def test_a_cluster_keeps_its_id_while_newer_objects_join_it_and_numbers_change(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0]), message(1, AXES[1]), message(2, AXES[1])])

    def ids_by_number(name):
        archive, _ = snapshot(partition, tmp_path / name, threshold=0.6)
        with zipfile.ZipFile(archive) as zipped:
            return [json.loads(line)["id"] for line in zipped.read("clusters.jsonl").splitlines()]

    assert ids_by_number("a.zip") == ["acme-00001", "acme-00000"]
    newer = [message(number, AXES[0]) for number in (3, 4)]
    partition.apply(records(newer, first_offset=partition.next_offset))
    assert ids_by_number("b.zip") == ["acme-00000", "acme-00001"]
    partition.close()


def test_the_archive_has_its_three_files_and_counts_that_reconcile(tmp_path):
    messages = [message(number, vector) for number, vector in enumerate(vectors(30))]
    partition = partition_of(tmp_path, [*messages, messages[0]])
    archive, result = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    with zipfile.ZipFile(archive) as zipped:
        assert zipped.namelist() == ["clusters.jsonl", "report.csv", "report.html", "manifest.json"]
        assert zipped.testzip() is None
        lines = [json.loads(line) for line in zipped.read("clusters.jsonl").splitlines()]
    counts = manifest_of(archive)["counts"]
    assert counts["objects_received"] == 31 == counts["objects"] + counts["duplicates"]
    assert counts["objects"] == counts["selected"] + counts["filtered_out"]
    assert counts["filtered_out"] == sum(counts["removed_by_filter"].values())
    assert sum(line["size"] for line in lines) == counts["selected"] == result.objects
    assert sum(line["size"] == 1 for line in lines) == counts["singletons"]
    assert lines[0]["size"] == counts["largest_cluster"] == result.largest_cluster
    assert all(line["id"] == line["objects"][0] for line in lines)
    assert result.archive.sha256 == hashlib.sha256(archive.read_bytes()).hexdigest()
    assert result.archive.size_bytes == archive.stat().st_size
    assert archive.stat().st_mode & 0o777 == 0o640
    partition.close()


def test_the_same_snapshot_and_request_give_the_same_bytes(tmp_path):
    partition = partition_of(tmp_path, [message(n, vector) for n, vector in enumerate(vectors(30))])
    first, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    second, _ = snapshot(partition, tmp_path / "b.zip", threshold=0.6)
    assert first.read_bytes() == second.read_bytes()
    partition.close()


def test_the_description_of_a_task_stands_in_the_manifest(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0])])
    task = TaskRequest(
        task_id="t", account_id="acme", content=Content(objects_type="events"), description="gate 4, April"
    )
    with partition.view() as view:
        run_snapshot(
            view,
            resolve_request(task, Settings(), NOW_US),
            tmp_path / "a.zip",
            interrupt=Interrupt(),
            progress=no_progress,
            as_of=None,
        )
    assert manifest_of(tmp_path / "a.zip")["description"] == "gate 4, April"
    partition.close()


def test_face_records_have_their_own_id_column_and_never_meet_events(tmp_path):
    face = message(0, AXES[0], object_type="face", list_ids=("l1",))
    event = message(1, AXES[0])
    partition = partition_of(tmp_path, [face, event])
    archive, _ = snapshot(
        partition, tmp_path / "a.zip", objects_type="faces", threshold=0.6, report=Report(columns=["lists"])
    )
    assert rows_of(archive) == [["cluster", "face_id", "lists"], ["0", "acme-00000", '["l1"]']]
    partition.close()


def test_the_newest_version_is_taken_unless_the_task_names_one(tmp_path):
    messages = [
        message(0, AXES[0], version=2),
        message(1, AXES[0], version=10),
        message(2, AXES[0], version=9),
    ]
    partition = partition_of(tmp_path, messages)
    newest, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    assert clusters_of(newest) == {frozenset({"acme-00001"})}
    named, _ = snapshot(partition, tmp_path / "b.zip", threshold=0.6, descriptor_version=2)
    assert clusters_of(named) == {frozenset({"acme-00000"})}
    partition.close()


def test_objects_dated_after_the_task_are_left_out_and_counted(tmp_path):
    late = message(1, AXES[0], create_time_us=NOW_US)
    partition = partition_of(tmp_path, [message(0, AXES[0]), late])
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    assert clusters_of(archive) == {frozenset({"acme-00000"})}
    assert manifest_of(archive)["counts"]["dated_after_the_task"] == 1
    named, _ = snapshot(
        partition, tmp_path / "b.zip", threshold=0.6, filters=Filters(create_time__lt="2100-01-01T00:00:00Z")
    )
    assert clusters_of(named) == {frozenset({"acme-00000", "acme-00001"})}
    partition.close()


def test_null_in_a_filter_selects_objects_that_lack_the_field(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0], source="cam1"), message(1, AXES[1])])
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6, filters=Filters(sources=None))
    assert clusters_of(archive) == {frozenset({"acme-00001"})}
    partition.close()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"descriptor_type": "body"}, "no event with a body descriptor"),
        ({"descriptor_version": 7}, "no event with a face descriptor version 7"),
        (
            {"filters": Filters(sources=["nowhere"])},
            "select none of 1 objects of this descriptor type: sources excludes the last 1",
        ),
    ],
)
def test_an_empty_selection_is_an_error_of_its_own(tmp_path, content, says):
    partition = partition_of(tmp_path, [message(0, AXES[0])])
    with pytest.raises(TaskError, match=says) as caught:
        snapshot(partition, tmp_path / "a.zip", **content)
    assert caught.value.code == "empty_selection"
    assert not (tmp_path / "a.zip").exists()
    partition.close()


def test_an_unknown_column_is_answered_with_those_that_exist():
    with pytest.raises(TaskError, match="no column 'shoe_size' of events; there are age, area, "):
        request(report=Report(columns=["shoe_size"]))


def test_the_default_threshold_comes_from_the_settings(tmp_path):
    _, result = snapshot(partition_of(tmp_path, [message(0, AXES[0])]), tmp_path / "a.zip")
    assert result.threshold == Settings().similarity.face.default_threshold


@pytest.mark.parametrize("stage", ["select", "match", "clusters"])
def test_a_cancelled_snapshot_ends_at_the_next_step_and_leaves_no_file(tmp_path, stage):
    partition = partition_of(tmp_path, [message(n, vector) for n, vector in enumerate(vectors(30))])
    interrupt = Interrupt()

    def cancel_at(name, _share):
        if name == stage:
            interrupt.cancel()

    with partition.view() as view, pytest.raises(Cancelled):
        run_snapshot(
            view,
            request(threshold=0.1),
            tmp_path / "out" / "a.zip",
            interrupt=interrupt,
            progress=cancel_at,
            as_of=None,
        )
    assert list(tmp_path.glob("out/*")) == []
    partition.close()


def test_a_passed_deadline_is_an_error_of_its_own(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0])])
    with partition.view() as view, pytest.raises(TaskError) as caught:
        run_snapshot(
            view,
            request(threshold=0.1),
            tmp_path / "a.zip",
            interrupt=Interrupt(deadline_s=-1),
            progress=no_progress,
            as_of=None,
        )
    assert caught.value.code == "deadline_exceeded"
    partition.close()


def test_an_archive_that_cannot_be_written_names_its_path(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0])])
    (tmp_path / "file").touch()
    with pytest.raises(ResultsUnavailable, match=r"archive .*file/a\.zip: "):
        snapshot(partition, tmp_path / "file" / "a.zip", threshold=0.6)
    partition.close()


def test_progress_never_goes_back_and_ends_at_one(tmp_path):
    partition = partition_of(tmp_path, [message(n, vector) for n, vector in enumerate(vectors(30))])
    seen = []
    with partition.view() as view:
        run_snapshot(
            view,
            request(threshold=0.1),
            tmp_path / "a.zip",
            interrupt=Interrupt(),
            progress=lambda stage, share: seen.append((stage, share)),
            as_of=None,
        )
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert list(dict.fromkeys(stage for stage, _ in seen)) == [
        "select",
        "match",
        "clusters",
        "report",
        "page",
    ]
    partition.close()


@pytest.mark.parametrize("identifier", [".", "..", "a" * 128, "é" * 128, "ü" * 100 + "x", "con:aux", "%2E"])
def test_ids_become_names_that_stay_in_their_folder_and_differ(tmp_path, identifier):
    name = safe_name(identifier)
    assert len(name.encode()) <= 200
    assert name not in {".", ".."}
    assert "/" not in name
    (tmp_path / f"{name}.zip").touch()
    assert name != safe_name(identifier[:-1] + "!")


def test_two_accounts_with_one_task_id_have_two_archives(tmp_path):
    assert archive_path(tmp_path, "a", "t") != archive_path(tmp_path, "b", "t")


def test_packed_strings_give_back_what_was_put_in():
    strings = ["", "a", "é" * 5, "", "zz"]
    packed = PackedStrings(strings)
    assert list(packed) == strings
    assert (len(packed), packed[2]) == (5, "é" * 5)

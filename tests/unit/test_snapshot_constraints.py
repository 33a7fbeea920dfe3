"""`min_quality` and `cannot_link` as a task sees them: marks, counts, columns, tracks, ties."""

from __future__ import annotations

import json
import sqlite3
import zipfile

import numpy as np
import pytest

from stream_cluster.messages import Filters, Report
from stream_cluster.state.database import database_path
from tests.support.partitions import (
    clusters_of,
    manifest_of,
    message,
    open_partition,
    partition_of,
    rows_of,
    snapshot,
)

LINKAGES = ["components", "average"]


def direction(degrees):
    """A unit vector in a plane."""
    angle = np.radians(degrees)
    return np.array([np.cos(angle), np.sin(angle)] + [0.0] * 6, np.float32)


def named(*groups):
    return {frozenset(f"acme-{number:05}" for number in group) for group in groups}


def lines_of(archive):
    with zipfile.ZipFile(archive) as zipped:
        return [json.loads(line) for line in zipped.read("clusters.jsonl").splitlines()]


@pytest.fixture
def run(tmp_path):
    """Runs a task on a new partition that holds these messages."""
    held = []

    def start(messages, **content):
        folder = tmp_path / str(len(held))
        folder.mkdir()
        held.append(partition_of(folder, messages))
        archive, _ = snapshot(held[-1], folder / "a.zip", threshold=0.6, **content)
        return archive

    yield start
    for partition in held:
        partition.close()


@pytest.mark.parametrize("linkage", LINKAGES)
def test_an_object_of_low_quality_bridges_nothing_and_goes_to_the_most_similar_group(run, linkage):
    # 40 degrees are a link, 80 are none: the one in the middle would join both sides.
    bridge = [
        message(0, direction(0), quality=0.9),
        message(1, direction(40), quality=0.1),
        message(2, direction(78)),
    ]
    archive = run(bridge, linkage=linkage, min_quality=0.5, report=Report(columns=["low_quality"]))
    assert clusters_of(archive) == named({0}, {1, 2})
    counts = manifest_of(archive)["counts"]
    assert counts["low_quality"] == {"objects": 1, "attached": 1, "unattached": 0}
    assert (counts["selected"], counts["clusters"], counts["largest_cluster"]) == (3, 2, 2)
    assert manifest_of(archive)["parameters"]["min_quality"] == 0.5
    assert manifest_of(archive)["method"] == "rematch"
    assert [line.get("low_quality") for line in lines_of(archive)] == [["acme-00001"], None]
    assert rows_of(archive) == [
        ["cluster", "event_id", "low_quality"],
        *(["0", "acme-00001", "1"], ["0", "acme-00002", "0"], ["1", "acme-00000", "0"]),
    ]
    if linkage == "average":
        assert counts["components"] == {"clusters": 2, "largest_cluster": 2}


@pytest.mark.parametrize("linkage", LINKAGES)
def test_objects_of_low_quality_form_no_group_together(run, linkage):
    messages = [message(n, direction(n), quality=0.1) for n in range(3)]
    archive = run(messages, linkage=linkage, min_quality=0.5)
    assert clusters_of(archive) == named({0}, {1}, {2})
    assert manifest_of(archive)["counts"]["low_quality"] == {"objects": 3, "attached": 0, "unattached": 3}
    assert [line["low_quality"] for line in lines_of(archive)] == [[line["id"]] for line in lines_of(archive)]


@pytest.mark.parametrize("linkage", LINKAGES)
def test_the_bound_itself_passes_and_so_does_an_object_without_a_quality(run, linkage):
    messages = [message(0, direction(0), quality=0.5), message(1, direction(10))]
    archive = run(messages, linkage=linkage, min_quality=0.5)
    assert clusters_of(archive) == named({0, 1})
    assert manifest_of(archive)["counts"]["low_quality"]["objects"] == 0
    assert manifest_of(archive)["method"] == "forest"
    assert all("low_quality" not in line for line in lines_of(archive))


def test_without_a_bound_nothing_is_marked_and_the_column_is_empty(run):
    messages = [message(0, direction(0), quality=0.1)]
    archive = run(messages, report=Report(columns=["low_quality"]))
    assert rows_of(archive)[1] == ["0", "acme-00000", ""]
    assert "low_quality" not in manifest_of(archive)["counts"]


@pytest.mark.parametrize("linkage", LINKAGES)
def test_an_object_of_low_quality_follows_its_track_and_a_track_of_such_objects_goes_as_one(run, linkage):
    messages = [
        message(0, direction(0), track_id="a"),
        message(1, direction(170), track_id="a", quality=0.1),  # like nobody of its track
        message(2, direction(180)),
        message(3, direction(300), track_id="b", quality=0.1),
        message(4, direction(330), track_id="b", quality=0.1),  # near object 0
    ]
    archive = run(messages, linkage=linkage, min_quality=0.5, use_track_info=True)
    assert clusters_of(archive) == named({0, 1, 3, 4}, {2})
    apart = run(messages, linkage=linkage, min_quality=0.5)
    assert clusters_of(apart) == named({0, 4}, {1, 2}, {3})


def in_frame(number, degrees, frame, **metadata):
    return message(number, direction(degrees), source="cam1", frame_id=frame, **metadata)


def constrained(run, messages, **content):
    return run(messages, linkage="average", cannot_link="same_frame", **content)


def test_two_objects_of_one_frame_stay_apart_and_what_was_prevented_is_counted(run):
    messages = [in_frame(0, 0, "f1"), in_frame(1, 5, "f1"), in_frame(2, 6, "f2"), in_frame(3, 90, "f2")]
    assert clusters_of(run(messages, linkage="average")) == named({0, 1, 2}, {3})
    archive = constrained(run, messages, report=Report(columns=["frame_id"]))
    assert clusters_of(archive) == named({0}, {1, 2}, {3})
    counts = manifest_of(archive)["counts"]
    # Objects 0 and 1 are alike and may not meet; 2 and 3 would stay apart anyway.
    assert counts["cannot_link"] == {"objects": 4, "frames": 2, "merges_prevented": 1}
    assert manifest_of(archive)["parameters"]["cannot_link"] == "same_frame"
    assert manifest_of(archive)["method"] == "forest"
    assert [row[2] for row in rows_of(archive)] == ["frame_id", "f1", "f2", "f1", "f2"]
    # What components would have merged is said as ever.
    assert counts["components"] == {"clusters": 2, "largest_cluster": 3}


@pytest.mark.parametrize(
    ("name", "first", "second", "together"),
    [
        ("one track is one person", {"track_id": "t"}, {"track_id": "t"}, True),
        ("different tracks are two", {"track_id": "t"}, {"track_id": "u"}, False),
        ("an object without a track is a person of its own", {"track_id": "t"}, {}, False),
        ("frames of two sources have nothing to do with each other", {"source": "cam2"}, {}, True),
        ("another frame is another moment", {"frame_id": "f2"}, {}, True),
        ("a frame of an unknown source says nothing", {"source": None}, {"source": None}, True),
    ],
)
def test_who_is_kept_apart(run, name, first, second, together):
    base = {"source": "cam1", "frame_id": "f1"}
    messages = [
        message(number, direction(number), **{**base, **more}) for number, more in enumerate((first, second))
    ]
    expected = named({0, 1}) if together else named({0}, {1})
    assert clusters_of(constrained(run, messages)) == expected, name


def test_of_equally_similar_groups_the_oldest_that_may_merge_do(run):
    messages = [in_frame(0, 0, "f1"), in_frame(1, 0, "f1"), in_frame(2, 0, "f2"), in_frame(3, 0, "f3")]
    archive = constrained(run, messages)
    assert clusters_of(archive) == named({0, 2, 3}, {1})
    assert manifest_of(archive)["counts"]["cannot_link"]["merges_prevented"] == 1


def test_members_of_a_track_are_together_and_keep_others_of_all_their_frames_away(run):
    messages = [
        in_frame(0, 0, "f1", track_id="t"),
        in_frame(1, 90, "f2", track_id="t"),
        in_frame(2, 45, "f2"),
    ]
    assert clusters_of(run(messages, linkage="average", use_track_info=True)) == named({0, 1, 2})
    archive = constrained(run, messages, use_track_info=True)
    assert clusters_of(archive) == named({0, 1}, {2})
    assert manifest_of(archive)["counts"]["cannot_link"]["merges_prevented"] == 1


def test_low_quality_is_attached_the_most_similar_first_and_never_beside_its_own_frame(run):
    messages = [
        in_frame(0, 0, "f1"),
        in_frame(1, 30, "f2", quality=0.1),
        in_frame(2, 10, "f2", quality=0.1),
        in_frame(3, 1, "f1", quality=0.1),
        in_frame(4, 60, "f9"),
    ]
    archive = constrained(run, messages, min_quality=0.5)
    # 2 is closer to 0 than 1 is, which goes to its second choice; 3 shares the frame of the only one near it.
    assert clusters_of(archive) == named({0, 2}, {1, 4}, {3})
    assert manifest_of(archive)["counts"]["low_quality"] == {"objects": 3, "attached": 2, "unattached": 1}


def test_constraints_hold_among_the_selected_objects_only(run):
    messages = [in_frame(0, 0, "f1", tags=("x",)), in_frame(1, 5, "f1")]
    archive = constrained(run, messages, filters=Filters(tags=["x"]))
    assert manifest_of(archive)["counts"]["cannot_link"] == {"objects": 0, "frames": 0, "merges_prevented": 0}


def test_a_database_without_the_column_gets_it_and_keeps_its_objects(tmp_path):
    partition_of(tmp_path, [message(0, direction(0))]).close()
    with sqlite3.connect(database_path(tmp_path, 0)) as connection:
        connection.execute("ALTER TABLE objects DROP COLUMN frame_id")
    connection.close()
    partition = open_partition(tmp_path)
    archive, _ = snapshot(partition, tmp_path / "a.zip", report=Report(columns=["frame_id"]))
    assert rows_of(archive)[1] == ["0", "acme-00000", ""]
    partition.close()

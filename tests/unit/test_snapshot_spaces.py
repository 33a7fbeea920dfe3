"""Which space a task is about: faces and events, faces and bodies, attributes, versions."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from stream_cluster.config import load_settings
from stream_cluster.errors import TaskError
from stream_cluster.messages import Content, Descriptor, Filters, Report, TaskRequest
from stream_cluster.snapshot.request import find_space, resolve_request
from tests.support.partitions import (
    NOW_US,
    chosen,
    clusters_of,
    deletion,
    manifest_of,
    message,
    partition_of,
    records,
    rows_of,
    snapshot,
)

AXES = np.eye(8, dtype=np.float32)


def both(number, *, attributes=("face-a", "body-a")):
    """An event with a face and a body that point in different directions."""
    made = message(number, AXES[0])
    descriptors = (
        Descriptor("face", 62, AXES[0], attributes[0]),
        Descriptor("body", 110, AXES[number], attributes[1]),
    )
    return msgspec.structs.replace(made, descriptors=descriptors)


def test_an_event_with_a_face_and_a_body_is_in_both_spaces(tmp_path):
    partition = partition_of(tmp_path, [both(1), both(2)])
    faces, _ = snapshot(partition, tmp_path / "f.zip", threshold=0.6)
    bodies, _ = snapshot(partition, tmp_path / "b.zip", threshold=0.6, descriptor_type="body")
    assert clusters_of(faces) == {frozenset({"acme-00001", "acme-00002"})}
    assert clusters_of(bodies) == {frozenset({"acme-00001"}), frozenset({"acme-00002"})}
    assert [manifest_of(one)["parameters"]["descriptor_version"] for one in (faces, bodies)] == [62, 110]
    partition.close()


def test_objects_without_the_descriptor_in_question_are_skipped(tmp_path):
    face_only = message(3, AXES[0], version=62)
    body_only = message(4, AXES[4], kind="body", version=110)
    partition = partition_of(tmp_path, [both(1), both(2), face_only, body_only])
    for kind, expected in (
        ("face", {"acme-00001", "acme-00002", "acme-00003"}),
        ("body", {"acme-00001", "acme-00002", "acme-00004"}),
    ):
        archive, result = snapshot(partition, tmp_path / "a.zip", threshold=0.6, descriptor_type=kind)
        assert set().union(*clusters_of(archive)) == expected
        assert manifest_of(archive)["counts"]["objects"] == result.objects == 3
    partition.close()


def test_the_attribute_of_the_descriptor_in_question_is_selected_and_reported(tmp_path):
    partition = partition_of(tmp_path, [both(1), both(2, attributes=("x", None))])
    report = Report(columns=["attribute_id"])
    for kind, wanted, expected in (
        ("face", ["face-a"], [["acme-00001", "face-a"]]),
        ("body", ["body-a"], [["acme-00001", "body-a"]]),
        ("body", None, [["acme-00002", ""]]),
    ):
        archive, _ = snapshot(
            partition,
            tmp_path / "a.zip",
            threshold=0.6,
            descriptor_type=kind,
            filters=Filters(attribute_ids=wanted),
            report=report,
        )
        assert [row[1:] for row in rows_of(archive)[1:]] == expected
    with pytest.raises(TaskError, match="attribute_ids excludes the last 2"):
        snapshot(
            partition, tmp_path / "a.zip", descriptor_type="body", filters=Filters(attribute_ids=["face-a"])
        )
    partition.close()


def test_faces_and_events_of_one_id_are_two_objects(tmp_path):
    event = message(0, AXES[0], face_id="acme-00000", source="cam1")
    face = message(0, AXES[0], object_type="face", list_ids=("l1", "l2"), external_id="x")
    partition = partition_of(tmp_path, [event, face])
    for object_type, filters, count in (
        ("event", Filters(sources=["cam1"], face_ids=["acme-00000"]), 1),
        ("face", Filters(list_id="l2", face_ids=["acme-00000"], external_ids=["x"]), 1),
        ("event", Filters(external_ids=["x"]), 0),
        ("face", Filters(list_id=["l3"]), 0),
        ("face", Filters(face_id__gte="acme-00000", face_id__lt="acme-00001"), 1),
    ):
        found, selection = chosen(partition, filters, object_type=object_type)
        assert (len(found), selection.in_space) == (count, 1)
    partition.close()


@pytest.mark.parametrize(
    ("configured", "asked", "expected"), [(None, None, 10), (2, None, 2), (2, 9, 9), (None, 2, 2)]
)
def test_the_version_is_the_one_asked_for_else_configured_else_the_newest(
    tmp_path, configured, asked, expected
):
    partition = partition_of(
        tmp_path, [message(number, AXES[0], version=version) for number, version in enumerate((2, 10, 9))]
    )
    overrides = {} if configured is None else {"matching.descriptor_version.face": configured}
    content = Content(objects_type="events", descriptor_version=asked)
    task = TaskRequest(task_id="t", account_id="acme", content=content)
    request = resolve_request(task, load_settings(None, {}, overrides), NOW_US)
    with partition.view() as view:
        assert find_space(view, request).key.version == expected
    partition.close()


def test_a_configured_version_without_objects_is_an_empty_selection(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0])])
    task = TaskRequest(task_id="t", account_id="acme", content=Content(objects_type="events"))
    request = resolve_request(task, load_settings(None, {}, {"matching.descriptor_version.face": 62}), NOW_US)
    with partition.view() as view, pytest.raises(TaskError, match="a face descriptor version 62") as caught:
        find_space(view, request)
    assert caught.value.code == "empty_selection"
    partition.close()


def test_a_version_whose_objects_are_all_gone_is_not_the_newest(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0], version=1), message(1, AXES[0], version=2)])
    partition.apply(records([deletion("acme-00001")], first_offset=partition.next_offset))
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    assert manifest_of(archive)["parameters"]["descriptor_version"] == 1
    partition.close()

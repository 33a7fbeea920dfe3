"""report.csv: its columns, their forms, and what a spreadsheet must not take for a formula."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from stream_cluster.messages import CLUSTER_COLUMNS, EVENT_COLUMNS, FACE_COLUMNS, Report, TopMatch
from stream_cluster.snapshot.columns import csv_value
from tests.support.partitions import message, partition_of, rows_of, snapshot

AXES = np.eye(8, dtype=np.float32)


def test_report_columns_come_in_the_order_asked_and_survive_a_csv_reader(tmp_path):
    hostile = 'a "quoted", thing\r\nwith lines'
    messages = [
        message(0, AXES[0], source="=HYPERLINK()", tags=("vip", "x,y"), user_data=hostile, age=30),
        message(1, AXES[1], top_match=None),
    ]
    partition = partition_of(tmp_path, messages)
    columns = ["age", "source", "tags", "user_data", "create_time", "track_id"]
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6, report=Report(columns=columns))
    header, first, second = rows_of(archive)
    assert header == ["cluster", "event_id", *columns]
    assert first == ["0", "acme-00000", "30", "'=HYPERLINK()", '["vip","x,y"]', hostile, first[6], ""]
    assert first[6].endswith("Z")
    assert second[2:6] == ["", "", "", ""]
    partition.close()


# The last four are full-width forms.
FORMULAS = ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20"]
STRIPPED = [
    "",
    " ",
    "  ",
    "\t",
    "\r",
    "\n",
    "\r\n",
    "\v",
    "\0",
    "\u00a0",
    "\u3000",
    "\u2028",
    "\ufeff",
    "\u200b",
]


@pytest.mark.parametrize("start", FORMULAS)
@pytest.mark.parametrize("before", STRIPPED)
def test_a_value_that_starts_like_a_formula_is_made_harmless(before, start):
    assert csv_value(f"{before}{start}cmd") == f"'{before}{start}cmd"


@pytest.mark.parametrize("start", ["\t", "\r", "\n"])
def test_a_value_that_starts_like_a_new_cell_is_made_harmless(start):
    assert csv_value(f"{start}cmd") == f"'{start}cmd"


@pytest.mark.parametrize("value", ["a=b", " a", "", "'=a", "1-2", "é@x", -5, -0.5, None])
def test_other_values_stay_as_they_are(value):
    assert csv_value(value) == value


def test_every_column_of_an_event_arrives_in_its_form(tmp_path):
    fields = {
        "external_id": "x", "handler_id": "h", "source": "cam\n1",
        "top_match": TopMatch(label="l", similarity=0.5), "match_result": [{"label": "é"}],
        "face_detections": {"n": 1.5}, "face_id": "f", "attach_result": "=1", "gender": 0, "age": 31,
        "emotion": 7, "ethnic_group": 4, "tags": ("a,b", 'c"'), "user_data": "u",
        "city": "c", "area": "a", "district": "d", "street": "s", "house_number": "-7", "latitude": -5.5,
        "longitude": 37.25, "mask": 2, "track_id": "t", "liveness": 1, "frame_id": "f1",
    }  # fmt: skip
    partition = partition_of(tmp_path, [message(0, AXES[0], **fields)])
    archive, _ = snapshot(
        partition, tmp_path / "a.zip", threshold=0.6, report=Report(columns=list(EVENT_COLUMNS))
    )
    header, values = rows_of(archive)
    row = dict(zip(header, values, strict=True))
    assert header == ["cluster", "event_id", *EVENT_COLUMNS]
    assert json.loads(row.pop("top_match")) == {
        "object_id": None, "label": "l", "similarity": 0.5, "external_id": None,
    }  # fmt: skip
    assert row.pop("create_time").endswith("Z")
    assert row == {
        "cluster": "0", "event_id": "acme-00000", "external_id": "x", "handler_id": "h", "source": "cam\n1",
        "match_result": '[{"label":"é"}]', "face_detections": '{"n":1.5}', "face_id": "f",
        "attach_result": '"=1"', "gender": "0", "age": "31", "emotion": "7", "ethnic_group": "4",
        "tags": '["a,b","c\\""]', "user_data": "u", "city": "c", "area": "a", "district": "d", "street": "s",
        "house_number": "'-7", "latitude": "-5.5", "longitude": "37.25", "mask": "2", "track_id": "t",
        "liveness": "1", "attribute_id": "", "frame_id": "f1", "low_quality": "", "cluster_size": "1",
        "cluster_share": "1.0", "cluster_cohesion": "1.0", "cluster_weakest_link": "", "cluster_bridges": "0",
    }  # fmt: skip
    partition.close()


def test_every_column_of_a_face_arrives_in_its_form(tmp_path):
    fields = {
        "user_data": "u", "list_ids": ("l1", "l2"), "external_id": "x", "avatar": "faces/a.jpg",
        "event_id": "e",
    }  # fmt: skip
    face = message(0, AXES[0], object_type="face", **fields)
    partition = partition_of(tmp_path, [face])
    archive, _ = snapshot(
        partition,
        tmp_path / "a.zip",
        objects_type="faces",
        threshold=0.6,
        report=Report(columns=list(FACE_COLUMNS)),
    )
    header, row = rows_of(archive)
    assert header == ["cluster", "face_id", *FACE_COLUMNS]
    of_face = ["u", row[3], '["l1","l2"]', "x", "faces/a.jpg", "e", "", ""]
    assert row == ["0", "acme-00000", *of_face, "1", "1.0", "1.0", "", "0"]
    partition.close()


def test_the_report_is_rfc_4180_byte_for_byte(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0], source='a "b", c', user_data="x\ry")])
    archive, _ = snapshot(
        partition, tmp_path / "a.zip", threshold=0.6, report=Report(columns=["source", "user_data"])
    )
    with zipfile.ZipFile(archive) as zipped:
        report = zipped.read("report.csv")
    assert report == b'cluster,event_id,source,user_data\r\n0,acme-00000,"a ""b"", c","x\ry"\r\n'
    partition.close()


@pytest.mark.parametrize("object_type", ["event", "face"])
def test_columns_about_the_cluster_are_the_figures_of_its_line_with_none_left_empty(tmp_path, object_type):
    made = [message(number, AXES[number // 3], object_type=object_type) for number in range(7)]
    partition = partition_of(tmp_path, made)
    columns = ["cluster_share", "create_time", *sorted(set(CLUSTER_COLUMNS) - {"cluster_share"})]
    archive, _ = snapshot(
        partition,
        tmp_path / "a.zip",
        threshold=0.6,
        report=Report(columns=columns),
        objects_type=f"{object_type}s",
    )
    with zipfile.ZipFile(archive) as zipped:
        lines = [json.loads(line) for line in zipped.read("clusters.jsonl").splitlines()]
        figures = json.loads(zipped.read("manifest.json"))["figures"]
    header, *rows = rows_of(archive)
    assert header[2:] == columns
    assert [line["weakest_link"] is None for line in lines] == [False, False, True]
    for row in rows:
        line = lines[int(row[0])]
        for name, value in zip(columns, row[2:], strict=True):
            if name in CLUSTER_COLUMNS:
                found = line[name.removeprefix("cluster_")]
                assert value == ("" if found is None else str(found))
    assert figures == {
        "largest_share": pytest.approx(3 / 7),
        "singletons": 1,
        "sizes": [
            {"at_least": 1, "at_most": 1, "clusters": 1, "objects": 1},
            {"at_least": 2, "at_most": 2, "clusters": 0, "objects": 0},
            {"at_least": 3, "at_most": 4, "clusters": 2, "objects": 6},
        ],
    }
    partition.close()

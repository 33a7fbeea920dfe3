"""Selection: every filter, what each removed, injection, indexes, stopping."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from stream_cluster.errors import Cancelled, TaskError
from stream_cluster.messages import (
    Descriptor,
    Filters,
    Metadata,
    TopMatch,
    encode_object,
    filters_of,
    format_time,
    parse_filters,
)
from stream_cluster.model import Interrupt
from stream_cluster.snapshot.filters import DEFINITIONS, compile_filters, where_clause
from stream_cluster.state.schema import DESCRIPTOR_COLUMNS, METADATA_COLUMNS
from tests.support.cli import invoke
from tests.support.files import write_lines
from tests.support.partitions import (
    NOW_US,
    T0_US,
    chosen,
    clusters_of,
    manifest_of,
    message,
    partition_of,
    snapshot,
    time_text,
)

AXES = np.eye(8, dtype=np.float32)
TYPES = ("event", "face")


@pytest.mark.parametrize("object_type", TYPES)
def test_every_filter_of_a_type_is_defined_once_and_no_other(object_type):
    names = [one.name for one in DEFINITIONS if object_type in one.object_types]
    assert len(names) == len(set(names))
    assert set(names) == filters_of(object_type)


def test_definitions_read_columns_that_exist():
    columns = {"object_id", *(name for name, _ in METADATA_COLUMNS + DESCRIPTOR_COLUMNS)}
    for definition in DEFINITIONS:
        assert definition.value in columns or definition.value.startswith("json_extract(top_match, '$.")


@pytest.mark.parametrize("object_type", TYPES)
def test_null_selects_the_objects_that_lack_the_field(tmp_path, object_type):
    partition = partition_of(tmp_path, [message(0, AXES[0], object_type=object_type, create_time_us=None)])
    own = {name for name in filters_of(object_type) if name.startswith(f"{object_type}_id")}
    assert len(own) == 3
    for name in sorted(filters_of(object_type)):
        found, _ = chosen(partition, Filters(**{name: None}), object_type=object_type)
        assert found == (set() if name in own else {"acme-00000"}), name
    partition.close()


FULL = Metadata(
    create_time_us=NOW_US - 3600_000_000,
    end_time_us=NOW_US - 1800_000_000,
    track_id="t1",
    handler_id="h1",
    source="cam1",
    stream_id="s1",
    external_id="x1",
    user_data="u1",
    tags=("vip", "staff"),
    meta={"gate": {"number": 4, "open": True}, "zones": ["a", "b"]},
    face_id="f1",
    gender=1,
    age=31,
    emotion=5,
    ethnic_group=4,
    mask=1,
    liveness=1,
    city="c",
    area="a",
    district="d",
    street="s",
    house_number="7",
    longitude=179.5,
    latitude=10.0,
    top_match=TopMatch(object_id="o1", label="staff", similarity=0.8100000023841858, external_id="m1"),
    headwear=("hat", 2),
    clothing=("red",),
    backpack=(1,),
)
MATCHING = {
    "event_ids": ["acme-00000"], "event_id__gte": "acme-00000", "event_id__lt": "acme-00000x",
    "face_ids": ["f1", "f2"], "create_time__gte": "now-1h", "create_time__lt": "now-59m",
    "end_time__gte": "now-30m", "end_time__lt": "now", "handler_ids": ["h1"], "sources": ["cam0", "cam1"],
    "stream_ids": ["s1"], "track_ids": ["t1"], "external_ids": ["x1"], "attribute_ids": ["at1"],
    "user_data": "u1", "tags": ["staff", "guest"], "meta": {"gate.number": [3, 4], "zones": "b"}, "gender": 1,
    "age__gte": 31, "age__lt": 32, "emotions": [5], "ethnic_groups": [4, 1], "masks": [1], "liveness": [1, 2],
    "headwear": [2], "clothing": ["red"], "backpack": [1, 3], "top_matching_candidates_label": "staff",
    "top_similar_object_ids": ["o1"], "top_similar_external_ids": ["m1"],
    "top_similar_object_similarity__gte": 0.8100000023841858, "top_similar_object_similarity__lt": 0.82,
    "cities": ["c"], "areas": ["a"], "districts": ["d"], "streets": ["s"], "house_numbers": ["7"],
    "geo_position": {"longitude__gte": 179, "longitude__lt": -179, "latitude__gte": 10, "latitude__lt": 11},
    "quality__gte": 0.93,
}  # fmt: skip
OTHER = {
    "event_ids": ["acme-00001"], "event_id__gte": "acme-00000x", "event_id__lt": "acme-00000",
    "face_ids": ["acme-00000"], "create_time__gte": "now-59m", "create_time__lt": "now-1h",
    "end_time__gte": "now-29m", "end_time__lt": "now-30m", "handler_ids": ["h"], "sources": [],
    "stream_ids": ["S1"], "track_ids": ["cam1"], "external_ids": ["x"], "attribute_ids": ["at"],
    "user_data": ["u", "1"], "tags": ["vi"], "meta": {"gate.number": 4, "gate.open": 1}, "gender": 0,
    "age__gte": 32, "age__lt": 31, "emotions": [4], "ethnic_groups": [3], "masks": [2], "liveness": 0,
    "headwear": ["2"], "clothing": ["re"], "backpack": ["1"], "top_matching_candidates_label": "STAFF",
    "top_similar_object_ids": ["m1"], "top_similar_external_ids": ["o1"],
    "top_similar_object_similarity__gte": 0.8100000023841859, "top_similar_object_similarity__lt": 0.81,
    "cities": ["C"], "areas": ["c"], "districts": [""], "streets": ["d"], "house_numbers": ["07"],
    "geo_position": {"longitude__gte": -179, "longitude__lt": 179, "latitude__gte": 10, "latitude__lt": 11},
    "quality__gte": 0.94,
}  # fmt: skip


def full_event(number=0, **fields):
    """An event that has every field."""
    made = message(number, AXES[0])
    descriptor = Descriptor("face", 1, AXES[0], "at1", "cam1/a.jpg", 0.93)
    return msgspec.structs.replace(
        made, metadata=msgspec.structs.replace(FULL, **fields), descriptors=(descriptor,)
    )


def assert_selects(partition, name, matching, other, object_type):
    """The filter selects the only object there is with one value, and not with the other."""
    for value, expected in ((matching, {"acme-00000"}), (other, set())):
        parsed = parse_filters(json.dumps({name: value}).encode(), object_type)
        assert isinstance(parsed, Filters), parsed
        found, selection = chosen(partition, parsed, object_type=object_type)
        assert found == expected
        assert selection.removed_by_filter == {name: 1 - len(expected)}


@pytest.mark.parametrize("name", sorted(filters_of("event")))
def test_each_filter_of_events_selects_what_it_names_and_nothing_else(tmp_path, name):
    partition = partition_of(tmp_path, [full_event()])
    assert_selects(partition, name, MATCHING[name], OTHER[name], "event")
    partition.close()


FACE_MATCHING = {
    "face_ids": ["acme-00000"], "face_id__gte": "acme-00000", "face_id__lt": "acme-00000x",
    "list_id": ["l2", "l3"], "create_time__gte": "now-1h", "create_time__lt": "now-59m",
    "external_ids": ["x1", "x2"], "user_data": "u1", "attribute_ids": ["at1"], "quality__gte": 0.93,
}  # fmt: skip
FACE_OTHER = {
    "face_ids": ["acme-00001"], "face_id__gte": "acme-00000x", "face_id__lt": "acme-00000",
    "list_id": "l", "create_time__gte": "now-59m", "create_time__lt": "now-1h",
    "external_ids": ["x"], "user_data": ["u", "1"], "attribute_ids": ["at"], "quality__gte": 0.94,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(filters_of("face")))
def test_each_filter_of_faces_selects_what_it_names_and_nothing_else(tmp_path, name):
    known = Metadata(
        create_time_us=NOW_US - 3600_000_000, external_id="x1", user_data="u1", list_ids=("l1", "l2")
    )
    face = msgspec.structs.replace(
        message(0, AXES[0], object_type="face"),
        metadata=known,
        descriptors=(Descriptor("face", 1, AXES[0], "at1", None, 0.93),),
    )
    partition = partition_of(tmp_path, [face])
    assert_selects(partition, name, FACE_MATCHING[name], FACE_OTHER[name], "face")
    partition.close()


def test_all_filters_of_events_hold_together(tmp_path):
    partition = partition_of(tmp_path, [full_event(0), full_event(1, age=30), full_event(2, street="x")])
    found, selection = chosen(partition, parse_filters(json.dumps(MATCHING).encode(), "event"))
    assert found == {"acme-00000"}
    # Both others have another id; the first filter that an object does not meet is the one that counts.
    removed = {name: count for name, count in selection.removed_by_filter.items() if count}
    assert removed == {"event_ids": 2}
    assert list(selection.removed_by_filter) == [
        one.name for one in DEFINITIONS if "event" in one.object_types
    ]
    partition.close()


def test_files_keep_every_field_that_a_filter_asks_for(tmp_path):
    """`cluster FILE` with all filters at once, relative times included."""
    shift_us = int(np.datetime64("now", "us").astype(np.int64)) - NOW_US
    event = full_event(
        create_time_us=FULL.create_time_us + shift_us + 60_000_000,
        end_time_us=FULL.end_time_us + shift_us + 60_000_000,
    )
    events = write_lines(
        tmp_path / "events.jsonl", [encode_object(event), encode_object(message(1, AXES[0]))]
    )
    filters = tmp_path / "filters.json"
    filters.write_text(json.dumps({**MATCHING, "create_time__lt": "now-58m"}))
    result = invoke("cluster", events, "-o", tmp_path / "out.zip", "--filters", filters)
    assert result.exit_code == 0, result.stderr
    assert clusters_of(tmp_path / "out.zip") == {frozenset({"acme-00000"})}
    # Every field but the ids and times alone tells the two apart.
    for name in sorted(set(MATCHING) - {"event_id__gte", "event_id__lt", "create_time__lt", "end_time__lt"}):
        filters.write_text(json.dumps({name: MATCHING[name]}))
        result = invoke("cluster", events, "-o", tmp_path / "out.zip", "--filters", filters, "--json")
        counts = json.loads(result.stdout)["counts"]
        assert (counts["selected"], counts["removed_by_filter"]) == (1, {name: 1}), name


HOSTILE = [
    "' OR 1=1 --",
    "'; DROP TABLE objects; --",
    '") OR 1=1 --',
    "%",
    "a' UNION SELECT * FROM spaces --",
    "?1",
    "\\",
    '"]',
    "$.a",
]


def texts_of(name, text):
    """A value of the filter that holds the text; None for a filter that takes no text."""
    if name == "meta":
        return {"a": text}
    value = [text] if isinstance(MATCHING[name], list) else text
    parsed = parse_filters(json.dumps({name: value}).encode(), "event")
    return value if isinstance(parsed, Filters) else None


@pytest.mark.parametrize("name", sorted(filters_of("event")))
def test_text_in_a_filter_is_never_more_than_a_value(tmp_path, name):
    partition = partition_of(tmp_path, [full_event(), message(1, AXES[1], account="other")])
    tried = 0
    for text in HOSTILE:
        value = texts_of(name, text)
        if value is None:
            continue
        tried += 1
        filters = Filters(**{name: value})
        (condition,) = compile_filters(filters, "event", NOW_US)
        assert text not in condition.sql
        found, _ = chosen(partition, filters)
        matches = {"event_id__gte": text <= "acme-00000", "event_id__lt": text > "acme-00000"}
        assert found == ({"acme-00000"} if matches.get(name) else set())
    assert tried == 0 or tried >= 6
    with partition.view() as view:
        assert next(view.query("SELECT count(*) FROM objects"))[0] == 2
    partition.close()


@pytest.mark.parametrize("path", [f"a{text}" for text in HOSTILE if "\\" not in text and '"' not in text])
def test_names_in_a_path_of_meta_are_never_more_than_names(tmp_path, path):
    messages = [message(0, AXES[0], meta={"a": 1}), message(1, AXES[1], meta={path.replace(".", ""): 1})]
    partition = partition_of(tmp_path, messages)
    filters = parse_filters(json.dumps({"meta": {path.replace(".", ""): 1}}).encode(), "event")
    found, _ = chosen(partition, filters)
    assert found == {"acme-00001"}
    partition.close()


def test_removed_objects_are_attributed_to_the_first_filter_that_they_do_not_meet(tmp_path):
    messages = [
        message(number, AXES[number % 8], source=f"cam{number % 2}", age=number, gender=int(number >= 6))
        for number in range(8)
    ]
    late = message(8, AXES[0], source="cam1", age=5, gender=0, create_time_us=NOW_US + 1)
    partition = partition_of(tmp_path, [*messages, late])
    filters = Filters(gender=[0], age__gte=3, sources=["cam1"], create_time__gte=time_text(1))
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6, filters=filters)
    assert clusters_of(archive) == {frozenset({"acme-00003"}), frozenset({"acme-00005"})}
    counts = manifest_of(archive)["counts"]
    # 0 is too old; 2, 4, 6 are of cam0; 7 is of gender 1; 1 is too young; 8 is dated after the task.
    assert list(counts["removed_by_filter"].items()) == [
        ("create_time__gte", 1),
        ("sources", 3),
        ("gender", 1),
        ("age__gte", 1),
        ("create_time__lt", 1),
    ]
    assert counts["dated_after_the_task"] == 1
    assert sum(counts["removed_by_filter"].values()) == counts["filtered_out"] == 7
    partition.close()


def test_without_filters_nothing_is_removed(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0])])
    _, selection = chosen(partition, Filters())
    assert (selection.removed_by_filter, selection.is_whole_space) == ({}, True)
    partition.close()


@pytest.mark.parametrize(
    ("filters", "says"),
    [
        ({"sources": ["cam1"], "age__gte": 99}, "none of 2 objects .*: age__gte excludes the last 1"),
        ({"sources": ["cam9"], "age__gte": 99}, "none of 2 objects .*: sources excludes the last 2"),
        ({"create_time__gte": "now"}, "none of 2 objects .*: create_time__gte excludes the last 2"),
    ],
)
def test_an_empty_selection_names_the_filter_that_emptied_it(tmp_path, filters, says):
    messages = [message(0, AXES[0], source="cam0", age=30), message(1, AXES[0], source="cam1", age=40)]
    partition = partition_of(tmp_path, messages)
    with pytest.raises(TaskError, match=says) as caught:
        snapshot(partition, tmp_path / "a.zip", filters=Filters(**filters))
    assert caught.value.code == "empty_selection"
    partition.close()


def test_objects_that_are_all_dated_after_the_task_are_said_to_be(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0], create_time_us=NOW_US)])
    with pytest.raises(TaskError, match="create_time__lt excludes the last 1"):
        snapshot(partition, tmp_path / "a.zip")
    partition.close()


# -- cost ----------------------------------------------------------------------------------------------


def test_time_and_source_are_answered_by_an_index_alone_and_in_order(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0], source="cam1")])
    filters = Filters(create_time__gte=format_time(T0_US), create_time__lt="now", sources=["cam1"])
    with partition.view() as view:
        where, parameters = where_clause(view.spaces()[0], compile_filters(filters, "event", NOW_US))
        plan = " / ".join(
            row[3]
            for row in view.query(
                f"EXPLAIN QUERY PLAN SELECT key, object_id, track_id FROM objects WHERE {where} "
                "AND create_time_us IS NOT NULL ORDER BY create_time_us, object_id",
                parameters,
            )
        )
    assert (
        "USING COVERING INDEX objects_by_time (space_id=? AND create_time_us>? AND create_time_us<?)" in plan
    )
    assert "B-TREE" not in plan
    partition.close()


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_query_that_yields_no_row_yet_stops_at_the_deadline_and_on_cancel(tmp_path):
    partition = partition_of(tmp_path, [message(0, AXES[0])])
    with partition.view() as view:
        with pytest.raises(TaskError) as caught, view.stoppable(Interrupt(deadline_s=0.05)):
            next(view.query(ENDLESS))
        assert caught.value.code == "deadline_exceeded"
        interrupt = Interrupt()
        interrupt.cancel()
        with pytest.raises(Cancelled), view.stoppable(interrupt):
            next(view.query(ENDLESS))
        # The view is as good as before.
        assert next(view.query("SELECT count(*) FROM objects"))[0] == 1
    partition.close()

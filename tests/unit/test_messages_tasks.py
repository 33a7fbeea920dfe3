"""Task requests and statuses: what is understood, and what a bad one is answered with."""

from __future__ import annotations

import json

import msgspec
import pytest

from stream_cluster.messages import (
    CLUSTER_COLUMNS,
    EVENT_COLUMNS,
    EVENT_FILTERS,
    FACE_COLUMNS,
    FACE_FILTERS,
    MSGPACK,
    ArchiveRef,
    AsOf,
    BadTask,
    CancelRequest,
    Content,
    DeleteRequest,
    Filters,
    GeoBox,
    RawRecord,
    Reason,
    Rejection,
    Report,
    TaskFault,
    TaskRequest,
    TaskStatus,
    TaskWarning,
    decode_status,
    decode_task,
    encode_status,
    encode_task,
    parse_filters,
)

LEAST = {"task_id": "t1", "account_id": "acme", "content": {"objects_type": "events"}}


def task(content=None, **changes) -> dict:
    return LEAST | {"content": LEAST["content"] | (content or {})} | changes


def decode(value):
    return decode_task(json.dumps(value).encode())


def filtered(filters, objects_type="events"):
    return decode(task({"filters": filters, "objects_type": objects_type}))


def test_the_smallest_task_gets_the_defaults():
    assert decode(LEAST) == TaskRequest(
        task_id="t1", account_id="acme", content=Content(objects_type="events")
    )
    assert decode(LEAST).content.object_type == "event"


def test_every_field_of_a_task_arrives_and_survives_both_forms():
    request = decode(
        task(
            {
                "descriptor_type": "body",
                "descriptor_version": 110,
                "filters": {"age__gte": 18},
                "threshold": 0.81,
                "use_track_info": True,
                "save_images": True,
                "linkage": "average",
                "min_quality": 0.4,
                "cannot_link": "same_frame",
                "report": {"format": "csv", "columns": ["create_time", "source"]},
            },
            type="clustering",
            description="gate 4",
            deadline_s=600,
            callback_url="https://example.org/done",
            result_ttl_s=604800,
        )
    )
    assert request == TaskRequest(
        task_id="t1",
        account_id="acme",
        content=Content(
            objects_type="events",
            descriptor_type="body",
            descriptor_version=110,
            filters=Filters(age__gte=18),
            threshold=0.81,
            use_track_info=True,
            save_images=True,
            linkage="average",
            min_quality=0.4,
            cannot_link="same_frame",
            report=Report(columns=["create_time", "source"]),
        ),
        description="gate 4",
        deadline_s=600.0,
        callback_url="https://example.org/done",
        result_ttl_s=604800,
    )
    assert decode_task(encode_task(request)) == request
    assert decode_task(RawRecord("t", 0, 0, 0, None, encode_task(request, MSGPACK), MSGPACK)) == request


@pytest.mark.parametrize(("kind", "struct"), [("cancel", CancelRequest), ("delete", DeleteRequest)])
def test_cancel_and_delete_are_understood(kind, struct):
    request = decode({"type": kind, "task_id": "t1", "account_id": "acme"})
    assert request == struct(task_id="t1", account_id="acme")
    assert decode_task(encode_task(request)) == request


def test_null_is_absent_but_in_a_filter_it_selects():
    request = decode(
        task({"threshold": None, "filters": {"tags": None}, "report": {"format": None}}, deadline_s=None)
    )
    assert request.content == Content(objects_type="events", filters=Filters(tags=None))
    assert request.content.filters.given() == {"tags": None}
    assert Filters().given() == {}


EXAMPLES = {
    "meta": {"gate": 4},
    "gender": [0, 1],
    "emotions": [1, 7],
    "ethnic_groups": [4],
    "masks": [3],
    "liveness": [2],
    "headwear": ["hat", 1],
    "clothing": ["red"],
    "backpack": [1],
    "geo_position": {"longitude__gte": 170, "longitude__lt": -170, "latitude__gte": -1, "latitude__lt": 1},
    "user_data": ["a"],
    "list_id": ["l"],
    "top_matching_candidates_label": ["l"],
}


def example(name: str):
    if name in EXAMPLES:
        return EXAMPLES[name]
    if "_time__" in name:
        return "now-3h"
    if "_id__" in name:
        return "id"
    if "similarity__" in name or name == "quality__gte":
        return 0.5
    return 18 if name.startswith("age__") else ["a", "b"]


@pytest.mark.parametrize(("objects_type", "known"), [("events", EVENT_FILTERS), ("faces", FACE_FILTERS)])
def test_every_filter_of_a_type_is_understood_and_survives(objects_type, known):
    filters = {name: example(name) for name in known}
    request = filtered(filters, objects_type)
    assert isinstance(request, TaskRequest), request
    given = request.content.filters.given()
    assert msgspec.to_builtins(given) == filters
    assert decode_task(encode_task(request)) == request
    assert filtered(dict.fromkeys(known), objects_type).content.filters.given() == dict.fromkeys(known)


def test_the_filters_are_those_of_the_contract():
    assert len(EVENT_FILTERS) == 39
    assert len(FACE_FILTERS) == 10
    assert set(Filters.__struct_fields__) == EVENT_FILTERS | FACE_FILTERS
    assert len(EVENT_COLUMNS) == 28 + len(CLUSTER_COLUMNS)
    assert len(FACE_COLUMNS) == 8 + len(CLUSTER_COLUMNS)
    assert len(CLUSTER_COLUMNS) == 5


def test_numbers_that_json_lacks_are_no_values_of_filters():
    for name in ("quality__gte", "top_similar_object_similarity__gte"):
        value = msgspec.msgpack.encode(task({"filters": {name: float("nan")}}))
        bad = decode_task(RawRecord("t", 0, 0, 0, None, value, MSGPACK))
        assert isinstance(bad, BadTask)
        assert bad.code == "bad_request"


def test_a_single_value_is_a_list_of_one():
    filters = filtered({"gender": 0, "user_data": "x", "liveness": 2}).content.filters
    assert filters.given() == {"gender": [0], "user_data": ["x"], "liveness": [2]}
    assert isinstance(
        filtered({"geo_position": EXAMPLES["geo_position"]}).content.filters.geo_position, GeoBox
    )


BAD = {
    "an unknown filter": (task({"filters": {"source": ["a"]}}), "unknown_field", "did you mean sources?"),
    "an event filter for faces": (
        task({"objects_type": "faces", "filters": {"tags": []}}),
        "unknown_field",
        "'tags' is not known for faces",
    ),
    "a face filter for events": (
        task({"filters": {"list_id": "l"}}),
        "unknown_field",
        "not known for events",
    ),
    "an unknown column": (
        task({"report": {"columns": ["colour"]}}),
        "bad_request",
        "content.report.columns: no column 'colour' of events; there are age, area, attach_result, ",
    ),
    "a column of the other type": (
        task({"report": {"columns": ["avatar"]}}),
        "bad_request",
        "no column 'avatar'",
    ),
    "a column that is no text": (task({"report": {"columns": [[]]}}), "bad_request", "no column list"),
    "a column twice": (task({"report": {"columns": ["age", "age"]}}), "bad_request", "age is named twice"),
    "a filter like none": (task({"filters": {"zzz": 1}}), "unknown_field", "did you mean "),
    "a path to nothing": (task({"filters": {"meta": {}}}), "bad_request", "meta: found an empty object"),
    "a nested path to nothing": (
        task({"filters": {"meta": {"a": {}}}}),
        "bad_request",
        "meta: found an empty object, expected at least one path",
    ),
    "a path with a quote": (task({"filters": {"meta": {'a"b': 1}}}), "bad_request", "without quotes"),
    "a path with a backslash": (task({"filters": {"meta": {"a\\b": 1}}}), "bad_request", "backslashes"),
    "a path without end": (
        task({"filters": {"meta": {"a." * 64 + "a": 1}}}),
        "bad_request",
        "found a path of 65 names, expected at most 64",
    ),
    "an object among values": (
        task({"filters": {"meta": {"a": [1, {"b": 2}]}}}),
        "bad_request",
        "found an object in a list",
    ),
    "a list among values": (task({"filters": {"meta": {"a": [[1]]}}}), "bad_request", "found a list in a"),
    "a character that SQLite ends text at": (
        task({"filters": {"tags": ["a", "b\0"]}}),
        "bad_request",
        "filters.tags: found the character U+0000",
    ),
    "the same in meta": (
        task({"filters": {"meta": {"a": "b\0"}}}),
        "bad_request",
        "filters.meta: found the character U+0000",
    ),
    "a box without width": (
        task({"filters": {"geo_position": EXAMPLES["geo_position"] | {"longitude__lt": 170}}}),
        "bad_request",
        "expected two different longitudes",
    ),
    "a filter of the wrong type": (
        task({"filters": {"sources": "cam"}}),
        "bad_request",
        "$.content.filters.sources",
    ),
    "a time that is none": (
        task({"filters": {"end_time__lt": "soon"}}),
        "bad_request",
        "filters.end_time__lt",
    ),
    "an empty box": (
        task({"filters": {"geo_position": EXAMPLES["geo_position"] | {"latitude__gte": 1}}}),
        "bad_request",
        "latitude__gte below",
    ),
    "a box with a wrong name": (
        task({"filters": {"geo_position": EXAMPLES["geo_position"] | {"x": 1}}}),
        "bad_request",
        "unknown field `x`",
    ),
    "bodies of faces": (
        task({"objects_type": "faces", "descriptor_type": "body"}),
        "bad_request",
        "found body",
    ),
    "no objects_type": (task() | {"content": {}}, "bad_request", "objects_type"),
    "no content": ({"task_id": "t1", "account_id": "acme"}, "bad_request", "content"),
    "a threshold above 1": (task({"threshold": 1.1}), "bad_request", "threshold"),
    "another linkage": (task({"linkage": "single"}), "bad_request", "linkage"),
    "a quality that is no number": (task({"min_quality": "good"}), "bad_request", "min_quality"),
    "frames and components": (
        task({"cannot_link": "same_frame"}),
        "bad_request",
        "found it with the linkage components, expected average",
    ),
    "another constraint": (
        task({"cannot_link": "same_day", "linkage": "average"}),
        "bad_request",
        "cannot_link",
    ),
    "another report": (task({"report": {"format": "xlsx"}}), "bad_request", "format"),
    "no deadline at all": (task(deadline_s=0), "bad_request", "deadline_s"),
    "a callback to a file": (task(callback_url="file:///etc/passwd"), "bad_request", "callback_url"),
    "a callback that is no URL": (task(callback_url="http://[x"), "bad_request", "callback_url"),
    "an unknown type": (task(type="merge"), "bad_request", "found 'merge'"),
    "a type that is no text": (task(type=[[]]), "bad_request", "found list"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_task_can_be_reported_to_its_sender(name):
    value, code, message = BAD[name]
    bad = decode(value)
    assert isinstance(bad, BadTask), bad
    assert (bad.code, bad.task_id, bad.account_id) == (code, "t1", "acme")
    assert bad.reportable
    assert message in bad.message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", Reason.UNDECODABLE),
        (b"[]", Reason.UNDECODABLE),
        (b"{" * 100_000, Reason.UNDECODABLE),
        (b'{"account_id":"acme","type":"cancel"}', Reason.MISSING_FIELD),
        (b'{"task_id":"../x","account_id":"acme","type":"cancel"}', Reason.BAD_FIELD),
    ],
)
def test_a_task_without_a_legible_id_cannot_be_reported(value, reason):
    bad = decode_task(value)
    assert (bad.reason, bad.reportable) == (reason, False)


def test_a_record_without_a_value_is_a_bad_task():
    assert decode_task(RawRecord("t", 0, 0, 0, b"acme", None, None)).reason is Reason.UNDECODABLE


def test_content_nested_in_content_does_not_exhaust_the_stack():
    value = b'{"task_id":"t1","account_id":"acme","content":' * 150 + b"1" + b"}" * 150
    assert decode_task(value).code == "bad_request"


def test_filters_can_be_read_on_their_own():
    assert parse_filters(b'{"sources":["a"]}', "event") == Filters(sources=["a"])
    assert parse_filters(b'{"sources":["a"]}', "face").code == "unknown_field"
    assert parse_filters(b'{"create_time__lt":"x"}', "event").code == "bad_request"
    assert parse_filters(b'{"gender":7}', "event").code == "bad_request"
    assert parse_filters(b"[", "event").reason is Reason.UNDECODABLE


DONE = TaskStatus(
    task_id="t1",
    account_id="acme",
    status="done",
    progress=1.0,
    time="2026-05-01T10:00:00.000Z",
    archive=ArchiveRef(url="file:///r/t1.zip", size_bytes=123, sha256="0" * 64),
    objects=52310,
    clusters=8841,
    largest_cluster=312,
    threshold=0.81,
    as_of=AsOf(topic="events", partition=3, next_offset=981223),
    duration_s=1.8,
    stage=None,
    timings_s={"match": 1.5},
    warnings=[
        TaskWarning(
            code="bridges",
            message="m",
            cluster=0,
            id="a",
            size=9,
            share=0.5,
            bridges=1,
            pair=["a", "b"],
            objects=["a", "b"],
        )
    ],
)


def test_a_status_has_the_fields_of_the_contract_and_comes_back():
    fields = json.loads(encode_status(DONE))
    assert fields["error"] is None
    assert fields["as_of"] == {"topic": "events", "partition": 3, "next_offset": 981223}
    assert set(fields) == {
        "task_id",
        "account_id",
        "status",
        "progress",
        "time",
        "archive",
        "result_url",
        "expires",
        "archive_removed",
        "objects",
        "clusters",
        "largest_cluster",
        "threshold",
        "as_of",
        "duration_s",
        "stage",
        "records_to_barrier",
        "timings_s",
        "warnings",
        "error",
    }
    assert decode_status(encode_status(DONE)) == DONE == decode_status(encode_status(DONE, MSGPACK))
    assert DONE.ended


def test_a_failed_status_carries_its_code():
    error = TaskFault(code="empty_selection", message="no object")
    status = msgspec.structs.replace(DONE, status="failed", archive=None, error=error)
    assert decode_status(encode_status(status)).error == error
    assert not msgspec.structs.replace(DONE, status="in_progress").ended


def test_bytes_that_are_no_status_are_rejected():
    assert decode_status(b"{").reason is Reason.UNDECODABLE
    assert decode_status(b"{}").reason is Reason.MISSING_FIELD
    assert isinstance(decode_status(encode_status(DONE).replace(b'"done"', b'"over"')), Rejection)


def test_a_huge_value_is_not_repeated_in_the_answer() -> None:
    value = json.dumps({"task_id": "t", "account_id": "a", "content": {"objects_type": "x" * 1_000_000}})
    bad = decode_task(value.encode())
    assert isinstance(bad, BadTask)
    assert len(bad.message) < 500
    assert bad.message.endswith("`$.content.objects_type`")

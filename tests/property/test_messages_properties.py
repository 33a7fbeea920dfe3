"""What holds for every message and for any bytes."""

from __future__ import annotations

import json
import math

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.messages import (
    JSON,
    MSGPACK,
    AnyTask,
    BadTask,
    DecodeRules,
    Descriptor,
    Metadata,
    ObjectMessage,
    RawRecord,
    Rejection,
    TaskStatus,
    TopMatch,
    decode_events,
    decode_status,
    decode_task,
    encode_object,
    format_time,
    parse_time,
    partition_for,
)
from stream_cluster.messages.times import MAX_TIME_US, MIN_TIME_US
from stream_cluster.messages.wireform import is_legal_id

RULES = DecodeRules(lambda account: partition_for(account, 4, "murmur2"), 1 << 20, 128)

letters = st.characters(exclude_categories=("C", "Z"), exclude_characters="/\\", include_characters=" ")
ids = st.text(letters, min_size=1, max_size=128).filter(is_legal_id)
texts = st.text(max_size=20)
maybe = st.none
times = st.integers(MIN_TIME_US, MAX_TIME_US)
free_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | texts
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
attributes = st.lists(texts | st.integers(0, 2**31 - 1), max_size=3).map(tuple)
top_matches = st.builds(
    TopMatch,
    object_id=maybe() | ids,
    label=maybe() | texts,
    similarity=maybe() | st.floats(0, 1),
    external_id=maybe() | st.text(max_size=36),
)


@st.composite
def metadata(draw, object_type: str) -> Metadata:
    position = draw(maybe() | st.tuples(st.floats(-180, 180), st.floats(-90, 90)))
    fields = {
        "create_time_us": times,
        "end_time_us": times,
        **dict.fromkeys(("track_id", "handler_id", "stream_id", "frame_id"), ids),
        **dict.fromkeys(("source", "city", "area", "district", "street", "house_number"), texts),
        "external_id": st.text(max_size=36),
        "user_data": st.text(max_size=128),
        "tags": st.lists(texts, max_size=3).map(tuple),
        **dict.fromkeys(("meta", "match_result", "face_detections", "attach_result"), free_json),
        "gender": st.integers(0, 1),
        "age": st.integers(0, 200),
        "emotion": st.integers(1, 7),
        "ethnic_group": st.integers(1, 4),
        "mask": st.integers(1, 3),
        "liveness": st.integers(0, 2),
        "top_match": top_matches,
        **dict.fromkeys(("headwear", "clothing", "backpack"), attributes),
        "face_id" if object_type == "event" else "event_id": ids,
    }
    if object_type == "face":
        fields |= {"list_ids": st.lists(ids, max_size=3).map(tuple), "avatar": texts}
    chosen = draw(st.sets(st.sampled_from(sorted(fields))))
    values = {name: draw(fields[name]) for name in sorted(chosen)}
    if position is not None:
        values |= {"longitude": position[0], "latitude": position[1]}
    return Metadata(**values)


vectors = st.one_of(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9)
    .filter(lambda values: max(map(abs, values)) > 1e-20)
    .map(lambda values: np.array(values, np.float32)),
    st.lists(st.integers(-127, 127), min_size=1, max_size=9)
    .filter(any)
    .map(lambda values: np.array(values, np.int8)),
)


@st.composite
def objects(draw) -> ObjectMessage:
    object_type = draw(st.sampled_from(["event", "face"]))
    kinds = st.just("face") if object_type == "face" else st.sampled_from(["face", "body"])
    spaces = draw(st.lists(st.tuples(kinds, st.integers(0, 2**32 - 1)), min_size=1, max_size=3, unique=True))
    images = maybe() | st.sampled_from(["a.jpg", "cam7/2026-05-01/1.jpg", "a..b/c"])
    qualities = maybe() | st.floats(allow_nan=False, allow_infinity=False)
    return ObjectMessage(
        account_id=draw(ids),
        object_type=object_type,
        action="upsert",
        object_ids=(draw(ids),),
        metadata=draw(metadata(object_type)),
        descriptors=tuple(
            Descriptor(*space, draw(vectors), draw(maybe() | ids), draw(images), draw(qualities))
            for space in spaces
        ),
    )


def plain(message: ObjectMessage | Rejection) -> dict:
    """The message as values that compare by content."""
    assert isinstance(message, ObjectMessage), message
    fields = msgspec.structs.asdict(message)
    rows = [
        msgspec.structs.asdict(d) | {"vector": (d.vector.dtype.str, d.vector.tolist())}
        for d in message.descriptors
    ]
    return fields | {"descriptors": rows}


def decode(*values: bytes, partition: int = 0, content_type: str | None = None, rules: DecodeRules = RULES):
    return decode_events([RawRecord("e", partition, 0, 0, None, v, content_type) for v in values], rules)


@given(objects())
@settings(max_examples=150, deadline=None)
def test_json_and_messagepack_carry_the_same_object(message):
    home = partition_for(message.account_id, 4, "murmur2")
    forms = [encode_object(message, JSON), encode_object(message, MSGPACK)]
    for result in decode(*forms, partition=home):
        assert plain(result) == plain(message)


@given(st.lists(st.binary(max_size=80), max_size=5), st.sampled_from([None, JSON, MSGPACK]))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_objects_or_rejections_only(values, content_type):
    results = decode(*values, content_type=content_type)
    assert len(results) == len(values)
    assert all(isinstance(result, ObjectMessage | Rejection) for result in results)
    for value in values:
        assert isinstance(decode_task(value), AnyTask | BadTask)
        assert isinstance(decode_status(value, content_type), TaskStatus | Rejection)


@given(objects(), st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_messages_give_objects_or_rejections_only(message, data):
    content_type = data.draw(st.sampled_from([JSON, MSGPACK]))
    raw = bytearray(encode_object(message, content_type))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    rules = DecodeRules(None, 1 << 20, 128)
    (result,) = decode(bytes(raw), content_type=content_type, rules=rules)
    assert isinstance(result, ObjectMessage | Rejection)
    if isinstance(result, ObjectMessage):
        for form in (JSON, MSGPACK):
            (again,) = decode(encode_object(result, form), rules=rules, content_type=form)
            assert plain(again) == plain(result)


names = st.sampled_from(
    [
        "task_id",
        "account_id",
        "type",
        "content",
        "objects_type",
        "filters",
        "report",
        "columns",
        "threshold",
        "event_id",
        "descriptors",
        "data",
        "encoding",
        "version",
        "meta",
        "create_time",
        "location",
        "clustering",
        "events",
        "face",
        "float32",
        "face_ids",
        "action",
        "delete",
        "update",
    ]
)
loose = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names | texts | st.binary(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(names | texts | st.integers(), inner, max_size=6)
    ),
    max_leaves=25,
)


@given(loose)
@settings(max_examples=300, deadline=None)
def test_any_structure_gives_a_result_in_both_forms(value):
    try:
        forms = [json.dumps(value, default=lambda data: data.hex()).encode(), msgspec.msgpack.encode(value)]
    except OverflowError:  # an integer that MessagePack cannot carry
        forms = [json.dumps(value, default=lambda data: data.hex()).encode()]
    for form in forms:
        assert isinstance(decode(form)[0], ObjectMessage | Rejection)
        assert isinstance(decode_task(form), AnyTask | BadTask)


@given(times)
def test_times_come_back(us):
    assert parse_time(format_time(us)) == us


@given(st.lists(st.lists(st.floats(width=32), min_size=1, max_size=6), min_size=1, max_size=8))
@settings(deadline=None)
def test_a_batch_decides_each_vector_as_if_it_were_alone(rows):
    values = []
    for row in rows:
        descriptor = {
            "type": "face",
            "version": 1,
            "encoding": "float32",
            "data": np.array(row, "<f4").tobytes(),
        }
        values.append(
            msgspec.msgpack.encode({"account_id": "a", "event_id": "e", "descriptors": [descriptor]})
        )
    rules = DecodeRules(None, 1 << 20, 128)
    for row, result in zip(rows, decode(*values, rules=rules), strict=True):
        if not all(map(math.isfinite, row)):
            assert result.reason == "not_finite"
        elif max(map(abs, row)) < 1e-30:
            assert result.reason == "zero_vector"
        else:
            assert result.descriptors[0].vector.tolist() == row

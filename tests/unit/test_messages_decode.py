"""Objects from bytes: every encoding, every field, every reason of rejection."""

from __future__ import annotations

import base64
import json
import struct

import msgspec
import numpy as np
import pytest

from stream_cluster.messages import (
    JSON,
    MSGPACK,
    DecodeRules,
    Metadata,
    ObjectMessage,
    RawRecord,
    Reason,
    Rejection,
    TopMatch,
    decode_events,
    encode_object,
    parse_time,
    partition_for,
    read_account_id,
)

RULES = DecodeRules(partition_of=None, max_message_bytes=1 << 20, uint8_offset=128)
FLOATS = np.array([0.5, -1.0, 0.25], dtype="<f4")


def record(value, content_type=None, partition=0) -> RawRecord:
    raw = value if isinstance(value, bytes) or value is None else json.dumps(value, default=b64).encode()
    return RawRecord("events", partition, 0, 0, b"acme", raw, content_type)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def face(**changes) -> dict:
    return {"type": "face", "version": 62, "encoding": "float32", "data": FLOATS.tobytes()} | changes


def event(**changes) -> dict:
    return {"event_id": "e1", "account_id": "acme", "descriptors": [face()]} | changes


def decode(value, content_type=None, rules=RULES):
    (result,) = decode_events([record(value, content_type)], rules)
    return result


def accepted(value, content_type=None, rules=RULES) -> ObjectMessage:
    result = decode(value, content_type, rules)
    assert isinstance(result, ObjectMessage), result
    return result


def test_the_smallest_event_is_accepted_and_lacks_every_other_field():
    message = accepted(event())
    assert (message.account_id, message.object_type, message.action) == ("acme", "event", "upsert")
    assert message.object_id == "e1"
    assert message.metadata == Metadata()
    (descriptor,) = message.descriptors
    assert (descriptor.type, descriptor.version) == ("face", 62)
    assert descriptor.vector.dtype == np.float32
    np.testing.assert_array_equal(descriptor.vector, FLOATS)


INT8 = np.array([-128, -5, 0, 127], dtype=np.int8)
UINT8 = np.array([0, 123, 128, 255], dtype=np.uint8)
AS_INT8 = np.array([-127, -5, 0, 127], dtype=np.int8)
SDK = b"dp\0\0" + struct.pack("<I", 62) + UINT8.tobytes()


@pytest.mark.parametrize("form", ["json", "msgpack", "json-list", "msgpack-list"])
@pytest.mark.parametrize(
    ("encoding", "data", "numbers", "vector"),
    [
        ("float32", FLOATS.tobytes(), FLOATS, FLOATS),
        ("float16", FLOATS.astype("<f2").tobytes(), FLOATS, FLOATS),
        ("int8", INT8.tobytes(), INT8, AS_INT8),
        ("uint8", UINT8.tobytes(), UINT8, AS_INT8),
        ("sdk", SDK, np.frombuffer(SDK, np.uint8), AS_INT8),
    ],
)
def test_every_encoding_gives_the_same_vector_in_every_form(form, encoding, data, numbers, vector):
    value = event(descriptors=[face(encoding=encoding, data=numbers.tolist() if "list" in form else data)])
    raw = msgspec.msgpack.encode(value) if "msgpack" in form else json.dumps(value, default=b64).encode()
    decoded = accepted(raw).descriptors[0].vector
    assert decoded.dtype == vector.dtype
    np.testing.assert_array_equal(decoded, vector)


RAW_FORMS = [
    *(("face", version, 512) for version in (54, 56, 57, 58, 59, 60)),
    *(("body", version, 512) for version in (105, 106, 107, 108, 109, 110)),
    *(("body", version, 2048) for version in (102, 103, 104)),
]


@pytest.mark.parametrize(("kind", "version", "dim"), RAW_FORMS)
def test_the_raw_form_of_every_published_version_is_read(kind, version, dim):
    values = np.arange(dim, dtype=np.uint32).astype(np.uint8)
    data = b"dp\0\0" + version.to_bytes(4, "little") + values.tobytes()
    message = accepted(event(descriptors=[face(type=kind, version=version, encoding="sdk", data=data)]))
    (descriptor,) = message.descriptors
    assert (descriptor.type, descriptor.version) == (kind, version)
    assert descriptor.vector.tolist() == np.maximum(values.astype(int) - 128, -127).tolist()


def test_the_uint8_offset_comes_from_the_rules():
    rules = DecodeRules(None, 1 << 20, uint8_offset=100)
    message = accepted(event(descriptors=[face(encoding="uint8", data=bytes([0, 101, 255]))]), rules=rules)
    assert message.descriptors[0].vector.tolist() == [-100, 1, 127]


FULL = {
    "create_time": "2026-05-01T13:00:00.123+03:00",
    "end_time": "2026-05-01T10:00:01.000001Z",
    "track_id": "cam7-4411",
    "handler_id": "h",
    "source": "cam7",
    "stream_id": "s",
    "frame_id": "000123",
    "external_id": "x" * 36,
    "user_data": "u" * 128,
    "tags": ["vip"],
    "meta": {"gate": 4, "deep": [None, True, 1.5]},
    "gender": 1,
    "age": 31,
    "emotion": 5,
    "ethnic_group": 4,
    "mask": 1,
    "liveness": 2,
    "location": {
        "city": "c",
        "area": "a",
        "district": "d",
        "street": "s",
        "house_number": "1b",
        "geo_position": {"longitude": 37.6, "latitude": 55.7},
    },
    "top_match": {"object_id": "o", "label": "l", "similarity": 0.9, "external_id": "e"},
    "match_result": [{"label": "l"}],
    "face_detections": [1],
    "attach_result": {"a": 1},
    "body_attributes": {"headwear": ["hat", 2], "clothing": ["red"], "backpack": [1]},
    "unknown_field": {"ignored": True},
}
FULL_METADATA = {
    "create_time_us": parse_time("2026-05-01T10:00:00.123Z"),
    "end_time_us": parse_time("2026-05-01T10:00:01.000001Z"),
    "tags": ("vip",),
    "city": "c",
    "area": "a",
    "district": "d",
    "street": "s",
    "house_number": "1b",
    "longitude": 37.6,
    "latitude": 55.7,
    "top_match": TopMatch(object_id="o", label="l", similarity=0.9, external_id="e"),
    "headwear": ("hat", 2),
    "clothing": ("red",),
    "backpack": (1,),
} | {
    name: FULL[name]
    for name in Metadata.__struct_fields__
    if name in FULL and name not in {"tags", "top_match"}
}


@pytest.mark.parametrize("encode", [lambda v: json.dumps(v, default=b64).encode(), msgspec.msgpack.encode])
def test_every_field_of_an_event_arrives(encode):
    image = {"attribute_id": "a1", "image": "cam7/2026/1.jpg", "quality": 0.93}
    descriptors = [face(**image), face(type="body", version=110)]
    message = accepted(encode(event(**FULL, face_id="f9", descriptors=descriptors)))
    assert message.metadata == Metadata(**FULL_METADATA, face_id="f9")
    first, second = message.descriptors
    assert (first.attribute_id, first.image, first.quality) == ("a1", "cam7/2026/1.jpg", 0.93)
    assert (second.type, second.version, second.attribute_id) == ("body", 110, None)


def test_every_field_of_a_face_arrives():
    faces = {
        "object_type": "face",
        "face_id": "f1",
        "list_ids": ["l1", "l2"],
        "avatar": "a.jpg",
        "event_id": "e9",
    }
    message = accepted(event(**FULL) | faces)
    assert (message.object_type, message.object_id) == ("face", "f1")
    expected = Metadata(**FULL_METADATA, list_ids=("l1", "l2"), avatar="a.jpg", event_id="e9")
    assert message.metadata == expected


NUMBERED = {
    "gender": (0, 1),
    "emotion": (1, 2, 3, 4, 5, 6, 7),
    "ethnic_group": (1, 2, 3, 4),
    "mask": (1, 2, 3),
    "liveness": (0, 1, 2),
}


@pytest.mark.parametrize("name", NUMBERED)
def test_every_number_that_stands_for_a_name_is_accepted_and_no_other(name):
    values = NUMBERED[name]
    for value in values:
        assert getattr(accepted(event(**{name: value})).metadata, name) == value
    for value in (min(values) - 1, max(values) + 1):
        assert decode(event(**{name: value})).reason is Reason.BAD_FIELD


def test_null_means_absent():
    nulls = dict.fromkeys([*FULL, "face_id", "list_ids", "avatar", "event_ids", "face_ids"])
    assert accepted(event(**nulls)).metadata == Metadata()


def test_a_messagepack_timestamp_is_a_time():
    time = msgspec.msgpack.Ext(-1, struct.pack(">I", 1_777_629_600))
    message = accepted(msgspec.msgpack.encode(event(create_time=time)))
    assert message.metadata.create_time_us == 1_777_629_600_000_000


def test_an_update_needs_no_descriptor_and_names_what_it_changes():
    message = accepted(
        {
            "event_id": "e1",
            "account_id": "acme",
            "action": "update",
            "age": 3,
            "track_id": None,
            "location": {},
        }
    )
    assert (message.action, message.descriptors) == ("update", ())
    assert message.metadata == Metadata(age=3)
    places = {"city", "area", "district", "street", "house_number", "longitude", "latitude"}
    assert message.updated_fields == {"age", "track_id"} | places


def test_a_delete_names_its_objects_once_each_and_needs_no_type():
    message = accepted({"account_id": "acme", "action": "delete", "event_ids": ["b", "a", "b"]})
    assert (message.object_type, message.object_ids, message.descriptors) == ("event", ("b", "a"), ())
    message = accepted({"account_id": "acme", "action": "delete", "face_ids": ["f"]})
    assert (message.object_type, message.object_ids) == ("face", ("f",))
    assert message.everything == ()


@pytest.mark.parametrize(
    ("object_type", "types"), [(None, ("event", "face")), ("event", ("event",)), ("face", ("face",))]
)
def test_a_delete_of_everything_names_no_object_and_may_name_a_type(object_type, types):
    value = {"account_id": "acme", "action": "delete", "everything": True}
    if object_type is not None:
        value["object_type"] = object_type
    message = accepted(value)
    assert (message.action, message.object_ids, message.everything) == ("delete", (), types)
    for form in (JSON, MSGPACK):
        assert decode(encode_object(message, form), content_type=form) == message


def test_everything_is_of_no_meaning_when_it_is_false_or_not_in_a_delete():
    message = accepted({"account_id": "a", "action": "delete", "everything": False, "event_ids": ["e"]})
    assert (message.object_ids, message.everything) == (("e",), ())
    assert accepted(event(everything=True)).everything == ()


def test_the_header_decides_the_form_and_else_the_first_byte():
    packed, text = msgspec.msgpack.encode(event()), json.dumps(event(), default=b64).encode()
    for value, content_type in [
        (packed, None),
        (packed, MSGPACK),
        (packed, "Application/MsgPack; v=1"),
        (text, None),
        (text, JSON),
        (text, "application/json; charset=utf-8"),
        (b" \n" + text, "text/plain"),
    ]:
        assert accepted(value, content_type).object_id == "e1"
    assert decode(packed, JSON).reason is Reason.UNDECODABLE
    assert decode(text, MSGPACK).reason is Reason.UNDECODABLE


DEEP = b"[" * 200_000
NAN = np.array([1, np.nan], "<f4").tobytes()
INF = np.array([1, -np.inf], "<f2").tobytes()

REJECTED = {
    "no value": (None, "undecodable"),
    "empty value": (b"", "undecodable"),
    "no JSON": (b"{", "undecodable"),
    "malformed after a wrong field": (b'{"account_id": "acme", "event_id": 1, ', "undecodable"),
    "bytes that are not UTF-8": (b'{"account_id":"\xff"}', "undecodable"),
    "a lone surrogate": (b'{"account_id":"\\ud800"}', "undecodable"),
    "no object": (b"[1]", "undecodable"),
    "deep nesting": (b'{"account_id":"acme","meta":' + DEEP, "undecodable"),
    "deep nesting in an unknown field": (b'{"x":' + DEEP, "undecodable"),
    "deep MessagePack": (b"\x81\xa4meta" + b"\x91" * 200_000, "undecodable"),
    "cut MessagePack": (msgspec.msgpack.encode(event())[:-1], "undecodable"),
    "no account": ({"event_id": "e1", "descriptors": [face()]}, "missing_field"),
    "no id": ({"account_id": "acme", "descriptors": [face()]}, "missing_field"),
    "a face without face_id": (event(object_type="face"), "missing_field"),
    "no version": (
        event(descriptors=[{"type": "face", "encoding": "int8", "data": "AAAA"}]),
        "missing_field",
    ),
    "a delete of everything with ids": (
        {"account_id": "acme", "action": "delete", "everything": True, "event_ids": ["e"]},
        "bad_field",
    ),
    "everything that is no boolean": (
        {"account_id": "acme", "action": "delete", "everything": "yes"},
        "bad_field",
    ),
    "a delete without ids": ({"account_id": "acme", "action": "delete"}, "missing_field"),
    "a delete of faces with event_ids": (
        {"account_id": "acme", "action": "delete", "object_type": "face", "event_ids": ["e"]},
        "missing_field",
    ),
    "a delete of both": (
        {"account_id": "acme", "action": "delete", "event_ids": ["e"], "face_ids": ["f"]},
        "bad_field",
    ),
    "a wrong type": (event(age="31"), "bad_field"),
    "an unknown action": (event(action="purge"), "bad_field"),
    "an empty id": (event(event_id=""), "bad_field"),
    "an id too long": (event(event_id="x" * 129), "bad_field"),
    "an id with a slash": (event(event_id="a/b"), "bad_field"),
    "an id with a backslash": (event(track_id="a\\b"), "bad_field"),
    "an id with a control character": (event(handler_id="a\nb"), "bad_field"),
    "an id that is a path": (event(stream_id=".."), "bad_field"),
    "a frame that is no id": (event(frame_id="a/b"), "bad_field"),
    "a reference with a slash": (event(face_id="a/b"), "bad_field"),
    "a top match with a slash": (event(top_match={"object_id": "a/b"}), "bad_field"),
    "an account with a slash": (event(account_id="a/b"), "bad_field"),
    "external_id too long": (event(external_id="x" * 37), "bad_field"),
    "user_data too long": (event(user_data="x" * 129), "bad_field"),
    "gender 2": (event(gender=2), "bad_field"),
    "emotion 0": (event(emotion=0), "bad_field"),
    "emotion 8": (event(emotion=8), "bad_field"),
    "ethnic_group 5": (event(ethnic_group=5), "bad_field"),
    "mask 0": (event(mask=0), "bad_field"),
    "liveness 3": (event(liveness=3), "bad_field"),
    "age -1": (event(age=-1), "bad_field"),
    "a time without offset": (event(create_time="2026-05-01T10:00:00"), "bad_field"),
    "a time beyond UTC": (event(create_time="0001-01-01T00:00:00+10:00"), "bad_field"),
    "half a position": (event(location={"geo_position": {"latitude": 1.0}}), "missing_field"),
    "latitude 91": (event(location={"geo_position": {"latitude": 91, "longitude": 0}}), "bad_field"),
    "similarity 2": (event(top_match={"similarity": 2}), "bad_field"),
    "list_ids of an event": (event(list_ids=["l"]), "bad_field"),
    "meta too deep": (event(meta=json.loads("[" * 65 + "]" * 65)), "bad_field"),
    "meta beyond 64 bits": (event(meta=2**64), "bad_field"),
    "meta with bytes": (msgspec.msgpack.encode(event(meta={"a": b"x"})), "bad_field"),
    "meta with NaN": (msgspec.msgpack.encode(event(meta=float("nan"))), "bad_field"),
    "meta with a number as key": (msgspec.msgpack.encode(event(meta={1: 2})), "bad_field"),
    "a number out of range": (
        b'{"account_id":"acme","event_id":"e","descriptors":[],"meta":1e999}',
        "bad_field",
    ),
    "an unknown descriptor type": (event(descriptors=[face(type="hand")]), "bad_field"),
    "two descriptors of a space": (event(descriptors=[face(), face()]), "bad_field"),
    "a body of a face": (
        event(object_type="face", face_id="f", descriptors=[face(type="body")]),
        "bad_field",
    ),
    "no base64": (event(descriptors=[face(data="*")]), "bad_field"),
    "half a float": (event(descriptors=[face(data=b"12345")]), "bad_field"),
    "a fraction in int8": (event(descriptors=[face(encoding="int8", data=[1.5])]), "bad_field"),
    "256 in uint8": (event(descriptors=[face(encoding="uint8", data=[256])]), "bad_field"),
    "sdk without header": (event(descriptors=[face(encoding="sdk", data=b"12345678")]), "bad_field"),
    "an image URL": (event(descriptors=[face(image="http://x/y.jpg")]), "bad_field"),
    "an absolute image": (event(descriptors=[face(image="/etc/passwd")]), "bad_field"),
    "an image above its root": (event(descriptors=[face(image="a/../../b")]), "bad_field"),
    "a quality that is infinite": (
        msgspec.msgpack.encode(event(descriptors=[face(quality=float("inf"))])),
        "bad_field",
    ),
    "an update with descriptors": (event(action="update"), "bad_field"),
    "descriptors absent": ({"account_id": "acme", "event_id": "e"}, "no_descriptor"),
    "descriptors null": (event(descriptors=None), "no_descriptor"),
    "descriptors empty": (event(descriptors=[]), "no_descriptor"),
    "an empty vector": (event(descriptors=[face(data=b"")]), "wrong_dimension"),
    "an empty list": (event(descriptors=[face(data=[])]), "wrong_dimension"),
    "4097 values": (event(descriptors=[face(encoding="int8", data=b"1" * 4097)]), "wrong_dimension"),
    "NaN": (event(descriptors=[face(data=NAN)]), "not_finite"),
    "infinity in float16": (event(descriptors=[face(encoding="float16", data=INF)]), "not_finite"),
    "a number beyond float32": (event(descriptors=[face(data=[1e39])]), "not_finite"),
    "float zeros": (event(descriptors=[face(data=bytes(8))]), "zero_vector"),
    "floats too small to scale": (event(descriptors=[face(data=[1e-38, 0])]), "zero_vector"),
    "int8 zeros": (event(descriptors=[face(encoding="int8", data=bytes(8))]), "zero_vector"),
    "uint8 all at the offset": (event(descriptors=[face(encoding="uint8", data=[128, 128])]), "zero_vector"),
    "an unknown encoding": (event(descriptors=[face(encoding="float64")]), "unsupported_encoding"),
    "another version in the data": (
        event(descriptors=[face(encoding="sdk", version=61, data=SDK)]),
        "version_mismatch",
    ),
    "too many bytes": (b" " * (RULES.max_message_bytes + 1), "too_large"),
}


@pytest.mark.parametrize("name", REJECTED)
def test_a_bad_record_is_rejected_with_its_reason(name):
    value, reason = REJECTED[name]
    result = decode(value)
    assert isinstance(result, Rejection), result
    assert result.reason == reason
    assert result.detail
    if isinstance(value, dict):
        legible = value.get("account_id") == "acme"
        assert result.account_id == ("acme" if legible else None)


def test_the_table_of_bad_records_reaches_every_reason_of_the_decoder():
    assert {reason for _, reason in REJECTED.values()} == set(Reason) - {Reason.WRONG_PARTITION}


def test_a_record_outside_its_accounts_partition_is_rejected():
    rules = DecodeRules(lambda account: partition_for(account, 12, "murmur2"), 1 << 20, 128)
    home = partition_for("acme", 12, "murmur2")
    results = decode_events([record(event(), partition=p) for p in range(12)], rules)
    assert [p for p, result in enumerate(results) if isinstance(result, ObjectMessage)] == [home]
    assert {result.reason for p, result in enumerate(results) if p != home} == {Reason.WRONG_PARTITION}


def test_good_and_bad_records_of_a_batch_keep_their_places():
    zero = event(event_id="z", descriptors=[face(), face(version=63, data=bytes(12))])
    long = event(event_id="l", descriptors=[face(data=[1.0] * 7)])
    values = [event(), b"{", zero, long, event(event_id="e2")]
    results = decode_events([record(value) for value in values], RULES)
    shown = [r.object_id if isinstance(r, ObjectMessage) else r.reason.value for r in results]
    assert shown == ["e1", "undecodable", "zero_vector", "l", "e2"]
    np.testing.assert_array_equal(results[4].descriptors[0].vector, FLOATS)


def test_an_empty_batch_gives_nothing():
    assert decode_events([], RULES) == []


def test_vectors_cannot_be_written_to():
    vector = accepted(event()).descriptors[0].vector
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


def test_the_account_is_read_from_a_record_that_is_wrong_elsewhere():
    assert read_account_id(b'{"account_id":"acme","age":"x"}') == "acme"
    assert read_account_id(b'{"account_id":"a/b"}') is None
    assert read_account_id(b"{") is None


def test_an_update_that_clears_a_location_survives_encoding():
    value = {"event_id": "e", "account_id": "a", "action": "update", "location": None, "tags": [], "meta": {}}
    message = accepted(value)
    assert accepted(encode_object(message)) == message
    assert message.metadata == Metadata(tags=(), meta={})


def test_a_huge_value_is_not_repeated_in_the_detail():
    value = json.dumps({"account_id": "a", "event_id": "e", "action": "x" * 500_000}).encode()
    (rejection,) = decode_events(
        [RawRecord("events", 0, 0, 0, None, value, None)], DecodeRules(None, 1 << 20, 128)
    )
    assert rejection.reason == "bad_field"
    assert len(rejection.detail) < 500
    assert rejection.detail.endswith("`$.action`")

"""Wire fields to `Metadata`: the checks that a type cannot express."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from stream_cluster.messages.objects import MAX_JSON_DEPTH, Metadata, TopMatch
from stream_cluster.messages.record import Reason
from stream_cluster.messages.times import to_us
from stream_cluster.messages.vectors import Refused
from stream_cluster.messages.wire import WireBodyAttributes, WireLocation, WireObject
from stream_cluster.messages.wireform import is_legal_id
from stream_cluster.model import ObjectType

_PLACES = ("city", "area", "district", "street", "house_number", "longitude", "latitude")
_BODY = ("headwear", "clothing", "backpack")
_SPREAD: Mapping[str, tuple[str, ...]] = {
    "create_time": ("create_time_us",),
    "end_time": ("end_time_us",),
    "location": _PLACES,
    "body_attributes": _BODY,
}
"""Wire fields that become other fields of `Metadata`."""

_NO_LOCATION = WireLocation()
_NO_BODY = WireBodyAttributes()


def check_id(name: str, text: str) -> None:
    """Raises Refused unless `text` is a legal id."""
    if not is_legal_id(text):
        raise Refused(
            Reason.BAD_FIELD, f"found an illegal {name}, expected printable characters but / and \\"
        )


def metadata_of(wire: WireObject, object_type: ObjectType) -> Metadata:
    """The object's metadata. Raises Refused."""
    _check_references(wire, object_type)
    reference = wire.face_id if object_type == "event" else wire.event_id
    place = wire.location or _NO_LOCATION
    position = place.geo_position
    body = wire.body_attributes or _NO_BODY
    return Metadata(
        create_time_us=None if wire.create_time is None else _time("create_time", wire.create_time),
        end_time_us=None if wire.end_time is None else _time("end_time", wire.end_time),
        track_id=wire.track_id,
        handler_id=wire.handler_id,
        source=wire.source,
        stream_id=wire.stream_id,
        frame_id=wire.frame_id,
        external_id=wire.external_id,
        user_data=wire.user_data,
        tags=None if wire.tags is None else tuple(wire.tags),
        meta=_free("meta", wire.meta),
        face_id=reference if object_type == "event" else None,
        event_id=reference if object_type == "face" else None,
        list_ids=_ids("list_ids", wire.list_ids),
        avatar=wire.avatar,
        gender=wire.gender,
        age=wire.age,
        emotion=wire.emotion,
        ethnic_group=wire.ethnic_group,
        mask=wire.mask,
        liveness=wire.liveness,
        city=place.city,
        area=place.area,
        district=place.district,
        street=place.street,
        house_number=place.house_number,
        longitude=None if position is None else position.longitude,
        latitude=None if position is None else position.latitude,
        top_match=None if wire.top_match is None else _top_match(wire),
        match_result=_free("match_result", wire.match_result),
        face_detections=_free("face_detections", wire.face_detections),
        attach_result=_free("attach_result", wire.attach_result),
        headwear=None if body.headwear is None else tuple(body.headwear),
        clothing=None if body.clothing is None else tuple(body.clothing),
        backpack=None if body.backpack is None else tuple(body.backpack),
    )


def _check_references(wire: WireObject, object_type: ObjectType) -> None:
    """Ids of other things that the object refers to, and fields that only faces have. Raises Refused."""
    if wire.track_id is not None:
        check_id("track_id", wire.track_id)
    if wire.handler_id is not None:
        check_id("handler_id", wire.handler_id)
    if wire.stream_id is not None:
        check_id("stream_id", wire.stream_id)
    if wire.frame_id is not None:
        check_id("frame_id", wire.frame_id)
    if object_type == "event" and (wire.list_ids is not None or wire.avatar is not None):
        raise Refused(Reason.BAD_FIELD, "found list_ids or avatar of an event, expected them of faces only")
    reference, name = (wire.face_id, "face_id") if object_type == "event" else (wire.event_id, "event_id")
    if reference is not None:
        check_id(name, reference)


def updated_fields(message: Iterable[str], object_type: ObjectType) -> frozenset[str]:
    """The fields of `Metadata` that a message with these wire fields sets or, by null, clears."""
    own_id = f"{object_type}_id"
    faces_only = () if object_type == "face" else ("list_ids", "avatar")
    named = {field for name in message if name != own_id for field in _SPREAD.get(name, (name,))}
    return frozenset(named.intersection(Metadata.__struct_fields__).difference(faces_only))


def _time(name: str, time: datetime) -> int:
    try:
        return to_us(time)
    except ValueError as error:
        raise Refused(Reason.BAD_FIELD, f"{name}: {error}") from error


def _ids(name: str, ids: list[str] | None) -> tuple[str, ...] | None:
    if ids is None:
        return None
    for text in ids:
        check_id(name, text)
    return tuple(ids)


def _top_match(wire: WireObject) -> TopMatch:
    match = wire.top_match
    assert match is not None
    if match.object_id is not None:
        check_id("top_match.object_id", match.object_id)
    return TopMatch(
        object_id=match.object_id,
        label=match.label,
        similarity=match.similarity,
        external_id=match.external_id,
    )


def _free(name: str, value: Any) -> Any:
    """Free JSON that every encoder and store takes, and as it was sent. Raises Refused."""
    if value is not None:
        problem = json_problem(value, MAX_JSON_DEPTH)
        if problem is not None:
            raise Refused(Reason.BAD_FIELD, f"{name}: found {problem}")
    return value


def json_problem(value: Any, depth: int) -> str | None:
    """What keeps `value` from being plain JSON at most `depth` levels deep; None when nothing does.

    MessagePack carries bytes, times, NaN and keys of any type, none of which JSON has.
    """
    if isinstance(value, dict | list):
        if depth == 0:
            return f"nesting, expected at most {MAX_JSON_DEPTH} levels"
        if isinstance(value, dict) and not all(isinstance(key, str) for key in value):
            return "a key that is not text, expected JSON"
        items = value.values() if isinstance(value, dict) else value
        return next(
            (problem for item in items if (problem := json_problem(item, depth - 1)) is not None), None
        )
    if isinstance(value, float):
        return None if math.isfinite(value) else "a number that is not finite, expected JSON"
    if isinstance(value, int):
        return None if -(2**63) <= value < 2**64 else "an integer beyond 64 bits, expected a smaller one"
    return None if value is None or isinstance(value, str) else f"{type(value).__name__}, expected JSON"

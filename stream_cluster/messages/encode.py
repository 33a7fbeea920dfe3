"""Objects to wire bytes: what producers and generators send. The inverse of `decode_events`."""

from __future__ import annotations

from typing import Any

import numpy as np

from stream_cluster.messages.objects import Descriptor, Metadata, ObjectMessage
from stream_cluster.messages.record import JSON
from stream_cluster.messages.times import format_time
from stream_cluster.messages.wire import WireObject
from stream_cluster.messages.wireform import encode_wire

_SAME_NAME = tuple(name for name in Metadata.__struct_fields__ if name in WireObject.__struct_fields__)
_PLACES = ("city", "area", "district", "street", "house_number")
_LOCATION = (*_PLACES, "longitude", "latitude")
_BODY = ("headwear", "clothing", "backpack")


def encode_object(message: ObjectMessage, content_type: str = JSON) -> bytes:
    """Wire bytes of an object. Vectors go as float32 or int8: base64 in JSON, bin in MessagePack.

    Decoding them with any rules gives the message again; an update names a location as a whole.
    """
    return encode_wire(object_fields(message), content_type)


def object_fields(message: ObjectMessage) -> dict[str, Any]:
    """The wire fields of an object as plain values; `data` is bytes, `tags` and the like are tuples."""
    kind = message.object_type
    fields: dict[str, Any] = {"account_id": message.account_id}
    if kind != "event":
        fields["object_type"] = kind
    if message.action != "upsert":
        fields["action"] = message.action
    if message.action == "delete":
        return fields | _deleted(message)
    fields[f"{kind}_id"] = message.object_id
    fields |= _metadata_fields(message.metadata)
    if message.action == "update":
        return fields | _cleared(message)
    return fields | {"descriptors": [_descriptor_fields(descriptor) for descriptor in message.descriptors]}


def _deleted(message: ObjectMessage) -> dict[str, Any]:
    """What a delete is about."""
    if not message.everything:
        return {f"{message.object_type}_ids": message.object_ids}
    # Both types are meant when none is named.
    one = {"object_type": message.object_type} if len(message.everything) == 1 else {}
    return {"everything": True, **one}


def _metadata_fields(metadata: Metadata) -> dict[str, Any]:
    """Fields that the object has."""
    position = None
    if metadata.longitude is not None:
        position = {"longitude": metadata.longitude, "latitude": metadata.latitude}
    fields: dict[str, Any] = {
        "create_time": None if metadata.create_time_us is None else format_time(metadata.create_time_us),
        "end_time": None if metadata.end_time_us is None else format_time(metadata.end_time_us),
        **{name: getattr(metadata, name) for name in _SAME_NAME},
        "location": _without_none(
            {name: getattr(metadata, name) for name in _PLACES} | {"geo_position": position}
        )
        or None,
        "body_attributes": _without_none({name: getattr(metadata, name) for name in _BODY}) or None,
    }
    return _without_none(fields)


def _cleared(message: ObjectMessage) -> dict[str, None]:
    """Wire fields that an update sets to null."""
    metadata, cleared = message.metadata, dict[str, None]()
    for name in sorted(message.updated_fields):
        if getattr(metadata, name) is not None:
            continue
        group = _LOCATION if name in _LOCATION else _BODY
        if name in group:
            if any(getattr(metadata, other) is not None for other in group):
                continue  # the group is sent as a whole, which clears this part of it
            cleared["body_attributes" if group is _BODY else "location"] = None
        else:
            cleared[name.removesuffix("_us")] = None
    return cleared


def _descriptor_fields(descriptor: Descriptor) -> dict[str, Any]:
    vector = descriptor.vector
    encoding = "int8" if vector.dtype == np.int8 else "float32"
    optional = {name: getattr(descriptor, name) for name in ("attribute_id", "image", "quality")}
    return {
        "type": descriptor.type,
        "version": descriptor.version,
        "encoding": encoding,
        "data": vector.astype("i1" if encoding == "int8" else "<f4", copy=False).tobytes(),
        **_without_none(optional),
    }


def _without_none(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}

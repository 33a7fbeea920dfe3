"""Records of the events topic to objects or rejections. Pure; never raises, whatever the bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import UNSET

from stream_cluster.messages.metadata import check_id, metadata_of, updated_fields
from stream_cluster.messages.objects import Action, Descriptor, Metadata, ObjectMessage, Vector
from stream_cluster.messages.record import RawRecord, Reason, Rejection
from stream_cluster.messages.vectors import Kind, Refused, VectorBatch, payload_of
from stream_cluster.messages.wire import WireDescriptor, WireObject
from stream_cluster.messages.wireform import BAD_BYTES, Decoders, decode_loosely, read_account_id, verdict
from stream_cluster.model import ObjectType

_OBJECT: Decoders[WireObject] = Decoders(WireObject)
_NO_FIELDS: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class DecodeRules:
    """What decoding depends on beside the bytes."""

    partition_of: Callable[[str], int] | None
    """The partition where an account's records belong; None does not check (files have no partitions)."""
    max_message_bytes: int
    uint8_offset: int


class _Pending(NamedTuple):
    """An object whose vectors are not checked yet."""

    account_id: str
    object_type: ObjectType
    action: Action
    object_ids: tuple[str, ...]
    metadata: Metadata
    updated: frozenset[str]
    descriptors: list[WireDescriptor]
    places: list[int]
    """Place of each descriptor in the vector batch."""
    everything: tuple[ObjectType, ...] = ()


def decode_events(records: Sequence[RawRecord], rules: DecodeRules) -> list[ObjectMessage | Rejection]:
    """One result per record, in order. Vectors of equal kind and length are checked together."""
    batch = VectorBatch(rules.uint8_offset)
    pending = [_decode(record, rules, batch) for record in records]
    vectors = batch.finish()
    return [_complete(item, vectors) if isinstance(item, _Pending) else item for item in pending]


def _decode(record: RawRecord, rules: DecodeRules, batch: VectorBatch) -> _Pending | Rejection:
    value = record.value
    if value is None:
        return Rejection(Reason.UNDECODABLE, "found a record without a value", None)
    if len(value) > rules.max_message_bytes:
        detail = f"found {len(value)} bytes, expected at most {rules.max_message_bytes}"
        return Rejection(Reason.TOO_LARGE, detail, None)
    try:
        wire = _OBJECT.decode(value, record.content_type)
    except BAD_BYTES as error:
        refused = verdict(value, record.content_type, error)
        account_id = (
            None if refused.reason is Reason.UNDECODABLE else read_account_id(value, record.content_type)
        )
        return Rejection(refused.reason, refused.detail, account_id)
    account_id = None
    try:
        check_id("account_id", wire.account_id)
        account_id = wire.account_id
        if rules.partition_of is not None and rules.partition_of(account_id) != record.partition:
            expected = rules.partition_of(account_id)
            detail = f"found partition {record.partition}, expected {expected} for the account"
            raise Refused(Reason.WRONG_PARTITION, detail)
        return _pending(wire, record, batch)
    except Refused as refused:
        return Rejection(refused.reason, refused.detail, account_id)


def _pending(wire: WireObject, record: RawRecord, batch: VectorBatch) -> _Pending:
    """Everything but the vectors' values. Raises Refused."""
    if wire.action == "delete":
        return _deletion(wire)
    object_type = "event" if wire.object_type is UNSET else wire.object_type
    object_id = wire.event_id if object_type == "event" else wire.face_id
    if object_id is None:
        raise Refused(
            Reason.MISSING_FIELD, f"found no {object_type}_id, expected the id of the {object_type}"
        )
    check_id(f"{object_type}_id", object_id)
    metadata = metadata_of(wire, object_type)
    descriptors = wire.descriptors or []
    updated = _NO_FIELDS
    if wire.action == "update":
        if descriptors:
            raise Refused(Reason.BAD_FIELD, "found descriptors in an update, expected metadata only")
        assert record.value is not None
        updated = updated_fields(decode_loosely(record.value, record.content_type), object_type)
    elif not descriptors:
        raise Refused(Reason.NO_DESCRIPTOR, "found no descriptor, expected at least one")
    payloads = _payloads(descriptors, object_type)
    places = [batch.add(kind, payload) for kind, payload in payloads]
    return _Pending(
        wire.account_id, object_type, wire.action, (object_id,), metadata, updated, descriptors, places
    )


def _payloads(descriptors: list[WireDescriptor], object_type: ObjectType) -> list[tuple[Kind, bytes]]:
    """Payload of each descriptor; none is taken by the batch unless all are good. Raises Refused."""
    if len(descriptors) > 1 and len({(d.type, d.version) for d in descriptors}) < len(descriptors):
        raise Refused(Reason.BAD_FIELD, "found two descriptors of one type and version, expected one")
    for descriptor in descriptors:
        if object_type == "face" and descriptor.type == "body":
            raise Refused(
                Reason.BAD_FIELD, "found a body descriptor of a face, expected face descriptors only"
            )
        if descriptor.attribute_id is not None:
            check_id("attribute_id", descriptor.attribute_id)
        if descriptor.image is not None:
            _check_image(descriptor.image)
        if descriptor.quality is not None and not math.isfinite(descriptor.quality):
            raise Refused(Reason.BAD_FIELD, "found a quality that is not finite, expected a finite number")
    return [payload_of(descriptor) for descriptor in descriptors]


def _check_image(image: str) -> None:
    """An image is looked up below the image roots, so nothing that points elsewhere is taken."""
    if not image.isprintable() or "\\" in image or "://" in image or image[:1] in {"", "/"}:
        raise Refused(
            Reason.BAD_FIELD, "found an image that is no relative path, expected a path below a root"
        )
    if ".." in image and ".." in image.split("/"):
        raise Refused(Reason.BAD_FIELD, "found .. in an image, expected a path below a root")


def _deletion(wire: WireObject) -> _Pending:
    """Raises Refused."""
    if not wire.everything:
        object_type, object_ids = _deleted(wire)
        return _Pending(wire.account_id, object_type, "delete", object_ids, Metadata(), _NO_FIELDS, [], [])
    if wire.event_ids or wire.face_ids:
        raise Refused(Reason.BAD_FIELD, "found everything beside ids to delete, expected one of them")
    kinds: tuple[ObjectType, ...] = ("event", "face")
    if wire.object_type is not UNSET:
        kinds = (wire.object_type,)
    return _Pending(wire.account_id, kinds[0], "delete", (), Metadata(), _NO_FIELDS, [], [], kinds)


def _deleted(wire: WireObject) -> tuple[ObjectType, tuple[str, ...]]:
    """The type and ids of a delete; the type may be left to the name of the list. Raises Refused."""
    if wire.event_ids and wire.face_ids:
        raise Refused(Reason.BAD_FIELD, "found event_ids and face_ids, expected one of them")
    object_type: ObjectType = "face" if wire.face_ids else "event"
    if wire.object_type is not UNSET:
        object_type = wire.object_type
    object_ids = wire.event_ids if object_type == "event" else wire.face_ids
    if not object_ids:
        raise Refused(
            Reason.MISSING_FIELD, f"found no {object_type}_ids, expected the {object_type}s to delete"
        )
    for object_id in object_ids:
        check_id(f"{object_type}_ids", object_id)
    return object_type, tuple(dict.fromkeys(object_ids))


def _complete(item: _Pending, vectors: list[Vector | Refused]) -> ObjectMessage | Rejection:
    descriptors = []
    for wire, place in zip(item.descriptors, item.places, strict=True):
        vector = vectors[place]
        if isinstance(vector, Refused):
            return Rejection(vector.reason, vector.detail, item.account_id)
        descriptors.append(
            Descriptor(wire.type, wire.version, vector, wire.attribute_id, wire.image, wire.quality)
        )
    return ObjectMessage(
        account_id=item.account_id,
        object_type=item.object_type,
        action=item.action,
        object_ids=item.object_ids,
        metadata=item.metadata,
        descriptors=tuple(descriptors),
        updated_fields=item.updated,
        everything=item.everything,
    )

"""The wire form of an object: the schema that decoding enforces and `stream-cluster schema` prints.

Unknown fields are ignored. Null means absent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from stream_cluster.messages.times import AwareTime
from stream_cluster.model import DescriptorType, ObjectType

ID_PATTERN = r"^(?!\.{1,2}$)[^/\\\u0000-\u001f\u007f]{1,128}$"

Id = Annotated[
    str, Meta(min_length=1, max_length=128, extra_json_schema={"pattern": ID_PATTERN}, description="An id.")
]
ExternalId = Annotated[str, Meta(max_length=36)]
UserData = Annotated[str, Meta(max_length=128)]
Text = Annotated[str, Meta(max_length=1024)]
Version = Annotated[int, Meta(ge=0, le=2**32 - 1)]
AttributeValue = Annotated[str, Meta(max_length=128)] | Annotated[int, Meta(ge=0, le=2**31 - 1)]
Time = Annotated[AwareTime, Meta(description="RFC 3339 with offset; in MessagePack also a timestamp.")]
Similarity = Annotated[float, Meta(ge=0, le=1)]
Longitude = Annotated[float, Meta(ge=-180, le=180)]
Latitude = Annotated[float, Meta(ge=-90, le=90)]


class WireDescriptor(Struct, frozen=True, gc=False):
    """A descriptor: an embedding vector of one model version."""

    type: DescriptorType
    version: Version
    encoding: Annotated[
        str,
        Meta(
            description="float32, float16 (little-endian), int8, uint8 (less an offset), or sdk.",
            # Not a Literal: an unknown encoding has a reason of its own.
            extra_json_schema={"enum": ["float32", "float16", "int8", "uint8", "sdk"]},
        ),
    ]
    data: Annotated[
        bytes | list[float],
        Meta(description="The vector: base64 or numbers in JSON, bin or an array in MessagePack."),
    ]
    attribute_id: Id | None = None
    image: Annotated[Text | None, Meta(description="Path relative to an image root; never a URL.")] = None
    quality: float | None = None


class WireGeoPosition(Struct, frozen=True, gc=False):
    """Degrees, WGS 84."""

    longitude: Longitude
    latitude: Latitude


class WireLocation(Struct, frozen=True, gc=False):
    """Where the object was seen."""

    city: Text | None = None
    area: Text | None = None
    district: Text | None = None
    street: Text | None = None
    house_number: Text | None = None
    geo_position: WireGeoPosition | None = None


class WireTopMatch(Struct, frozen=True, gc=False):
    """The platform's best match."""

    object_id: Id | None = None
    label: Text | None = None
    similarity: Similarity | None = None
    external_id: ExternalId | None = None


class WireBodyAttributes(Struct, frozen=True, gc=False):
    """Body attributes: for each the values that hold, as names or the platform's numbers."""

    headwear: list[AttributeValue] | None = None
    clothing: list[AttributeValue] | None = None
    backpack: list[AttributeValue] | None = None


class WireObject(Struct, frozen=True, kw_only=True):
    """An event or a face: upsert (the default), update of metadata, or delete."""

    account_id: Id
    object_type: ObjectType | UnsetType = UNSET
    action: Literal["upsert", "update", "delete"] = "upsert"
    event_id: Annotated[Id | None, Meta(description="The object's id when it is an event.")] = None
    face_id: Annotated[Id | None, Meta(description="The object's id when it is a face.")] = None
    event_ids: Annotated[list[Id] | None, Meta(description="Events to delete.")] = None
    face_ids: Annotated[list[Id] | None, Meta(description="Faces to delete.")] = None
    everything: Annotated[
        bool | None,
        Meta(
            description="With delete, in place of ids: all objects of the account, or those of object_type "
            "when it is given."
        ),
    ] = None
    create_time: Time | None = None
    end_time: Time | None = None
    track_id: Id | None = None
    handler_id: Id | None = None
    source: Text | None = None
    stream_id: Id | None = None
    frame_id: Annotated[
        Id | None,
        Meta(description="The picture of its source that the object was found in, among others perhaps."),
    ] = None
    external_id: ExternalId | None = None
    user_data: UserData | None = None
    tags: list[Text] | None = None
    meta: Annotated[Any, Meta(description="Free JSON.")] = None
    list_ids: Annotated[list[Id] | None, Meta(description="Faces only.")] = None
    avatar: Annotated[Text | None, Meta(description="Faces only.")] = None
    gender: Annotated[Literal[0, 1] | None, Meta(description="0 female, 1 male.")] = None
    age: Annotated[int, Meta(ge=0, le=200)] | None = None
    emotion: Annotated[
        Literal[1, 2, 3, 4, 5, 6, 7] | None,
        Meta(description="1 anger, 2 disgust, 3 fear, 4 happiness, 5 neutral, 6 sadness, 7 surprise."),
    ] = None
    ethnic_group: Annotated[
        Literal[1, 2, 3, 4] | None, Meta(description="1 african_american, 2 indian, 3 asian, 4 caucasian.")
    ] = None
    mask: Annotated[Literal[1, 2, 3] | None, Meta(description="1 missing, 2 medical_mask, 3 occluded.")] = (
        None
    )
    liveness: Annotated[Literal[0, 1, 2] | None, Meta(description="0 spoof, 1 real, 2 unknown.")] = None
    location: WireLocation | None = None
    top_match: WireTopMatch | None = None
    match_result: Annotated[Any, Meta(description="Free JSON, kept for reports.")] = None
    face_detections: Annotated[Any, Meta(description="Free JSON, kept for reports.")] = None
    attach_result: Annotated[Any, Meta(description="Free JSON, kept for reports.")] = None
    body_attributes: WireBodyAttributes | None = None
    descriptors: list[WireDescriptor] | None = None

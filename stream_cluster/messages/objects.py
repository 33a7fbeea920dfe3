"""Objects in the form that the rest of the program works with, whatever their wire form was."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from stream_cluster.model import DescriptorType, ObjectType

Action = Literal["upsert", "update", "delete"]

Vector = npt.NDArray[np.float32] | npt.NDArray[np.int8]
"""1-D, 1 to 4096 values, read-only. float32: finite, not all zero. int8: in [-127, 127], not all zero."""


class TopMatch(Struct, frozen=True, kw_only=True):
    """The best match that the recognition platform found for the object. Wire form is the same."""

    object_id: str | None = None
    label: str | None = None
    similarity: float | None = None
    """In [0, 1], on the platform's own scale."""
    external_id: str | None = None


class Metadata(Struct, frozen=True, kw_only=True):
    """What an object carries beside its id and descriptors. None means that the object lacks the field.

    Free JSON holds only None, bool, int of 64 bits, finite float, str, list and dict with str keys, at most
    `MAX_JSON_DEPTH` levels deep.
    """

    create_time_us: int | None = None
    """Microseconds since the epoch, UTC."""
    end_time_us: int | None = None
    track_id: str | None = None
    handler_id: str | None = None
    source: str | None = None
    stream_id: str | None = None
    frame_id: str | None = None
    """The picture of its source that the object was found in."""
    external_id: str | None = None
    user_data: str | None = None
    tags: tuple[str, ...] | None = None
    meta: Any = None
    """Free JSON."""
    face_id: str | None = None
    """Of an event: the face it was attached to. None for a face, whose id it would be."""
    event_id: str | None = None
    """Of a face: the event it came from. None for an event, whose id it would be."""
    list_ids: tuple[str, ...] | None = None
    """Faces only, like `avatar`."""
    avatar: str | None = None
    gender: int | None = None
    """0 female, 1 male."""
    age: int | None = None
    emotion: int | None = None
    """1 anger, 2 disgust, 3 fear, 4 happiness, 5 neutral, 6 sadness, 7 surprise."""
    ethnic_group: int | None = None
    """1 african_american, 2 indian, 3 asian, 4 caucasian."""
    mask: int | None = None
    """1 missing, 2 medical_mask, 3 occluded."""
    liveness: int | None = None
    """0 spoof, 1 real, 2 unknown."""
    city: str | None = None
    area: str | None = None
    district: str | None = None
    street: str | None = None
    house_number: str | None = None
    longitude: float | None = None
    """Degrees in [-180, 180]; set together with `latitude`."""
    latitude: float | None = None
    """Degrees in [-90, 90]."""
    top_match: TopMatch | None = None
    match_result: Any = None
    """Free JSON, kept for reports, like the next two."""
    face_detections: Any = None
    attach_result: Any = None
    headwear: tuple[str | int, ...] | None = None
    """Values of the body attribute, names or the platform's numbers; filters ask for any of them."""
    clothing: tuple[str | int, ...] | None = None
    backpack: tuple[str | int, ...] | None = None


class Descriptor(Struct, frozen=True, eq=False, gc=False):
    """An embedding vector of one model version."""

    type: DescriptorType
    version: int
    vector: Vector
    """float32 from float32 and float16; int8 from int8, uint8 and sdk, the offset already subtracted.

    It may be a view of a block shared by the descriptors decoded with it: copy what is kept for long.
    """
    attribute_id: str | None = None
    image: str | None = None
    """Path relative to an image root."""
    quality: float | None = None


class ObjectMessage(Struct, frozen=True, kw_only=True):
    """One decoded record of the events topic."""

    account_id: str
    object_type: ObjectType
    action: Action
    object_ids: tuple[str, ...]
    """One id for upsert and update; without repetition for delete, and none with `everything`."""
    metadata: Metadata
    descriptors: tuple[Descriptor, ...]
    """At least one for upsert, at most one per type and version; empty otherwise."""
    updated_fields: frozenset[str] = frozenset()
    """For update: the fields of `Metadata` that the message names; one named as null is None there."""
    everything: tuple[ObjectType, ...] = ()
    """For delete: all of the account's objects of these types are meant; `object_type` is the first."""

    @property
    def object_id(self) -> str:
        """The id of an upsert or an update."""
        return self.object_ids[0]


MAX_JSON_DEPTH = 64

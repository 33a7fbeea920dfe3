"""The selection filters of a task.

`__gte` is inclusive, `__lt` exclusive. A list means "any of"; different filters combine with "and". Null
selects the objects that lack the field, which is not the same as an absent filter (`msgspec.UNSET`).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from stream_cluster.messages.meta import meta_paths
from stream_cluster.messages.metadata import json_problem
from stream_cluster.messages.objects import MAX_JSON_DEPTH
from stream_cluster.messages.times import resolve_time
from stream_cluster.messages.wire import (
    AttributeValue,
    ExternalId,
    Id,
    Latitude,
    Longitude,
    Similarity,
    Text,
    UserData,
)
from stream_cluster.model import ObjectType

Ids = list[Id] | None | UnsetType
Texts = list[Text] | None | UnsetType
Attributes = list[AttributeValue] | None | UnsetType
FilterTime = Annotated[str, Meta(description="RFC 3339 with offset, now, or now-<n><s|m|h|d|w|M|y>.")]
Age = Annotated[int, Meta(ge=0, le=1000)]
Gender = Literal[0, 1]
Liveness = Literal[0, 1, 2]


class GeoBox(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A box of the globe, degrees. With longitude__gte above longitude__lt it crosses the 180th meridian."""

    longitude__gte: Longitude
    longitude__lt: Longitude
    latitude__gte: Latitude
    latitude__lt: Latitude


class Filters(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every filter, of events and of faces. Those of the other type are unknown fields."""

    event_ids: Ids = UNSET
    event_id__gte: Id | UnsetType | None = UNSET
    event_id__lt: Id | UnsetType | None = UNSET
    face_ids: Annotated[Ids, Meta(description="Faces: their ids. Events: the faces they refer to.")] = UNSET
    face_id__gte: Id | UnsetType | None = UNSET
    face_id__lt: Id | UnsetType | None = UNSET
    list_id: Id | list[Id] | UnsetType | None = UNSET
    create_time__gte: FilterTime | UnsetType | None = UNSET
    create_time__lt: FilterTime | UnsetType | None = UNSET
    end_time__gte: FilterTime | UnsetType | None = UNSET
    end_time__lt: FilterTime | UnsetType | None = UNSET
    handler_ids: Ids = UNSET
    sources: Texts = UNSET
    stream_ids: Ids = UNSET
    track_ids: Ids = UNSET
    external_ids: list[ExternalId] | UnsetType | None = UNSET
    attribute_ids: Ids = UNSET
    user_data: UserData | list[UserData] | UnsetType | None = UNSET
    tags: Texts = UNSET
    meta: Annotated[
        dict[str, Any] | UnsetType | None,
        Meta(description="Paths into meta, joined by dots or nested, and their values; null: no such path."),
    ] = UNSET
    gender: Gender | list[Gender] | UnsetType | None = UNSET
    age__gte: Age | UnsetType | None = UNSET
    age__lt: Age | UnsetType | None = UNSET
    emotions: list[Literal[1, 2, 3, 4, 5, 6, 7]] | UnsetType | None = UNSET
    ethnic_groups: list[Literal[1, 2, 3, 4]] | UnsetType | None = UNSET
    masks: list[Literal[1, 2, 3]] | UnsetType | None = UNSET
    liveness: Liveness | list[Liveness] | UnsetType | None = UNSET
    headwear: Attributes = UNSET
    clothing: Attributes = UNSET
    backpack: Attributes = UNSET
    top_matching_candidates_label: Text | list[Text] | UnsetType | None = UNSET
    top_similar_object_ids: Ids = UNSET
    top_similar_external_ids: list[ExternalId] | UnsetType | None = UNSET
    top_similar_object_similarity__gte: Similarity | UnsetType | None = UNSET
    top_similar_object_similarity__lt: Similarity | UnsetType | None = UNSET
    cities: Texts = UNSET
    areas: Texts = UNSET
    districts: Texts = UNSET
    streets: Texts = UNSET
    house_numbers: Texts = UNSET
    geo_position: GeoBox | UnsetType | None = UNSET
    quality__gte: Annotated[
        float | UnsetType | None, Meta(description="Least quality of the descriptor.")
    ] = UNSET

    def given(self) -> dict[str, Any]:
        """The filters that the task names, by name, in the order of the fields. Null is None.

        The single value of a filter that also takes a list is a list of one; times stay text.
        """
        named = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: _listed(name, value) for name, value in named if value is not UNSET}


_ONE_OR_MORE = frozenset({"list_id", "user_data", "gender", "liveness", "top_matching_candidates_label"})
_TIMES = ("create_time__gte", "create_time__lt", "end_time__gte", "end_time__lt")

FACE_FILTERS = frozenset(
    {
        "face_ids",
        "face_id__gte",
        "face_id__lt",
        "list_id",
        "user_data",
        "external_ids",
        "create_time__gte",
        "create_time__lt",
        "attribute_ids",
        "quality__gte",
    }
)
EVENT_FILTERS = frozenset(Filters.__struct_fields__) - {"face_id__gte", "face_id__lt", "list_id"}


def filters_of(object_type: ObjectType) -> frozenset[str]:
    """Names of the filters that objects of this type know."""
    return EVENT_FILTERS if object_type == "event" else FACE_FILTERS


def filter_problem(filters: Filters) -> str | None:
    """What is wrong with a filter's value beyond its type; None when nothing is."""
    for name in _TIMES:
        value = getattr(filters, name)
        if isinstance(value, str):
            try:
                resolve_time(value, 0)
            except ValueError as error:
                return f"content.filters.{name}: {error}"
    for name, value in filters.given().items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"content.filters.{name}: expected a finite number"
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            return f"content.filters.{name}: found the character U+0000"
    if isinstance(filters.meta, dict) and (problem := _meta_problem(filters.meta)):
        return f"content.filters.meta: {problem}"
    return None if not isinstance(filters.geo_position, GeoBox) else _box_problem(filters.geo_position)


def _meta_problem(meta: dict[str, Any]) -> str | None:
    problem = json_problem(meta, MAX_JSON_DEPTH)
    if problem is not None:
        return f"found {problem}"
    try:
        paths = meta_paths(meta)
    except ValueError as error:
        return str(error)
    if any(isinstance(value, str) and "\0" in value for path in paths for value in path.values):
        return "found the character U+0000"
    return None


def _box_problem(box: GeoBox) -> str | None:
    # NaN, which MessagePack can carry, is in no order.
    if not box.latitude__gte < box.latitude__lt:
        return "content.filters.geo_position: found an empty box, expected latitude__gte below latitude__lt"
    if not (box.longitude__gte < box.longitude__lt or box.longitude__gte > box.longitude__lt):
        return "content.filters.geo_position: found an empty box, expected two different longitudes"
    return None


def _listed(name: str, value: Any) -> Any:
    return [value] if name in _ONE_OR_MORE and value is not None and not isinstance(value, list) else value

"""Selection filters compiled to SQL, values always bound, never spliced.

`DEFINITIONS` is the one table of them: the conditions, the order in which removed objects are attributed, and
the table in docs/messages.md are made from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from stream_cluster.messages import Filters, GeoBox, resolve_time
from stream_cluster.messages.meta import MetaPath, meta_paths
from stream_cluster.model import ObjectType
from stream_cluster.state.view import SpaceRecord


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter as a SQL condition on the `objects` table; where it is NULL, the object does not meet it."""

    name: str
    sql: str
    parameters: tuple[Any, ...]
    by_time: bool = False
    """Whether it bounds `create_time_us`, which the index of a space's objects is sorted by."""


def where_clause(space: SpaceRecord, conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """SQL, and what is bound to it, for the objects of a space that meet all conditions."""
    where = " AND ".join(["space_id = ?", *(condition.sql for condition in conditions)])
    return where, [space.space_id, *(value for condition in conditions for value in condition.parameters)]


# -- kinds of filters: (SQL expression, value, now) to (condition, what is bound to it) ------------------

_Sql = tuple[str, tuple[Any, ...]]


def _any_of(column: str, values: list[Any], _now_us: int) -> _Sql:
    return f"{column} IN (SELECT value FROM json_each(?))", (_json(values),)


def _any_item(column: str, values: list[Any], _now_us: int) -> _Sql:
    listed = f"SELECT 1 FROM json_each({column}) WHERE value IN (SELECT value FROM json_each(?))"
    return f"EXISTS ({listed})", (_json(values),)


def _at_least(column: str, value: Any, _now_us: int) -> _Sql:
    return f"{column} >= ?", (value,)


def _below(column: str, value: Any, _now_us: int) -> _Sql:
    return f"{column} < ?", (value,)


# Numbers in JSON text: the bound one is read by the same routine as the stored one, so equal stays equal.
def _json_at_least(column: str, value: float, _now_us: int) -> _Sql:
    return f"{column} >= json_extract(?, '$')", (_json(value),)


def _json_below(column: str, value: float, _now_us: int) -> _Sql:
    return f"{column} < json_extract(?, '$')", (_json(value),)


def _not_before(column: str, value: str, now_us: int) -> _Sql:
    return _at_least(column, resolve_time(value, now_us), now_us)


def _before(column: str, value: str, now_us: int) -> _Sql:
    return _below(column, resolve_time(value, now_us), now_us)


def _in_box(longitude: str, box: GeoBox, _now_us: int) -> _Sql:
    # The 180th meridian has two names; as -180 it is where a box that crosses it goes on.
    east_of = f"(CASE {longitude} WHEN 180 THEN -180.0 ELSE {longitude} END)"
    both = "AND" if box.longitude__gte < box.longitude__lt else "OR"
    return (
        f"({east_of} >= ? {both} {east_of} < ?) AND latitude >= ? AND latitude < ?",
        (box.longitude__gte, box.longitude__lt, box.latitude__gte, box.latitude__lt),
    )


_SAME_KIND = (
    "(found.type = wanted.type OR found.type IN ('integer', 'real') AND wanted.type IN ('integer', 'real'))"
)


def _at_paths(column: str, meta: dict[str, Any], _now_us: int) -> _Sql:
    parts = [_at_path(column, path) for path in meta_paths(meta)]
    return (
        " AND ".join(f"({sql})" for sql, _ in parts),
        tuple(value for _, parameters in parts for value in parameters),
    )


def _at_path(column: str, path: MetaPath) -> _Sql:
    # Labels in quotes are taken as they are; `meta_paths` lets none pass that would need an escape.
    where = "$" + "".join(f'."{name}"' for name in path.names)
    listed = _json([value for value in path.values if value is not None])
    # Of an object `json_each` would give the values, which stand at longer paths.
    sql = (
        f"json_type({column}, ?) <> 'object' AND EXISTS (SELECT 1 FROM json_each({column}, ?) AS found "
        f"JOIN json_each(?) AS wanted ON found.value = wanted.value AND {_SAME_KIND})"
    )
    if None not in path.values:
        return sql, (where, where, listed)
    return f"coalesce(json_type({column}, ?), 'null') = 'null' OR {sql}", (where, where, where, listed)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


# -- the table ------------------------------------------------------------------------------------------

_EVENTS: tuple[ObjectType, ...] = ("event",)
_FACES: tuple[ObjectType, ...] = ("face",)
_BOTH: tuple[ObjectType, ...] = ("event", "face")


class FilterDefinition(NamedTuple):
    """What a filter of some object types compares, and how."""

    name: str
    object_types: tuple[ObjectType, ...]
    kind: Callable[[str, Any, int], _Sql]
    value: str
    """SQL expression of the object's value: a column, or a field of a JSON column."""
    meaning: str
    by_time: bool = False


def _match(field: str) -> str:
    return f"json_extract(top_match, '$.{field}')"


DEFINITIONS: tuple[FilterDefinition, ...] = (
    FilterDefinition("create_time__gte", _BOTH, _not_before, "create_time_us", "not before", by_time=True),
    FilterDefinition("create_time__lt", _BOTH, _before, "create_time_us", "before", by_time=True),
    FilterDefinition("end_time__gte", _EVENTS, _not_before, "end_time_us", "not before"),
    FilterDefinition("end_time__lt", _EVENTS, _before, "end_time_us", "before"),
    FilterDefinition("event_ids", _EVENTS, _any_of, "object_id", "any of"),
    FilterDefinition("event_id__gte", _EVENTS, _at_least, "object_id", "at or after, by code points"),
    FilterDefinition("event_id__lt", _EVENTS, _below, "object_id", "before, by code points"),
    FilterDefinition(
        "face_ids", _EVENTS, _any_of, "face_id", "any of; the face that the event was attached to"
    ),
    FilterDefinition("face_ids", _FACES, _any_of, "object_id", "any of"),
    FilterDefinition("face_id__gte", _FACES, _at_least, "object_id", "at or after, by code points"),
    FilterDefinition("face_id__lt", _FACES, _below, "object_id", "before, by code points"),
    FilterDefinition("list_id", _FACES, _any_item, "list_ids", "a list with any of"),
    FilterDefinition("handler_ids", _EVENTS, _any_of, "handler_id", "any of"),
    FilterDefinition("sources", _EVENTS, _any_of, "source", "any of"),
    FilterDefinition("stream_ids", _EVENTS, _any_of, "stream_id", "any of"),
    FilterDefinition("track_ids", _EVENTS, _any_of, "track_id", "any of"),
    FilterDefinition("external_ids", _BOTH, _any_of, "external_id", "any of"),
    FilterDefinition("attribute_ids", _BOTH, _any_of, "attribute_id", "any of; of the descriptor"),
    FilterDefinition("quality__gte", _BOTH, _at_least, "quality", "at least; of the descriptor"),
    FilterDefinition("user_data", _BOTH, _any_of, "user_data", "equal, or any of"),
    FilterDefinition("tags", _EVENTS, _any_item, "tags", "a list with any of"),
    FilterDefinition("meta", _EVENTS, _at_paths, "meta", "equal at all of the paths, see below"),
    FilterDefinition("gender", _EVENTS, _any_of, "gender", "equal, or any of"),
    FilterDefinition("age__gte", _EVENTS, _at_least, "age", "at least"),
    FilterDefinition("age__lt", _EVENTS, _below, "age", "below"),
    FilterDefinition("emotions", _EVENTS, _any_of, "emotion", "any of"),
    FilterDefinition("ethnic_groups", _EVENTS, _any_of, "ethnic_group", "any of"),
    FilterDefinition("masks", _EVENTS, _any_of, "mask", "any of"),
    FilterDefinition("liveness", _EVENTS, _any_of, "liveness", "equal, or any of"),
    FilterDefinition("headwear", _EVENTS, _any_item, "headwear", "a list with any of"),
    FilterDefinition("clothing", _EVENTS, _any_item, "clothing", "a list with any of"),
    FilterDefinition("backpack", _EVENTS, _any_item, "backpack", "a list with any of"),
    FilterDefinition("top_matching_candidates_label", _EVENTS, _any_of, _match("label"), "equal, or any of"),
    FilterDefinition("top_similar_object_ids", _EVENTS, _any_of, _match("object_id"), "any of"),
    FilterDefinition("top_similar_external_ids", _EVENTS, _any_of, _match("external_id"), "any of"),
    FilterDefinition(
        "top_similar_object_similarity__gte", _EVENTS, _json_at_least, _match("similarity"), "at least"
    ),
    FilterDefinition(
        "top_similar_object_similarity__lt", _EVENTS, _json_below, _match("similarity"), "below"
    ),
    FilterDefinition("cities", _EVENTS, _any_of, "city", "any of"),
    FilterDefinition("areas", _EVENTS, _any_of, "area", "any of"),
    FilterDefinition("districts", _EVENTS, _any_of, "district", "any of"),
    FilterDefinition("streets", _EVENTS, _any_of, "street", "any of"),
    FilterDefinition("house_numbers", _EVENTS, _any_of, "house_number", "any of"),
    FilterDefinition(
        "geo_position", _EVENTS, _in_box, "longitude", "inside the box, with latitude; see below"
    ),
)
"""In the order in which objects that several filters exclude are attributed to one of them.

The bounds of create_time come first: the index counts what they leave without a look at any object.
"""


def compile_filters(filters: Filters, object_type: ObjectType, now_us: int) -> list[Condition]:
    """The conditions of a task's filters, in the order of `DEFINITIONS`.

    `filters` hold those of the object type only, see `filters_of`; `now_us` is what relative times refer to.
    """
    given = filters.given()
    return [
        _condition(definition, given[definition.name], now_us)
        for definition in DEFINITIONS
        if object_type in definition.object_types and definition.name in given
    ]


def _condition(definition: FilterDefinition, value: Any, now_us: int) -> Condition:
    if value is None:
        sql, parameters = f"{definition.value} IS NULL", ()
    else:
        sql, parameters = definition.kind(definition.value, value, now_us)
    return Condition(definition.name, f"({sql})", parameters, definition.by_time)

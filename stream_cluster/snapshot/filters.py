"""Selection filters compiled to SQL over indexed columns, values always bound, never spliced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_cluster.errors import TaskError
from stream_cluster.messages import Filters, resolve_time
from stream_cluster.model import ObjectType
from stream_cluster.state.view import SpaceRecord


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter as a SQL condition on the `objects` table."""

    name: str
    sql: str
    parameters: tuple[Any, ...]


def where_clause(space: SpaceRecord, conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    """SQL, and what is bound to it, for the objects of a space that meet all conditions."""
    where = " AND ".join(["space_id = ?", *(condition.sql for condition in conditions)])
    return where, [space.space_id, *(value for condition in conditions for value in condition.parameters)]


def _any_of(name: str, column: str, values: list[Any] | None) -> Condition:
    """Objects whose value is one of the list; null selects those that lack the field."""
    if values is None:
        return Condition(name, f"{column} IS NULL", ())
    listed = msgspec.json.encode(values).decode()
    return Condition(name, f"{column} IN (SELECT value FROM json_each(?))", (listed,))


def _time_bound(name: str, column: str, value: str | None, now_us: int) -> Condition:
    if value is None:
        return Condition(name, f"{column} IS NULL", ())
    operator = ">=" if name.endswith("__gte") else "<"
    return Condition(name, f"{column} {operator} ?", (resolve_time(value, now_us),))


_LISTS: Mapping[tuple[ObjectType, str], str] = {
    ("event", "event_ids"): "object_id",
    ("face", "face_ids"): "object_id",
    ("event", "sources"): "source",
    ("event", "track_ids"): "track_id",
}
_TIMES: Mapping[str, str] = {"create_time__gte": "create_time_us", "create_time__lt": "create_time_us"}


def compile_filters(filters: Filters, object_type: ObjectType, now_us: int) -> list[Condition]:
    """The conditions of a task's filters.

    `now_us` is what relative times refer to.

    Raises:
        TaskError: `bad_request` for a filter that is not available yet.
    """
    conditions = []
    for name, value in filters.given().items():
        if name in _TIMES:
            conditions.append(_time_bound(name, _TIMES[name], value, now_us))
        elif (object_type, name) in _LISTS:
            conditions.append(_any_of(name, _LISTS[object_type, name], value))
        else:
            raise TaskError("bad_request", f"content.filters.{name} is not available yet")
    return conditions

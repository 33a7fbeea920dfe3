"""Columns of report.csv beside the fixed first two."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stream_cluster.errors import TaskError
from stream_cluster.messages import EVENT_COLUMNS, FACE_COLUMNS, format_time
from stream_cluster.model import ObjectType

_FORMULA_STARTS = frozenset("=+-@\t\r")


def csv_value(value: Any) -> Any:
    """A value that a spreadsheet does not take for a formula; None becomes an empty field."""
    if isinstance(value, str) and value[:1] in _FORMULA_STARTS:
        return f"'{value}"
    return value  # the csv module writes None as an empty field


def _time(value: int | None) -> str:
    return "" if value is None else format_time(value)


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a task can ask for."""

    name: str
    sql: str
    render: Callable[[Any], Any] = csv_value


# Not a column of the report: the reference to an object's image. The object of a face space has the image of
# its descriptor, or else the avatar of the face.
IMAGE = Column("image", "coalesce(objects.image, objects.avatar)", lambda reference: reference)

# Columns whose source is not the column of `objects` with the same name.
_SPECIAL = {
    "create_time": Column("create_time", "objects.create_time_us", _time),
    "lists": Column("lists", "objects.list_ids"),
}


def resolve_columns(object_type: ObjectType, names: Sequence[str]) -> list[Column]:
    """The columns of the given names, in the order given.

    Raises:
        TaskError: `bad_request`; the message lists the columns that exist.
    """
    known = EVENT_COLUMNS if object_type == "event" else FACE_COLUMNS
    for name in names:
        if name not in known:
            raise TaskError(
                "bad_request", f"report.columns: no column {name!r}; there are {', '.join(sorted(known))}"
            )
    if len(set(names)) != len(names):
        raise TaskError("bad_request", "report.columns: a column is named twice")
    return [_SPECIAL.get(name) or Column(name, f"objects.{name}") for name in names]

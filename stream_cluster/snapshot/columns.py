"""Columns of report.csv beside the fixed first two."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from stream_cluster.errors import TaskError
from stream_cluster.messages import CLUSTER_COLUMNS, column_problem, format_time
from stream_cluster.model import ObjectType
from stream_cluster.snapshot.selection import low_quality_sql

# What a spreadsheet may evaluate: a formula's first character, also its full-width form, at the start or
# after what an import may strip; and the characters at which an import may begin a new cell.
_FORMULA = re.compile(r"[\t\r\n]|[\s\x00-\x1f\x7f\u200b\u2060\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20]")


def csv_value(value: Any) -> Any:
    """A value that a spreadsheet does not take for a formula; None becomes an empty field."""
    if isinstance(value, str) and _FORMULA.match(value):
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

FIGURE_OF = {name: name.removeprefix("cluster_") for name in CLUSTER_COLUMNS}
"""Columns that tell about the cluster of an object, and the names of these figures in clusters.jsonl."""

# Columns whose source is not the column of `objects` with the same name.
_SPECIAL = {
    "create_time": Column("create_time", "objects.create_time_us", _time),
    "lists": Column("lists", "objects.list_ids"),
}


def resolve_columns(
    object_type: ObjectType, names: Sequence[str], min_quality: float | None = None
) -> list[Column]:
    """The columns of the given names, in the order given. `low_quality` is 1 or 0, or empty without a bound.

    Raises:
        TaskError: `bad_request`; the message lists the columns that exist.
    """
    problem = column_problem(object_type, names)
    if problem is not None:
        raise TaskError("bad_request", f"content.report.columns: {problem}")
    low_quality = "NULL" if min_quality is None else low_quality_sql(min_quality)
    special = {**_SPECIAL, "low_quality": Column("low_quality", low_quality)}
    return [special.get(name) or Column(name, f"objects.{name}") for name in names]

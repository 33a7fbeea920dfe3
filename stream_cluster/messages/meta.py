"""The `meta` filter: values at paths of an object's free JSON.

A path is names joined by dots, and `\\.` is a dot inside a name; a nested object continues the path:
`{"gate": {"number": 4}}` says the same as `{"gate.number": 4}`. A path leads through objects, never into
lists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stream_cluster.messages.objects import MAX_JSON_DEPTH

Scalar = str | int | float | bool | None

_DOT = re.compile(r"(?<!\\)\.")
# Names are looked up as they stand in stored JSON text, where these are written as escapes.
_ESCAPED = re.compile(r'["\\\x00-\x1f]')


@dataclass(frozen=True, slots=True)
class MetaPath:
    """One path of the filter and the values of which the object must have one."""

    names: tuple[str, ...]
    values: tuple[Scalar, ...]
    """Null stands for objects that lack the path, or have null there."""


def meta_paths(meta: dict[str, Any], above: tuple[str, ...] = ()) -> list[MetaPath]:
    """The paths that a filter names, all of which must hold.

    Raises:
        ValueError: a path or a value that no object can be asked for; the message says which.
    """
    if not meta:
        raise ValueError("found an empty object, expected at least one path")
    found = []
    for key, value in meta.items():
        names = above + _names(key)
        if isinstance(value, dict):
            found += meta_paths(value, names)
        else:
            found.append(MetaPath(names, _values(value)))
    return found


def _names(key: str) -> tuple[str, ...]:
    names = tuple(name.replace(r"\.", ".") for name in _DOT.split(key))
    if len(names) > MAX_JSON_DEPTH:
        raise ValueError(f"found a path of {len(names)} names, expected at most {MAX_JSON_DEPTH}")
    for name in names:
        if _ESCAPED.search(name):
            raise ValueError(
                f"found the path {key[:100]!r}, "
                "expected names without quotes, backslashes and control characters"
            )
    return names


def _values(value: Any) -> tuple[Scalar, ...]:
    values = tuple(value) if isinstance(value, list) else (value,)
    for one in values:
        if isinstance(one, dict | list):
            raise ValueError(
                f"found {'an object' if isinstance(one, dict) else 'a list'} in a list, "
                "expected text, numbers, true, false or null"
            )
    return values

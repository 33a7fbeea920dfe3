"""Settings described for people: the documentation table and what `check-config` prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from stream_cluster.config.fields import Field, fields, fields_of
from stream_cluster.config.settings import Settings

MASK = "********"
DEFAULT_SOURCE = "default"
_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """One row of the documentation table."""

    key: str
    env: str
    expected: str
    """Type and range in words."""
    default: Any
    description: str
    secret: bool


@dataclass(frozen=True, slots=True)
class FieldReport:
    """One setting in force. `value` is masked when the setting is a secret and is set."""

    key: str
    value: Any
    default: Any
    source: str
    """Where it was set, or `default`."""
    description: str


def field_table() -> list[FieldDoc]:
    """Every setting in the order of the structs."""
    return _docs(fields().values())


def field_docs(struct: type[msgspec.Struct]) -> list[FieldDoc]:
    """The fields of a table that is an item of a list setting; `env` has no meaning there."""
    return _docs(fields_of(struct))


def _docs(of: Iterable[Field]) -> list[FieldDoc]:
    return [
        FieldDoc(
            field.key,
            field.env,
            field.expected,
            _plain(field.default),
            field.description,
            field.secret,
        )
        for field in of
    ]


def describe(settings: Settings, sources: Mapping[str, str] = _NONE) -> list[FieldReport]:
    """Every setting in force, secrets masked. `sources` is that of `LoadedSettings`.

    Without sources a value that differs from its default has the source `given`.
    """
    reports = []
    for field in fields().values():
        value: Any = settings
        for name in field.key.split("."):
            value = getattr(value, name)
        fallback = DEFAULT_SOURCE if value == field.default else "given"
        shown = MASK if field.secret and value is not None else _plain(value)
        reports.append(
            FieldReport(
                field.key,
                shown,
                _plain(field.default),
                sources.get(field.key, fallback),
                field.description,
            )
        )
    return reports


def _plain(value: Any) -> Any:
    """A value as a settings file would have it."""
    plain = value if value is msgspec.NODEFAULT else msgspec.to_builtins(value)
    return list(plain) if isinstance(plain, tuple) else plain

"""The settings as a flat table of dotted keys, read from the structs themselves."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import inspect

from stream_cluster.config.settings import Settings

ENV_PREFIX = "STREAM_CLUSTER_"


@dataclass(frozen=True, slots=True)
class Field:
    """One setting."""

    key: str
    """Dotted: `kafka.group_id`, `similarity.face.floor`."""
    type: Any
    """What `msgspec.convert` takes, ranges included."""
    default: Any
    description: str
    expected: str
    """The type and range in words."""
    secret: bool
    is_text: bool
    is_structured: bool
    """A table or a list; as text it is JSON."""
    optional: bool

    @property
    def env(self) -> str:
        """`STREAM_CLUSTER_KAFKA__GROUP_ID`."""
        return ENV_PREFIX + self.key.replace(".", "__").upper()


@functools.cache
def fields() -> Mapping[str, Field]:
    """Every setting by its dotted key, in the order of the structs."""
    return {field.key: field for field in _walk(Settings, "")}


@functools.cache
def sections() -> frozenset[str]:
    """Dotted keys that hold other keys: `kafka`, `similarity.face`."""
    return frozenset(
        ".".join(parts[:depth])
        for parts in (key.split(".") for key in fields())
        for depth in range(1, len(parts))
    )


def fields_of(struct: type[msgspec.Struct]) -> list[Field]:
    """The fields of a struct that is not part of `Settings`, with keys as if it were alone."""
    return _walk(struct, "")


def _walk(struct: type[msgspec.Struct], prefix: str) -> list[Field]:
    found: list[Field] = []
    hints = inspect.type_info(struct)
    assert isinstance(hints, inspect.StructType)
    types = {info.name: info.type for info in msgspec.structs.fields(struct)}
    for info in hints.fields:
        key = prefix + info.name
        declared = types[info.name]
        if isinstance(info.type, inspect.StructType):
            found += _walk(info.type.cls, key + ".")
        else:
            made = info.default_factory
            default = info.default if made is msgspec.NODEFAULT else made()
            found.append(_field(key, declared, default, info.type))
    return found


def _field(key: str, declared: Any, default: Any, info: inspect.Type) -> Field:
    schema: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    if isinstance(info, inspect.Metadata):
        schema, extra, info = info.extra_json_schema or {}, info.extra or {}, info.type
    parts = info.types if isinstance(info, inspect.UnionType) else (info,)
    optional = any(isinstance(part, inspect.NoneType) for part in parts)
    words = [_words(part) for part in parts if not isinstance(part, inspect.NoneType)]
    return Field(
        key=key,
        type=declared,
        default=default,
        description=str(schema["description"]),
        expected=" or ".join(words),
        secret=bool(extra.get("secret")),
        is_text=any(isinstance(part, inspect.StrType | inspect.LiteralType) for part in parts),
        is_structured=any(isinstance(part, inspect.DictType | inspect.VarTupleType) for part in parts),
        optional=optional,
    )


def _words(info: inspect.Type) -> str:
    match info:
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            return ("integer" if isinstance(info, inspect.IntType) else "number") + _range(info)
        case inspect.StrType(pattern=pattern) if pattern is not None:
            return f"text matching {pattern}"
        case inspect.StrType():
            return "text that is not empty" if info.min_length else "text"
        case _:
            return _words_of_parts(info)


def _words_of_parts(info: inspect.Type) -> str:
    match info:
        case inspect.LiteralType():
            return "one of " + ", ".join(str(value) for value in info.values)
        case inspect.VarTupleType(item_type=inspect.StructType() | inspect.UnionType()):
            return "list of tables"
        case inspect.VarTupleType():
            return f"list of {_words(info.item_type)}"
        case inspect.TupleType():
            return f"[{', '.join(_words(item) for item in info.item_types)}]"
        case inspect.DictType():
            return f"table from {_words(info.key_type)} to {_words(info.value_type)}"
        case inspect.StructType():
            return f"table of {', '.join(field.name for field in info.fields)}"
        case _:
            raise TypeError(f"no words for settings of type {info!r}")


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    named = (("above", info.gt), ("at least", info.ge), ("below", info.lt), ("at most", info.le))
    bounds = [
        f"{word} {bound:g}" if isinstance(bound, float) else f"{word} {bound}"
        for word, bound in named
        if bound is not None
    ]
    return (", " + " and ".join(bounds)) if bounds else ""

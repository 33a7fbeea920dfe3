"""Settings from defaults < file < environment < overrides, each value traced to where it was set."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

import msgspec
import yaml

from stream_cluster.config.checks import check
from stream_cluster.config.fields import ENV_PREFIX, Field, fields, sections
from stream_cluster.config.secrets import read_secret_files
from stream_cluster.config.settings import Settings
from stream_cluster.errors import ConfigError

NOT_SETTINGS = frozenset(
    {
        "STREAM_CLUSTER_CONFIG",
        "STREAM_CLUSTER_FAULT",
        "STREAM_CLUSTER_KERNEL",
        "STREAM_CLUSTER_TEST_BROKER",
    }
)
"""Variables with the prefix that other parts read: the file's path, faults that tests ask for, the native
kernel,
the tests' broker."""

_NONE: Mapping[str, object] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class LoadedSettings:
    """The settings in force, and for each key that is not at its default, where it was set."""

    settings: Settings
    sources: Mapping[str, str]
    """Dotted key → `FILE:kafka.group_id`, `STREAM_CLUSTER_KAFKA__GROUP_ID` or `option kafka.group_id`."""


@dataclass(frozen=True, slots=True)
class _Given:
    """One value as somebody wrote it."""

    value: object
    source: str
    from_text: bool
    """True when the value is text whatever the field's type: environment variables, command-line options."""


def load_settings(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] = _NONE
) -> Settings:
    """The settings in force. See `load_with_sources`."""
    return load_with_sources(path, environ, overrides).settings


def load_with_sources(
    path: Path | None, environ: Mapping[str, str], overrides: Mapping[str, object] = _NONE
) -> LoadedSettings:
    """Settings from the defaults, then `path` (TOML or YAML), `environ` and `overrides`; the last one wins.

    `overrides` maps dotted keys to values; None means "not given". In `environ` an empty value unsets an
    optional setting.
    Raises ConfigError that lists every wrong key and value with what was found, what was expected, and where.
    """
    problems: list[str] = []
    given: dict[str, _Given] = {}
    if path is not None:
        given.update(_from_file(path, problems))
    given.update(_from_environ(environ, problems))
    given.update(_from_overrides(overrides, problems))
    values: dict[str, object] = {}
    for key, item in given.items():
        try:
            values[key] = _convert(fields()[key], item)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("\n".join(problems))
    sources = {key: item.source for key, item in given.items()}
    read_secret_files(values, sources)
    settings = msgspec.convert(_nest(values), Settings)
    check(settings, sources)
    return LoadedSettings(settings, MappingProxyType(sources))


def _from_file(path: Path, problems: list[str]) -> Iterator[tuple[str, _Given]]:
    for key, value in _flatten(_parse(path), ""):
        source = f"{path}:{key}"
        if key in fields():
            yield key, _Given(value, source, from_text=False)
        elif key in sections():
            problems.append(f"{source}: found {value!r}, expected a table of settings")
        else:
            problems.append(f"{source}: unknown setting{_nearest(key, [*fields(), *sections()])}")


def _flatten(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, object]]:
    """Leaves of nested tables as (dotted key, value). A table given to a setting stays, to be refused."""
    for name, value in table.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and key in sections():
            yield from _flatten(value, key + ".")
        elif value is None and key in sections():
            continue  # an empty YAML section
        else:
            yield key, value


def _parse(path: Path) -> Mapping[str, Any]:
    """The file's top-level table. Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: found bytes that are not UTF-8, expected a text file") from error
    suffix = path.suffix.lower()
    try:
        if suffix == ".toml":
            return tomllib.loads(text)
        if suffix in {".yaml", ".yml"}:
            table = yaml.load(text, Loader=_UniqueKeys)  # noqa: S506 - derives from SafeLoader  # nosec B506
        else:
            raise ConfigError(f"{path}: found suffix {suffix!r}, expected .toml, .yaml or .yml")
    except (tomllib.TOMLDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be parsed: {error}") from error
    if table is None:
        return {}
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: found {type(table).__name__}, expected a table of settings")
    return table


class _UniqueKeys(yaml.SafeLoader):
    """YAML as PyYAML's safe loader reads it, but a key given twice is an error as it is in TOML."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str) or key in seen:
                what = f"key {key!r} given twice" if isinstance(key, str) else f"key {key!r} that is not text"
                raise yaml.constructor.ConstructorError(None, None, what, key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _from_environ(environ: Mapping[str, str], problems: list[str]) -> Iterator[tuple[str, _Given]]:
    by_env = {field.env: field for field in fields().values()}
    single_underscore = {name.replace("__", "_"): name for name in by_env}
    for name in sorted(environ):
        value = environ[name]
        if not name.startswith(ENV_PREFIX) or name in NOT_SETTINGS:
            continue
        if name in by_env:
            yield by_env[name].key, _Given(value, name, from_text=True)
        elif "__" in name:
            problems.append(f"{name}: unknown setting{_nearest(name, by_env)}")
        elif name in single_underscore and not value.startswith("tcp://"):
            # Kubernetes sets STREAM_CLUSTER_HTTP_PORT=tcp://… for a service named stream-cluster-http.
            problems.append(f"{name}: unknown setting; did you mean {single_underscore[name]}?")


def _from_overrides(overrides: Mapping[str, object], problems: list[str]) -> Iterator[tuple[str, _Given]]:
    for key, value in overrides.items():
        source = f"option {key}"
        if key not in fields():
            problems.append(f"{source}: unknown setting{_nearest(key, fields())}")
        elif value is not None:
            plain = str(value) if isinstance(value, PurePath) else value
            yield key, _Given(plain, source, from_text=isinstance(plain, str))


def _convert(field: Field, given: _Given) -> object:
    """The value in the field's type. Raises ConfigError; a secret's value is not shown."""
    value = given.value
    if given.from_text and value == "" and field.optional:
        return None
    try:
        if field.is_structured:
            value = msgspec.json.decode(value) if isinstance(value, str) and given.from_text else value
            return msgspec.convert(value, field.type, str_keys=True)
        converted = msgspec.convert(value, field.type, strict=field.is_text or not given.from_text)
        if isinstance(converted, float) and not math.isfinite(converted):
            raise ValueError("not finite")
    except (msgspec.DecodeError, ValueError) as error:
        found = "a secret that does not fit" if field.secret else repr(value)
        form = " in JSON" if given.from_text else ""
        more = f"{form} ({error})" if field.is_structured else ""
        raise ConfigError(f"{given.source}: found {found}, expected {field.expected}{more}") from error
    return converted


def _nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean x?`, or nothing when no known name is close. A key without its section finds it too."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if not close:
        leaf = name.rpartition(".")[2]
        close = [candidate for candidate in names if candidate.rpartition(".")[2] == leaf][:1]
    return f"; did you mean {close[0]}?" if close else ""


def _nest(values: Mapping[str, object]) -> dict[str, Any]:
    """Dotted keys as nested tables."""
    root: dict[str, Any] = {}
    for key, value in values.items():
        *path, leaf = key.split(".")
        table = root
        for name in path:
            table = table.setdefault(name, {})
        table[leaf] = value
    return root

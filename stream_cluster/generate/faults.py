"""Messages broken on purpose, one function per rejection reason of the message contract.

Each takes the message as plain data and a variant number, and returns the bytes to send. Variants differ in
how they are broken, never in the reason that they must be rejected with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from stream_cluster.generate.options import Fault, GenerateOptions, MessageFormat
from stream_cluster.generate.vectors import UINT8_OFFSET, encode_rows, sdk_bytes

Message = dict[str, Any]


def encode_message(message: Message, message_format: MessageFormat) -> bytes:
    """The bytes of a message; bytes inside become base64 in JSON and bin in MessagePack."""
    return msgspec.json.encode(message) if message_format == "json" else msgspec.msgpack.encode(message)


def break_message(fault: Fault, variant: int, message: Message, options: GenerateOptions) -> bytes:
    """The bytes of `message`, broken so that it must be rejected with the reason `fault`.

    May change `message`.
    """
    if fault == "undecodable":
        return _undecodable(encode_message(message, options.format), variant, options.format)
    _BREAKERS[fault](message, variant, options)
    return encode_message(message, options.format)


def _undecodable(value: bytes, variant: int, message_format: MessageFormat) -> bytes:
    if variant % 2 == 0:
        return value[: len(value) // 2]
    # No line break inside, so that a broken message stays one line of a file.
    # 0xC1 is the one byte that MessagePack never uses.
    return b'{"event_id": broken' if message_format == "json" else b"\x83\xc1\xc1"


_Path = tuple[str | int, ...]
_FIRST: _Path = ("descriptors", 0)

_MISSING_FIELDS: tuple[_Path, ...] = (
    ("event_id",),
    ("account_id",),
    (*_FIRST, "type"),
    (*_FIRST, "version"),
    (*_FIRST, "data"),
)
_BAD_FIELDS: tuple[tuple[_Path, Any], ...] = (
    (("event_id",), 17),
    (("event_id",), "../escape"),
    (("event_id",), "x" * 129),
    (("event_id",), "line\nbreak"),
    (("create_time",), "yesterday"),
    (("create_time",), "2026-05-01T06:00:00"),
    (("age",), "old"),
    (("tags",), "vip"),
    (("object_type",), "vehicle"),
    (("action",), "destroy"),
    ((*_FIRST, "data"), {"not": "a vector"}),
    ((*_FIRST, "type"), "ear"),
    ((*_FIRST, "version"), "newest"),
)


def _missing_field(message: Message, variant: int, _options: GenerateOptions) -> None:
    *path, last = _MISSING_FIELDS[variant % len(_MISSING_FIELDS)]
    del _at(message, path)[last]


def _bad_field(message: Message, variant: int, _options: GenerateOptions) -> None:
    (*path, last), value = _BAD_FIELDS[variant % len(_BAD_FIELDS)]
    _at(message, path)[last] = value


def _at(message: Message, path: list[str | int]) -> Any:
    target: Any = message
    for step in path:
        target = target[step]
    return target


def _no_descriptor(message: Message, variant: int, _options: GenerateOptions) -> None:
    if variant % 2 == 0:
        message["descriptors"] = []
    else:
        del message["descriptors"]


def _wrong_dimension(message: Message, variant: int, options: GenerateOptions) -> None:
    dim = options.dim - 1 if variant % 2 == 0 else options.dim // 2
    ramp = np.linspace(0.1, 1.0, dim, dtype=np.float32)[None, :]
    message["descriptors"][0]["data"] = encode_rows(ramp, options.encoding, options.version)[0]


def _not_finite(message: Message, variant: int, options: GenerateOptions) -> None:
    values = np.linspace(0.1, 1.0, options.dim, dtype=np.float32)
    values[variant % options.dim] = (np.nan, np.inf, -np.inf)[variant % 3]
    half = options.encoding == "float16"
    message["descriptors"][0] |= {
        "encoding": "float16" if half else "float32",
        "data": values.astype("<f2" if half else "<f4").tobytes(),
    }


def _zero_vector(message: Message, _variant: int, options: GenerateOptions) -> None:
    sizes = {"float32": 4, "float16": 2, "int8": 1}
    descriptor = message["descriptors"][0]
    if options.encoding in sizes:
        descriptor["data"] = bytes(options.dim * sizes[options.encoding])
    else:
        zeros = bytes([UINT8_OFFSET]) * options.dim
        descriptor["data"] = sdk_bytes(options.version, zeros) if options.encoding == "sdk" else zeros


def _unsupported_encoding(message: Message, variant: int, _options: GenerateOptions) -> None:
    message["descriptors"][0]["encoding"] = ("float64", "bfloat16", "")[variant % 3]


def _version_mismatch(message: Message, variant: int, options: GenerateOptions) -> None:
    vector = bytes(1 + i % 255 for i in range(options.dim))
    message["descriptors"][0] |= {
        "encoding": "sdk",
        "data": sdk_bytes(options.version + 1 + variant % 3, vector),
    }


def _too_large(message: Message, _variant: int, options: GenerateOptions) -> None:
    message["meta"] = {"padding": "x" * options.too_large_bytes}


def _wrong_partition(_message: Message, _variant: int, _options: GenerateOptions) -> None:
    """Nothing is wrong with the message itself: its record's `partition_offset` is what breaks it."""


_BREAKERS: dict[Fault, Callable[[Message, int, GenerateOptions], None]] = {
    "missing_field": _missing_field,
    "bad_field": _bad_field,
    "no_descriptor": _no_descriptor,
    "wrong_dimension": _wrong_dimension,
    "not_finite": _not_finite,
    "zero_vector": _zero_vector,
    "unsupported_encoding": _unsupported_encoding,
    "version_mismatch": _version_mismatch,
    "too_large": _too_large,
    "wrong_partition": _wrong_partition,
}

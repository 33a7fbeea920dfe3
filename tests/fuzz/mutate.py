"""Changes to messages that know what a message is: fields, types, limits, encodings.

Bytes that random flips would hardly ever find, such as absurd lengths, numbers beyond every type, half
surrogates, or nesting of thousands of levels, are put in as they stand in JSON or MessagePack.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stream_cluster.messages.filters import Filters
from stream_cluster.messages.status import TaskStatus
from stream_cluster.messages.tasks import Content, TaskRequest
from stream_cluster.messages.updates import ChangeUpdate, ObjectUpdate
from stream_cluster.messages.wire import (
    WireBodyAttributes,
    WireDescriptor,
    WireGeoPosition,
    WireLocation,
    WireObject,
    WireTopMatch,
)

_STRUCTS = (
    WireObject,
    WireDescriptor,
    WireLocation,
    WireGeoPosition,
    WireTopMatch,
    WireBodyAttributes,
    TaskRequest,
    Content,
    Filters,
    TaskStatus,
    ObjectUpdate,
    ChangeUpdate,
)
FIELDS = sorted({name for struct in _STRUCTS for name in struct.__struct_fields__} | {"type", "kind"})

# fmt: off
WORDS = [
    "upsert", "update", "delete", "cancel", "clustering", "event", "face", "body", "events", "faces",
    "float32", "float16", "int8", "uint8", "sdk", "components", "average", "csv", "object", "change",
    "", ".", "..", "../x", "/", "\\", "a/b", "a\nb", "\x00", "\u202e", "\u2028", "\ufeff", "x" * 128,
    "x" * 129,
    "\u00e9", "\U0001f600", "%2e%2e", "C:", "CON", "' OR 1=1 --", "=1+1", "{{x}}", "http://x/", "file:///x",
    "2026-05-01T10:00:00Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:60-14:00", "2026-02-30T00:00:00Z",
    "now", "now-999999999y", "now-1M", "now-0s", "AAAA", "AAAAAA==", "ZHAAAD4AAAABAgME", "A", "====",
    "a.b", "a\\.b", "." * 70, "a." * 80, "$", '"',
]
NUMBERS: list[Any] = [
    0, 1, -1, 2, 127, 128, 255, 256, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1,
    -(2**63), 0.0, -0.0, 0.5, 1.0, 1.0000001, -1.5, 1e-45, 1e-320, 1e30, 3.5e38, 1e308, 180.0, 90.0,
]
_OTHERS: list[Any] = [
    None, True, False, [], {}, [None], [[]], {"": None}, b"", b"\x00" * 8, b"dp\0\0\1\0\0\0\1\2",
]

_MARK = "@mark@"
"""A text that is exchanged for raw bytes once the message is encoded."""
_JSON_RAW = [
    b"1e999", b"-1e999", b"NaN", b"-", b"1.", b"9" * 400, b"-" + b"9" * 30, b"0" * 50, b"1e-999",
    b'"\\ud800"', b'"\\udfff\\ud800"', b'"\xed\xa0\x80"', b'"\xff"', b'"\\u0000"', b'"\\x"', b'"\n"', b"nul",
    b'1,"event_id":"twice"', b'1,"account_id":"twice","account_id":7', b"[", b"]", b"{}}", b"\xef\xbb\xbf1",
]
_PACKED_RAW = [
    b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xcb\x7f\xf8" + b"\0" * 6, b"\xcb\x7f\xf0" + b"\0" * 6, b"\xca\x7f\xc0\0\0", b"\xcf" + b"\xff" * 8,
    b"\xd6\xff\xff\xff\xff\xff", b"\xd7\xff" + b"\xff" * 8, b"\xc7\x0c\xff" + b"\xff" * 12, b"\xd4\x05\x00",
    b"\xc7\xff\x01", b"\x81\x01\x02", b"\x81\xc0\xc0", b"\x81\x90\x01", b"\xa2\xff\xfe", b"\xa3\xed\xa0\x80",
    b"\x82\xa1a\x01\xa1a\x02", b"\xc4\x00", b"\xdc\xff\xff",
]
# fmt: on
_DEPTHS = (10, 62, 63, 64, 65, 66, 200, 900, 990, 1100, 5000, 30_000)

Bytes = Callable[[bytes], bytes]


class Mutator:
    """A source of changed messages. Equal seeds and calls give equal bytes."""

    def __init__(self, seeds: Sequence[bytes]) -> None:
        self._seeds = seeds

    def __call__(self, data: bytes, seed: int, by_bytes: Bytes | None = None) -> bytes:
        """A neighbour of an input. `by_bytes` changes bytes without a notion of what they are."""
        choose = random.Random(seed)
        selector, body = (data[0], data[1:]) if data else (0, b"")
        if choose.random() < 0.1:
            selector = choose.randrange(256)
        if choose.random() < 0.08:
            return bytes([selector]) + (by_bytes or _flip(choose))(body)
        message, packed = _loose(body)
        if message is None or choose.random() < 0.02:
            base = self._seeds[choose.randrange(len(self._seeds))]
            message, packed = _loose(base[1:])
            if message is None:
                return bytes([selector]) + _flip(choose)(base[1:])
        if choose.random() < 0.1:
            packed = not packed
            selector = choose.randrange(256)
        for _ in range(choose.choice([1, 1, 1, 2, 3, 6])):
            message = self._change(choose, message)
        if choose.random() < 0.8:
            # One of the first three: by the first byte, JSON, MessagePack.
            selector = choose.choice([0, 2 if packed else 1])
        body = _encoded(choose, message, packed=packed)
        return bytes([selector]) + (_flip(choose)(body) if choose.random() < 0.03 else body)

    def _change(self, choose: random.Random, message: Any) -> Any:
        """Change one place of a message."""
        path, value = _place(choose, message)
        kind = choose.random()
        if kind < 0.35:
            value = _nudged(choose, value)
        elif kind < 0.5 and isinstance(value, dict):
            value = {**value, choose.choice(FIELDS): _value(choose)}
        elif kind < 0.55 and path:
            return _without(message, path)
        elif kind < 0.62:
            other, _ = _loose(self._seeds[choose.randrange(len(self._seeds))][1:])
            _, value = _place(choose, other)
        elif kind < 0.66:
            for _ in range(choose.choice([1, 2, 63, 64, 65, 66])):
                value = [value] if choose.random() < 0.5 else {choose.choice(["a", "", "meta"]): value}
        elif kind < 0.7 and isinstance(value, list):
            value = value * choose.choice([0, 2, 3, 600])
        elif kind < 0.75 and isinstance(value, str | bytes) and value:
            cut = choose.randrange(len(value))
            value = choose.choice([value[:cut], value[cut:], value * 2])
        elif kind < 0.8:
            value = _MARK
        else:
            value = _value(choose)
        return _with(message, path, value)


def _nudged(choose: random.Random, value: Any) -> Any:
    """Nearly the same value, of the same type."""
    if isinstance(value, bool) or value is None:
        return choose.choice([True, False, None])
    if isinstance(value, int):
        return max(-(2**63), min(2**64 - 1, value + choose.choice([-1, 1, 2, 100, -value])))
    if isinstance(value, float):
        return value * choose.choice([-1.0, 0.5, 2.0, 1e-9, 1e9])
    if isinstance(value, str):
        at = choose.randrange(len(value) + 1)
        return value[:at] + choose.choice("aZ0+=.- /é\u202e") + value[at + choose.randrange(2) :]
    if isinstance(value, bytes) and value:
        changed = bytearray(value)
        for _ in range(choose.randint(1, 4)):
            changed[choose.randrange(len(changed))] = choose.choice([0, 1, 127, 128, 255])
        return bytes(changed)
    if isinstance(value, list):
        return choose.sample(value, len(value))
    return value


def _value(choose: random.Random) -> Any:
    kind = choose.randrange(6)
    if kind == 0:
        return choose.choice(WORDS)
    if kind == 1:
        return choose.choice(NUMBERS)
    if kind == 2:
        return choose.choice(_OTHERS)
    if kind == 3:
        return [choose.choice(NUMBERS) for _ in range(choose.randrange(12))]
    if kind == 4:
        return choose.randbytes(choose.choice([1, 4, 8, 16, 32]))
    return {choose.choice(FIELDS): choose.choice([*WORDS, *NUMBERS]) for _ in range(choose.randrange(3))}


def _loose(body: bytes) -> tuple[Any, bool]:
    """(the message as plain values, whether it is MessagePack); None when it is neither."""
    is_json = body[:1] in (b"{", b"[", b'"')
    try:
        return (msgspec.json.decode(body) if is_json else msgspec.msgpack.decode(body)), not is_json
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError):
        return None, False


def _encoded(choose: random.Random, message: Any, *, packed: bool) -> bytes:
    """The message's bytes, its marks exchanged for raw ones."""
    try:
        body = msgspec.msgpack.encode(message) if packed else msgspec.json.encode(message)
    except (msgspec.MsgspecError, TypeError, ValueError, RecursionError, OverflowError):
        return choose.randbytes(20)
    mark = msgspec.msgpack.encode(_MARK) if packed else msgspec.json.encode(_MARK)
    if mark not in body:
        return body
    return body.replace(mark, _raw(choose, packed=packed))


def _raw(choose: random.Random, *, packed: bool) -> bytes:
    if choose.random() < 0.7:
        return choose.choice(_PACKED_RAW if packed else _JSON_RAW)
    depth = choose.choice(_DEPTHS)
    if packed:
        return choose.choice([b"\x91", b"\x81\xa1a"]) * depth + b"\x01"
    begin, end = choose.choice([(b"[", b"]"), (b'{"a":', b"}")])
    # Sometimes without an end: that much is read before it is noticed.
    return begin * depth + b"1" + (end * depth if choose.random() < 0.8 else b"")


def _flip(choose: random.Random) -> Bytes:
    """Changes of bytes for where no fuzzing engine has better ones."""

    def flip(body: bytes) -> bytes:
        changed = bytearray(body)
        for _ in range(choose.randint(1, 4)):
            at = choose.randrange(len(changed) + 1)
            kind = choose.randrange(4)
            if kind == 0:
                changed[at:at] = choose.randbytes(choose.randint(1, 4))
            elif kind == 1:
                del changed[at : at + choose.randint(1, 8)]
            elif at < len(changed):
                changed[at] = choose.randrange(256)
        return bytes(changed)

    return flip


_Path = tuple[Any, ...]


def _place(choose: random.Random, message: Any) -> tuple[_Path, Any]:
    """A place inside of a message, by a walk that may stop anywhere."""
    path: _Path = ()
    value = message
    while (
        isinstance(value, dict | list) and value and len(path) < 60 and (not path or choose.random() < 0.75)
    ):
        key = choose.choice(list(value)) if isinstance(value, dict) else choose.randrange(len(value))
        path, value = (*path, key), value[key]
        if choose.random() < 0.05:
            return (), message
    return path, value


def _with(message: Any, path: _Path, value: Any) -> Any:
    """A copy of a message with another value at a place."""
    if not path:
        return value
    key, *rest = path
    copy = dict(message) if isinstance(message, dict) else list(message)
    copy[key] = _with(message[key], tuple(rest), value)
    return copy


def _without(message: Any, path: _Path) -> Any:
    key, *rest = path
    copy = dict(message) if isinstance(message, dict) else list(message)
    if rest:
        copy[key] = _without(message[key], tuple(rest))
    else:
        del copy[key]
    return copy

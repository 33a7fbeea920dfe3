"""Bytes to structs: JSON or MessagePack by header or first byte, and a verdict on bytes that do not fit."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Struct

from stream_cluster.messages.record import JSON, MSGPACK, Reason
from stream_cluster.messages.vectors import Refused
from stream_cluster.messages.wire import Id

T = TypeVar("T")

# What msgspec raises on hostile bytes: MsgspecError and UnicodeDecodeError (a ValueError) on malformed ones,
# RecursionError on deep nesting, OverflowError on absurd numbers.
BAD_BYTES = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)

_MOST_TOLD = 400
"""Characters of a decoder's error."""

_MSGPACK_NAMES = frozenset({MSGPACK, "application/x-msgpack", "application/vnd.msgpack"})
_FIRST_BYTES_OF_MAPS = frozenset([*range(0x80, 0x90), 0xDE, 0xDF])


class _Account(Struct):
    account_id: Id


class Decoders(Generic[T]):
    """A JSON and a MessagePack decoder of one type."""

    def __init__(self, type_: Any) -> None:
        self.json: msgspec.json.Decoder[T] = msgspec.json.Decoder(type_)
        self.msgpack: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(type_)

    def decode(self, value: bytes, content_type: str | None) -> T:
        """Raises what msgspec raises, see `BAD_BYTES`."""
        return (self.msgpack if is_msgpack(value, content_type) else self.json).decode(value)


_ANY: Decoders[Any] = Decoders(Any)
_ACCOUNT: Decoders[_Account] = Decoders(_Account)


def encode_wire(value: object, content_type: str) -> bytes:
    """Bytes of a struct or of plain values, in MessagePack when `content_type` says so, else in JSON."""
    return msgspec.msgpack.encode(value) if content_type == MSGPACK else msgspec.json.encode(value)


def is_msgpack(value: bytes, content_type: str | None) -> bool:
    """True for MessagePack, False for JSON: by the header if it names one of them, else by the first byte."""
    if content_type is not None:
        name = content_type.partition(";")[0].strip().lower()
        if name in _MSGPACK_NAMES:
            return True
        if name == JSON:
            return False
    return bool(value) and value[0] in _FIRST_BYTES_OF_MAPS


def is_legal_id(text: str) -> bool:
    """Printable, without `/` and `\\`, and no relative path. The length is the schema's business."""
    return text.isprintable() and "/" not in text and "\\" not in text and text not in {".", ".."}


def read_account_id(value: bytes, content_type: str | None = None) -> str | None:
    """The account of a message that may be wrong in any other field; None when it is not legible."""
    try:
        account_id = _ACCOUNT.decode(value, content_type).account_id
    except BAD_BYTES:
        return None
    return account_id if is_legal_id(account_id) else None


def decode_loosely(value: bytes, content_type: str | None) -> dict[str, Any]:
    """The message as plain values. Raises Refused: `undecodable`; `bad_field` for numbers out of range."""
    try:
        message = _ANY.decode(value, content_type)
    except msgspec.ValidationError as error:
        raise Refused(Reason.BAD_FIELD, told(error)) from error
    except BAD_BYTES as error:
        raise Refused(Reason.UNDECODABLE, f"{type(error).__name__}: {told(error)}") from error
    if not isinstance(message, dict):
        raise Refused(Reason.UNDECODABLE, f"found {type(message).__name__}, expected an object")
    return message


def told(error: Exception) -> str:
    """What a decoder raised, for a person, in a few hundred characters at most.

    It repeats a value that is none of those expected, and that may be as large as the message: a dead letter
    with it in a header would not fit where the message itself does.
    """
    text = str(error)
    # The end says where.
    return text if len(text) <= _MOST_TOLD else f"{text[: _MOST_TOLD // 2]}…{text[-_MOST_TOLD // 2 :]}"


def verdict(value: bytes, content_type: str | None, error: Exception) -> Refused:
    """Why a typed decoder raised `error`. Malformed bytes are undecodable even after a wrong field."""
    try:
        decode_loosely(value, content_type)
    except Refused as refused:
        return refused
    if not isinstance(error, msgspec.ValidationError):
        return Refused(Reason.UNDECODABLE, f"{type(error).__name__}: {told(error)}")
    missing = str(error).startswith("Object missing required field")
    return Refused(Reason.MISSING_FIELD if missing else Reason.BAD_FIELD, told(error))

"""A record as Kafka delivers it, and the verdict on one that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

JSON = "application/json"
MSGPACK = "application/msgpack"


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One consumed record, before decoding."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Of the record, milliseconds since the epoch."""
    key: bytes | None
    value: bytes | None
    content_type: str | None
    """Value of the header `content-type`; None when absent."""


class Reason(StrEnum):
    """Why a record is rejected: the value of the header `reason` and of the metric label."""

    UNDECODABLE = "undecodable"
    MISSING_FIELD = "missing_field"
    BAD_FIELD = "bad_field"
    NO_DESCRIPTOR = "no_descriptor"
    WRONG_DIMENSION = "wrong_dimension"
    NOT_FINITE = "not_finite"
    ZERO_VECTOR = "zero_vector"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    VERSION_MISMATCH = "version_mismatch"
    TOO_LARGE = "too_large"
    WRONG_PARTITION = "wrong_partition"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A record that cannot be used. A value, not an exception: the partition moves on."""

    reason: Reason
    detail: str
    """For a person: what was found and expected, and where. Holds no descriptor and no personal field."""
    account_id: str | None
    """None when the record does not say it legibly."""

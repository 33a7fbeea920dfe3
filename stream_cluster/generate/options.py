"""What to generate: one validated, frozen set of options."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, get_args

from stream_cluster.errors import InputError
from stream_cluster.model import MAX_DIMENSION, DescriptorType

Encoding = Literal["float32", "float16", "int8", "uint8", "sdk"]
MessageFormat = Literal["json", "msgpack"]
DescriptorChoice = Literal["face", "body", "both"]
Fault = Literal[
    "undecodable",
    "missing_field",
    "bad_field",
    "no_descriptor",
    "wrong_dimension",
    "not_finite",
    "zero_vector",
    "unsupported_encoding",
    "version_mismatch",
    "too_large",
    "wrong_partition",
]
"""A way to break a message, named like the rejection reason that it must cause (docs/formats.md)."""

ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)
FAULTS: tuple[Fault, ...] = get_args(Fault)

# What the metadata around the descriptors needs at most; the rest of a `too_large` message is padding.
_SMALLEST_TOO_LARGE = 16_384

# RFC 3339 has four digits for the year.
_END_OF_TIME_US = 253_402_300_799_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateOptions:
    """Options of `generate_events`. A value out of its range raises `InputError` at construction.

    Equal options give equal bytes. The first n events do not depend on `events` when `people` is given,
    and the good events do not depend on `bad_share` or `faults`.
    """

    events: int = 1000
    """Messages to generate, broken ones included; at least 0."""
    people: int | None = None
    """Size of the crowd, some never seen and a few very often; None means a fifth of `events`."""
    cameras: int = 8
    """Number of sources, `cam0`… Camera i belongs to account i modulo the number of accounts."""
    dim: int = 512
    """Dimension of every descriptor, 2 to 4096."""
    seed: int = 1
    """Chooses everything; 0 to 2**63 - 1."""
    accounts: tuple[str, ...] = ("demo",)
    """Account ids. The same people pass the cameras of every account, so that a leak would show as links."""
    descriptor: DescriptorChoice = "face"
    """Descriptors that an event carries."""
    version: int = 1
    """Descriptor version, for face and body alike; 0 to 2**31 - 1."""
    encoding: Encoding = "float32"
    """Form of the descriptor's data; `uint8` and `sdk` are offset by 128."""
    format: MessageFormat = "json"
    """Form of the messages."""
    start_time: str = "2026-05-01T06:00:00Z"
    """Time of the first event, RFC 3339 with offset."""
    events_per_second: float = 10.0
    """Mean rate in simulated time, over all cameras; arrivals are a Poisson process."""
    track_length: float = 3.0
    """Mean number of consecutive appearances that share a `track_id`; at least 1."""
    same_person_cosine: float = 0.7
    """Mean cosine of two appearances of one person, in [0.01, 0.99]; poor quality lowers it."""
    identity_dim: int = 80
    """Effective dimension of the space of people: the lower, the more strangers look alike."""
    metadata: bool = True
    """Whether events carry age, gender, location, tags and the like, or only what matching needs."""
    with_images: bool = False
    """Whether descriptors name an image, `<event_id>.jpg`. `write_events` sets it when it draws images."""
    bad_share: float = 0.0
    """Share of messages that are broken on purpose, in [0, 1]; an account's first message is always good."""
    faults: tuple[Fault, ...] = FAULTS
    """The kinds of broken messages, taken in turn."""
    too_large_bytes: int = 900_000
    """Least size of a `too_large` message in bytes; to be above the limit of the service under test."""

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_names()
        self._check_times()

    def _check_times(self) -> None:
        # Twice the mean duration, because the arrivals are random.
        end_us = self.start_time_us + int(2e6 * self.events / self.events_per_second)
        if end_us > _END_OF_TIME_US:
            raise InputError(
                f"generate: {self.events} events at {self.events_per_second:g} per second "
                f"from {self.start_time} would end after the year 9999"
            )

    def _check_numbers(self) -> None:
        _within("events", self.events, 0, 2**40)
        if self.people is not None:
            _within("people", self.people, 1, 2**40)
        _within("cameras", self.cameras, 1, 100_000)
        _within("dim", self.dim, 2, MAX_DIMENSION)
        _within("seed", self.seed, 0, 2**63 - 1)
        _within("version", self.version, 0, 2**31 - 1)
        _within("events_per_second", self.events_per_second, 1e-6, 1e6)
        _within("track_length", self.track_length, 1, 1e6)
        _within("same_person_cosine", self.same_person_cosine, 0.01, 0.99)
        _within("identity_dim", self.identity_dim, 2, MAX_DIMENSION)
        _within("bad_share", self.bad_share, 0, 1)
        _within("too_large_bytes", self.too_large_bytes, _SMALLEST_TOO_LARGE, 2**28)

    def _check_names(self) -> None:
        _one_of("descriptor", self.descriptor, get_args(DescriptorChoice))
        _one_of("encoding", self.encoding, ENCODINGS)
        _one_of("format", self.format, get_args(MessageFormat))
        for fault in self.faults:
            _one_of("faults", fault, FAULTS)
        if self.bad_share > 0 and not self.faults:
            raise InputError("generate: bad_share is above 0, but faults names no kind of broken message")
        if not self.accounts or len(set(self.accounts)) != len(self.accounts):
            raise InputError(
                f"generate: accounts must be one or more different names, found {self.accounts!r}"
            )
        for account in self.accounts:
            if not 1 <= len(account) <= 128 or not account.isprintable() or set(account) & set("/\\"):
                raise InputError(
                    f"generate: account {account!r} must be 1 to 128 printable characters without / and \\"
                )
        if self.cameras < len(self.accounts):
            raise InputError(
                f"generate: {len(self.accounts)} accounts need at least as many cameras, found {self.cameras}"
            )

    @property
    def crowd(self) -> int:
        """Number of people to draw from."""
        return max(1, self.events // 5) if self.people is None else self.people

    @property
    def start_time_us(self) -> int:
        """`start_time` in microseconds since the epoch."""
        return parse_time_us(self.start_time)

    @property
    def descriptor_types(self) -> tuple[DescriptorType, ...]:
        """The descriptor types of every event, in the order of its message."""
        return ("face", "body") if self.descriptor == "both" else (self.descriptor,)


def parse_time_us(text: str) -> int:
    """RFC 3339 with offset to microseconds since the epoch; `InputError` when it is neither."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"generate: start_time {text!r} is not an RFC 3339 time: {error}") from error
    if moment.tzinfo is None:
        raise InputError(f"generate: start_time {text!r} has no offset; write for example {text}Z")
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 1_000_000 + since_epoch.microseconds


def _within(name: str, value: float, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"generate: {name} must be a number, found {value!r}")
    if not low <= value <= high:
        raise InputError(f"generate: {name} must be between {low:g} and {high:g}, found {value!r}")


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InputError(f"generate: {name} must be one of {', '.join(allowed)}, found {value!r}")

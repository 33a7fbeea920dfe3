"""The stream of generated records.

Events come in blocks of `scene.BLOCK`. Block b draws from NumPy's generator seeded with (seed, b); people,
places and faults come from stateless hashes (`hashing`). So a stream is a function of its options, and a
longer one starts with the same events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream_cluster.generate.faults import break_message, encode_message
from stream_cluster.generate.hashing import hashed_share
from stream_cluster.generate.options import Fault, GenerateOptions
from stream_cluster.generate.scene import BLOCK, Metadata, Scene, Sightings
from stream_cluster.generate.vectors import appearance_vectors, encode_rows


@dataclass(frozen=True, slots=True)
class GeneratedRecord:
    """One message for the topic of events, and what is known about it."""

    key: bytes
    """The account id in UTF-8."""
    value: bytes
    """The message, in the format of the options."""
    content_type: str
    """For the header `content-type`."""
    expected_reason: Fault | None
    """The reason that the service must reject it with; None for a good message."""
    partition_offset: int
    """To be added to the partition that the key belongs to, modulo their number; 0 unless that is the fault.

    A topic of one partition has no wrong one: leave the fault `wrong_partition` out there.
    """
    event_id: str
    account_id: str
    person: int
    """The truth: number of the person that was seen."""
    create_time_us: int
    photo: int
    """Position in the stream, from 0; chooses the variation of the drawn image."""
    image: str | None
    """Name of the image, when the options ask for images."""


def generate_events(options: GenerateOptions) -> Iterator[GeneratedRecord]:
    """Yield `options.events` records in order of time."""
    scene = Scene(options)
    metadata = Metadata(options) if options.metadata else None
    faults = _Faults(options)
    for block in range(-(-options.events // BLOCK)):
        random = np.random.default_rng([options.seed, block])
        seen = scene.next_block(random)
        messages = _messages(options, seen, metadata, random)
        first = block * BLOCK
        choice = faults.candidates(first)
        for i in range(min(BLOCK, options.events - first)):
            fault = faults.next(messages[i]["account_id"], candidate=bool(choice[i]))
            yield _record(options, seen, (first, i), messages[i], fault)


def _messages(
    options: GenerateOptions, seen: Sightings, metadata: Metadata | None, random: np.random.Generator
) -> list[dict[str, Any]]:
    """The messages of one block as plain data."""
    data = {
        kind: encode_rows(
            appearance_vectors(options, kind, seen.person, seen.quality, random),
            options.encoding,
            options.version,
        )
        for kind in options.descriptor_types
    }
    times = [f"{text}Z" for text in np.datetime_as_string(seen.time_us.view("datetime64[us]"), unit="us")]
    # A person stays in view for half a second to three seconds.
    ends = seen.time_us + 500_000 + seen.chance[:, 1].astype(np.int64) * 10_000
    end_times = [f"{text}Z" for text in np.datetime_as_string(ends.view("datetime64[us]"), unit="us")]
    details = metadata.of_block(seen) if metadata is not None else None
    messages = []
    for i, event_id in enumerate(seen.event_ids):
        camera = int(seen.camera[i])
        message: dict[str, Any] = {
            "event_id": event_id,
            "account_id": options.accounts[camera % len(options.accounts)],
            "create_time": times[i],
            "source": f"cam{camera}",
            "track_id": f"cam{camera}-{seen.track[i]}",
        }
        if details is not None:
            message |= {name: value for name, value in details[i].items() if value is not None}
            message["end_time"] = end_times[i]
        message["descriptors"] = _descriptors(options, seen, i, data)
        messages.append(message)
    return messages


def _descriptors(
    options: GenerateOptions, seen: Sightings, i: int, data: dict[Any, list[bytes]]
) -> list[dict[str, Any]]:
    descriptors = []
    for position, kind in enumerate(options.descriptor_types):
        descriptor: dict[str, Any] = {
            "type": kind,
            "version": options.version,
            "encoding": options.encoding,
            "data": data[kind][i],
            "quality": round(float(seen.quality[i]), 3),
        }
        if options.metadata:
            descriptor["attribute_id"] = seen.attribute_ids[i][position]
        if options.with_images and position == 0:
            descriptor["image"] = f"{seen.event_ids[i]}.jpg"
        descriptors.append(descriptor)
    return descriptors


class _Faults:
    """Decides which events are broken and how: the kinds in turn, the variants of a kind in turn."""

    def __init__(self, options: GenerateOptions) -> None:
        self._options = options
        self._broken = 0
        self._accounts: set[str] = set()

    def candidates(self, first: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """For each event of the block that starts at `first`, whether chance wants it broken."""
        positions = np.arange(first, first + BLOCK, dtype=np.int64)
        return hashed_share(self._options.seed, "fault", positions) < self._options.bad_share

    def next(self, account_id: str, *, candidate: bool) -> tuple[Fault, int] | None:
        """The kind and variant for this event, or None to leave it as it is."""
        # The first descriptor of a space fixes its dimension, so it has to be a good one.
        if not candidate or account_id not in self._accounts:
            self._accounts.add(account_id)
            return None
        variant, kind = divmod(self._broken, len(self._options.faults))
        self._broken += 1
        return self._options.faults[kind], variant


def _record(
    options: GenerateOptions,
    seen: Sightings,
    position: tuple[int, int],
    message: dict[str, Any],
    fault: tuple[Fault, int] | None,
) -> GeneratedRecord:
    """The record of entry i of a block that starts at `first`; `position` is (first, i)."""
    first, i = position
    account_id = message["account_id"]
    if fault is None:
        value = encode_message(message, options.format)
    else:
        value = break_message(*fault, message, options)
    return GeneratedRecord(
        key=account_id.encode(),
        value=value,
        content_type=f"application/{options.format}",
        expected_reason=None if fault is None else fault[0],
        partition_offset=int(fault is not None and fault[0] == "wrong_partition"),
        event_id=seen.event_ids[i],
        account_id=account_id,
        person=int(seen.person[i]),
        create_time_us=int(seen.time_us[i]),
        photo=first + i,
        image=f"{seen.event_ids[i]}.jpg" if options.with_images else None,
    )

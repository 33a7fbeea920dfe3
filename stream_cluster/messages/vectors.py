"""Descriptor bytes to vectors, checked for a whole batch at once.

`payload_of` brings one descriptor to plain bytes of one kind; `VectorBatch` stacks payloads of equal kind and
length and checks them with a few NumPy calls per stack rather than per vector.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from stream_cluster.messages.objects import Vector
from stream_cluster.messages.record import Reason
from stream_cluster.messages.wire import WireDescriptor
from stream_cluster.model import MAX_DIMENSION

Kind = Literal["<f4", "<f2", "i1", "u1"]

SDK_MAGIC = b"dp\0\0"
SDK_HEADER_BYTES = 8

SMALLEST_MAXIMUM = np.float32(1e-30)
"""A float vector whose largest magnitude is smaller counts as zero: 127 / max would overflow float32."""

_ITEM_BYTES: dict[Kind, int] = {"<f4": 4, "<f2": 2, "i1": 1, "u1": 1}
_KINDS: dict[str, Kind] = {"float32": "<f4", "float16": "<f2", "int8": "i1", "uint8": "u1", "sdk": "u1"}


class Refused(Exception):
    """A part of a message that cannot be used. Never leaves this folder: it becomes a `Rejection`."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def payload_of(descriptor: WireDescriptor) -> tuple[Kind, bytes]:
    """The vector's bytes without any header, and their kind. Raises Refused."""
    kind = _KINDS.get(descriptor.encoding)
    if kind is None:
        known = ", ".join(_KINDS)
        raise Refused(
            Reason.UNSUPPORTED_ENCODING, f"found {descriptor.encoding[:40]!r}, expected one of {known}"
        )
    data = descriptor.data
    if isinstance(data, list):
        kind, data = _numbers(data, kind)
    if descriptor.encoding == "sdk":
        data = _strip_sdk_header(data, descriptor.version)
    item_bytes = _ITEM_BYTES[kind]
    if len(data) % item_bytes:
        raise Refused(
            Reason.BAD_FIELD, f"found {len(data)} bytes of data, expected a multiple of {item_bytes}"
        )
    if not 0 < len(data) <= MAX_DIMENSION * item_bytes:
        found = len(data) // item_bytes
        raise Refused(Reason.WRONG_DIMENSION, f"found {found} values, expected 1 to {MAX_DIMENSION}")
    return kind, data


def _numbers(numbers: list[float], kind: Kind) -> tuple[Kind, bytes]:
    """A list of numbers as bytes. Those of float encodings become float32, integers must fit their type."""
    values = np.array(numbers, dtype=np.float64)
    if kind in {"<f4", "<f2"}:
        with np.errstate(over="ignore", invalid="ignore"):
            return "<f4", values.astype("<f4").tobytes()
    least, most = (-128, 127) if kind == "i1" else (0, 255)
    if not np.all((values >= least) & (values <= most) & (values == np.rint(values))):
        raise Refused(Reason.BAD_FIELD, f"found other numbers in data, expected integers {least} to {most}")
    return kind, values.astype(kind).tobytes()


def _strip_sdk_header(data: bytes, version: int) -> bytes:
    if len(data) < SDK_HEADER_BYTES or data[:4] != SDK_MAGIC:
        raise Refused(Reason.BAD_FIELD, "found data without the sdk header, expected dp\\0\\0 and a version")
    found = int.from_bytes(data[4:SDK_HEADER_BYTES], "little")
    if found != version:
        raise Refused(Reason.VERSION_MISMATCH, f"found version {found} in the data, expected {version}")
    return data[SDK_HEADER_BYTES:]


class VectorBatch:
    """Collects payloads, then turns all of them into vectors."""

    def __init__(self, uint8_offset: int) -> None:
        self._uint8_offset = uint8_offset
        self._stacks: dict[tuple[Kind, int], tuple[list[int], list[bytes]]] = {}
        self._count = 0

    def add(self, kind: Kind, payload: bytes) -> int:
        """Take a payload as `payload_of` returns it; its place in the list that `finish` returns."""
        place = self._count
        self._count += 1
        stack = self._stacks.get((kind, len(payload)))
        if stack is None:
            stack = self._stacks[kind, len(payload)] = ([], [])
        stack[0].append(place)
        stack[1].append(payload)
        return place

    def finish(self) -> list[Vector | Refused]:
        """Every vector, or why it is refused, in the order added. A stack shares a read-only block."""
        results: list[Vector | Refused] = [_ZERO] * self._count
        for (kind, _), (places, payloads) in self._stacks.items():
            block = np.frombuffer(b"".join(payloads), dtype=kind).reshape(len(payloads), -1)
            checked = self._floats(block) if kind in {"<f4", "<f2"} else self._integers(block, kind)
            for place, vector in zip(places, checked, strict=True):
                results[place] = vector
        return results

    def _floats(self, block: npt.NDArray[np.floating]) -> list[Vector | Refused]:
        with np.errstate(invalid="ignore"):
            vectors = block.astype(np.float32, copy=False)
            # Either extreme is NaN when any value is.
            largest = np.maximum(vectors.max(axis=1), -vectors.min(axis=1))
        vectors.flags.writeable = False
        rows: list[Vector | Refused] = list(vectors)
        for row in np.flatnonzero(~np.isfinite(largest)):
            rows[row] = Refused(Reason.NOT_FINITE, "found NaN or infinity in data, expected finite values")
        for row in np.flatnonzero(largest < SMALLEST_MAXIMUM):
            rows[row] = _ZERO
        return rows

    def _integers(self, block: npt.NDArray[np.integer], kind: Kind) -> list[Vector | Refused]:
        offset = self._uint8_offset if kind == "u1" else 0
        vectors = np.clip(block.astype(np.int16) - np.int16(offset), -127, 127).astype(np.int8)
        vectors.flags.writeable = False
        rows: list[Vector | Refused] = list(vectors)
        for row in np.flatnonzero(~vectors.any(axis=1)):
            rows[row] = _ZERO
        return rows


_ZERO = Refused(Reason.ZERO_VECTOR, "found only zeros in data, expected a direction")

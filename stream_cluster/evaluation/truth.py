"""Who the objects are: a CSV file with a header, gzipped or not, `id,label`.

The columns may also be called as in events and in `generate --truth`: `event_id` or `face_id`, and `person`.
Others are passed over. An object whose person is not known is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stream_cluster.errors import InputError
from stream_cluster.model import Interrupt, Progress
from stream_cluster.offline.sources import Source, read_rows

ID_COLUMNS = ("id", "event_id", "face_id")
LABEL_COLUMNS = ("label", "person")


@dataclass(frozen=True, slots=True)
class Truth:
    """Labels of objects."""

    name: str
    """Of the file."""
    labels: list[str]
    """Every label once, in the order of the file."""
    label_of: dict[str, int]
    """Number of each object's label."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Which of some objects have a label. Only these are measured."""

    positions: npt.NDArray[np.int64]
    """Of the objects with a label, ascending, shape (n,)."""
    people: npt.NDArray[np.int64]
    """Number of their labels, shape (n,)."""
    without_label: int
    """Objects that the truth does not name."""
    not_found: int
    """Ids of the truth that are none of the objects."""

    @property
    def counts(self) -> dict[str, int]:
        """What was measured and what was not."""
        return {
            "evaluated": len(self.positions),
            "without_label": self.without_label,
            "not_found": self.not_found,
        }


def read_truth(source: Source, interrupt: Interrupt, progress: Progress) -> Truth:
    """Read a file of labels; stage `truth`.

    Raises:
        InputError: not as this module's docstring says, or an id stands there twice; names file and line.
        Cancelled: asked to stop.
    """
    if source.kind != "lines":
        raise InputError(f"{source.name}: found a zip file, expected CSV with the header id,label")
    read_bytes = 0

    def on_bytes(count: int) -> None:
        nonlocal read_bytes
        read_bytes += count
        progress("truth", min(read_bytes / source.size_bytes, 1.0) if source.size_bytes else 0.0)

    rows = read_rows(source, interrupt, on_bytes)
    _, header = next(rows, (0, []))
    id_at, label_at = _column(source, header, ID_COLUMNS), _column(source, header, LABEL_COLUMNS)
    number_of: dict[str, int] = {}
    label_of: dict[str, int] = {}
    for number, row in rows:
        where = f"{source.name}:{number}"
        if len(row) != len(header):
            raise InputError(f"{where}: found {len(row)} fields, expected {len(header)}")
        object_id, label = row[id_at].strip(), row[label_at].strip()
        for name, value in ((header[id_at], object_id), (header[label_at], label)):
            if not value:
                raise InputError(f"{where}: {name}: found nothing; leave objects without a label out")
        if object_id in label_of:
            raise InputError(f"{where}: found {object_id!r} a second time, expected each object once")
        label_of[object_id] = number_of.setdefault(label, len(number_of))
    if not label_of:
        raise InputError(f"{source.name}: found no objects below the header")
    return Truth(source.name, list(number_of), label_of)


def _column(source: Source, header: list[str], names: tuple[str, ...]) -> int:
    found = [position for position, name in enumerate(header) if name.strip() in names]
    if len(found) != 1:
        columns = ", ".join(header) or "nothing"
        raise InputError(
            f"{source.name}:1: found the columns {columns}, expected one named {' or '.join(names)}"
        )
    return found[0]


def match(truth: Truth, ids: Iterable[str], where: str) -> Labelled:
    """Find the labels of objects. `ids`: each once; `where`: what holds them, for messages.

    Raises:
        InputError: none of them has a label.
    """
    numbers = np.fromiter((truth.label_of.get(object_id, -1) for object_id in ids), np.int64)
    positions = np.flatnonzero(numbers >= 0)
    if not len(positions):
        raise InputError(
            f"{truth.name}: found none of the {len(numbers):,} objects of {where} among its "
            f"{len(truth.label_of):,} ids"
        )
    return Labelled(
        positions,
        numbers[positions],
        without_label=len(numbers) - len(positions),
        not_found=len(truth.label_of) - len(positions),
    )

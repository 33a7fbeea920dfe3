"""Words of the domain that every folder shares. No I/O, no dependency but NumPy.

See docs/glossary.md for the prose definitions.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_cluster.errors import Cancelled, TaskError

DescriptorType = Literal["face", "body"]
ObjectType = Literal["event", "face"]
Linkage = Literal["components", "average"]
"""How links make clusters: see `graph.components` and `graph.average`."""

CannotLink = Literal["same_frame"]
"""Which objects are different people whatever their similarity: see `graph.apart`."""

Codes = npt.NDArray[np.int8]
"""int8, shape (n, dim), values in [-127, 127]. Rows are comparable only inside one space."""

InverseNorms = npt.NDArray[np.float32]
"""float32, shape (n,): 1 / Euclidean norm of each code row; 0 for an all-zero row."""

Labels = npt.NDArray[np.int32]
"""int32, shape (n,): component number of each row, numbered 0..k-1."""

MAX_DIMENSION = 4096


class SpaceKey(NamedTuple):
    """The unit of matching: objects of different spaces are never compared."""

    account_id: str
    object_type: ObjectType
    descriptor_type: DescriptorType
    version: int
    """Version of the descriptor model; descriptors of two versions are not comparable."""


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """Undirected links between rows of one space, as parallel arrays of equal length m.

    Invariant: a < b for every link, so each link has one spelling.
    """

    a: npt.NDArray[np.uint32]
    b: npt.NDArray[np.uint32]
    similarity: npt.NDArray[np.float32]
    """Cosine of the two codes in [-1, 1], see `stream_cluster.matching.codes.similarities`."""

    def __len__(self) -> int:
        return len(self.a)

    @property
    def nbytes(self) -> int:
        """Bytes held by the three arrays."""
        return self.a.nbytes + self.b.nbytes + self.similarity.nbytes

    def above(self, threshold_cosine: float) -> Links:
        """The links whose similarity is strictly greater, as the task defines a link."""
        keep = self.similarity > np.float32(threshold_cosine)
        return Links(self.a[keep], self.b[keep], self.similarity[keep])


def no_links() -> Links:
    """An empty set of links."""
    return Links(np.empty(0, np.uint32), np.empty(0, np.uint32), np.empty(0, np.float32))


def concatenate_links(parts: list[Links]) -> Links:
    """One set of links from several, in the order given."""
    if not parts:
        return no_links()
    if len(parts) == 1:
        return parts[0]
    return Links(
        np.concatenate([part.a for part in parts]),
        np.concatenate([part.b for part in parts]),
        np.concatenate([part.similarity for part in parts]),
    )


class Interrupt:
    """A request to stop, checked by long work between steps. Thread-safe.

    The work calls `check()`; whoever wants it to end calls `cancel()`, or sets a deadline at the start.
    """

    def __init__(self, deadline_s: float | None = None, *, elapsed_s: float = 0.0) -> None:
        """`elapsed_s` of the deadline have passed already."""
        self._event = threading.Event()
        self._deadline_s = deadline_s
        self._ends_at = None if deadline_s is None else time.monotonic() + deadline_s - elapsed_s

    def cancel(self) -> None:
        """Ask the work to stop at its next check."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """True once `cancel` was called; a passed deadline does not count."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise `Cancelled`, or `TaskError("deadline_exceeded")`, when it is time to stop."""
        if self._event.is_set():
            raise Cancelled("cancelled on request")
        if self._ends_at is not None and time.monotonic() > self._ends_at:
            raise TaskError("deadline_exceeded", f"not done within deadline_s = {self._deadline_s:g}")


Progress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it that is done, in [0, 1]. May come from any thread."""


def no_progress(stage: str, share: float) -> None:
    """A `Progress` that tells nobody."""

"""What every matching engine offers, so that a space can use any of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stream_cluster.model import Codes, Interrupt

MAX_HITS = 1 << 20
"""Most hits in one chunk, however dense the data."""


@dataclass(frozen=True, slots=True, eq=False)
class Hits:
    """Pairs of a query and a resident row above the threshold, as parallel arrays of equal length.

    One search yields each pair at most once over all its chunks.
    """

    query: npt.NDArray[np.uint32]
    """Position in the codes that were searched for."""
    row: npt.NDArray[np.uint32]
    """Row of the space."""
    similarity: npt.NDArray[np.float32]
    """By the definition in `stream_cluster.matching.codes`."""

    def __len__(self) -> int:
        return len(self.query)


class Matcher(Protocol):
    """Finds resident rows similar to new codes. Used by one thread at a time."""

    @property
    def engine(self) -> str:
        """`exact` or `hnsw`."""
        ...

    @property
    def dim(self) -> int:
        """Dimension of the codes."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes held, about."""
        ...

    def __len__(self) -> int:
        """Rows ever added, removed ones included."""
        ...

    def search(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """Resident rows with similarity > threshold to each of the codes, in chunks of at most `MAX_HITS`.

        The iterator is to be used up, or dropped, before rows are added or removed.

        Raises:
            ValueError: the codes have another type or dimension.
            Cancelled, TaskError: by `interrupt`, checked between steps of well under a second.
        """
        ...

    def add(self, codes: Codes) -> None:
        """Append rows; their numbers continue from `len`."""
        ...

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """Erase rows so that no search returns them; the numbers of other rows do not change."""
        ...

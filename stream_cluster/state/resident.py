"""Which small spaces have their codes in memory: those used last, up to a number of bytes.

The codes of a space take whole blocks in memory, about 34 KB at 512 dimensions even for one object. A hundred
thousand accounts that are idle must not hold as much; what they have is in the database, a query away.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from stream_cluster.state.space import Space

SMALL_ROWS = 10_000
"""A space with fewer rows is small: it is loaded when it is needed and may be let go again. Larger ones are
loaded when the partition opens and stay: loading one would delay the event that needs it."""

DEFAULT_MAX_BYTES = 256 * 1024 * 1024


class ResidentSpaces:
    """The small spaces of a partition that are loaded, the least recently used first."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes` of codes in memory, of all small spaces together, between two batches."""
        self._max_bytes = max_bytes
        self._bytes_of: OrderedDict[int, tuple[Space, int]] = OrderedDict()
        self.nbytes = 0
        """Bytes that the small spaces hold."""

    def __len__(self) -> int:
        return len(self._bytes_of)

    def used(self, spaces: Iterable[Space]) -> None:
        """Note that a batch used these spaces, then let go of others until the rest fits."""
        for space in spaces:
            self._forget(space.space_id)
            matcher = space.matcher
            # A graph takes minutes to build, so it stays whatever its size.
            if matcher is not None and space.next_row < SMALL_ROWS and matcher.holds_only_codes:
                self._bytes_of[space.space_id] = space, matcher.nbytes
                self.nbytes += matcher.nbytes
        while self.nbytes > self._max_bytes:
            space, _ = next(iter(self._bytes_of.values()))
            self._forget(space.space_id)
            assert space.matcher is not None
            space.matcher.close()
            space.matcher = None
            space.known.forget()

    def _forget(self, space_id: int) -> None:
        if (known := self._bytes_of.pop(space_id, None)) is not None:
            self.nbytes -= known[1]

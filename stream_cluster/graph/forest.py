"""The maximum spanning forest of links: a union-find that answers every threshold.

Of all links of a graph, the forest keeps at most (rows - 1), chosen so that for every t the connected
components of {links > t} are those of {forest links > t} (the cycle property of spanning trees).
It composes, MSF(A ∪ B) = MSF(MSF(A) ∪ MSF(B)), so a stream of links is reduced batch by batch.

Links are compared by one total order: higher similarity first, then lower a, then lower b. No two
links tie, so the forest is unique, and how the links were batched or ordered cannot change it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from stream_cluster.model import Links, concatenate_links, no_links

UInt64s = npt.NDArray[np.uint64]

_LOW_32_BITS = np.uint64(0xFFFF_FFFF)


def maximum_spanning_forest(links: Links) -> Links:
    """The unique maximum spanning forest of the links, sorted by (a, b).

    Args:
        links: in any order; a pair may occur more than once (its highest similarity counts); row
            numbers may be sparse: time and memory grow with the number of links, not of rows.

    Returns:
        A subset of the links, without cycles, that connects whatever they connect.
    """
    if len(links) == 0:
        return no_links()
    pairs, similarity = _unique_pairs(links)
    a = (pairs >> np.uint64(32)).astype(np.uint32)
    b = (pairs & _LOW_32_BITS).astype(np.uint32)
    # Best first. Pairs are sorted, so the position breaks ties by (a, b), and one sort of 64-bit keys
    # gives the whole order (several times faster than argsort or lexsort over three columns).
    order = descending_bits(similarity).astype(np.uint64) << np.uint64(32)
    order |= np.arange(len(pairs), dtype=np.uint64)
    order.sort()
    order &= _LOW_32_BITS
    rank = np.empty(len(pairs), np.float64)
    # From 1: csgraph takes a weight of 0 for "no edge". float64 holds every rank exactly.
    rank[order.astype(np.int64)] = np.arange(1, len(pairs) + 1, dtype=np.float64)

    kept_ranks = csgraph.minimum_spanning_tree(_as_graph(a, b, rank), overwrite=True).data
    kept = order[kept_ranks.astype(np.int64) - 1].astype(np.int64)
    kept.sort()
    return Links(a[kept], b[kept], similarity[kept])


class ForestBuilder:
    """Reduces a stream of links to their maximum spanning forest within bounded memory.

    Links collect in a buffer that is merged into the forest when it holds more than
    max(max_buffered_links, links of the forest), so each link is sorted a constant number of times on
    average, and memory stays in proportion to the rows however dense the links are.
    """

    def __init__(self, max_buffered_links: int = 1_000_000) -> None:
        self._max_buffered_links = max_buffered_links
        self._forest = no_links()
        self._buffer: list[Links] = []
        self._buffered = 0
        self._links_seen = 0

    @property
    def links_seen(self) -> int:
        """Number of links added, repetitions included."""
        return self._links_seen

    @property
    def nbytes(self) -> int:
        """Bytes held by the forest and the buffer."""
        return self._forest.nbytes + sum(part.nbytes for part in self._buffer)

    def add(self, links: Links) -> None:
        """Take more links. The arrays are kept, not copied: the caller must not change them afterwards."""
        if len(links) == 0:
            return
        self._buffer.append(links)
        self._buffered += len(links)
        self._links_seen += len(links)
        if self._buffered > max(self._max_buffered_links, len(self._forest)):
            self._reduce()

    def result(self) -> Links:
        """The forest of all links added so far, sorted by (a, b). More links may be added afterwards."""
        if self._buffer:
            self._reduce()
        return self._forest

    def _reduce(self) -> None:
        self._forest = maximum_spanning_forest(concatenate_links([self._forest, *self._buffer]))
        self._buffer.clear()
        self._buffered = 0


def check(links: Links) -> None:
    """Raise AssertionError unless the links are a forest in canonical form (for tests).

    Equal lengths and the documented dtypes; a < b; sorted by (a, b) without repetition; no cycle.
    """
    assert len(links.a) == len(links.b) == len(links.similarity), "arrays differ in length"
    assert links.a.dtype == np.dtype(np.uint32), f"a is {links.a.dtype}"
    assert links.b.dtype == np.dtype(np.uint32), f"b is {links.b.dtype}"
    assert links.similarity.dtype == np.dtype(np.float32), f"similarity is {links.similarity.dtype}"
    assert bool((links.a < links.b).all()), "a link with a >= b"
    pairs = _pair_keys(links)
    assert bool((pairs[1:] > pairs[:-1]).all()), "not sorted by (a, b), or a pair repeated"
    if len(links) == 0:
        return
    graph = _as_graph(links.a, links.b, np.ones(len(links)))
    components, _ = csgraph.connected_components(graph, directed=False)
    assert graph.shape[0] - components == len(links), "the links contain a cycle"


def _pair_keys(links: Links) -> UInt64s:
    """a and b as one integer that sorts by (a, b)."""
    return (links.a.astype(np.uint64) << np.uint64(32)) | links.b


def _unique_pairs(links: Links) -> tuple[UInt64s, npt.NDArray[np.float32]]:
    """Pair keys in ascending order, each once, with the highest similarity given for it."""
    keys = _pair_keys(links)
    similarity = links.similarity
    if not bool((keys[1:] > keys[:-1]).all()):
        order = np.argsort(keys)
        keys = keys[order]
        similarity = similarity[order]
        first = np.concatenate(([True], keys[1:] != keys[:-1]))
        if not bool(first.all()):
            starts = np.flatnonzero(first)
            keys = keys[starts]
            similarity = np.maximum.reduceat(similarity, starts)
    return keys, similarity


def descending_bits(similarity: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Unsigned integers that sort ascending as the floats sort descending (not for NaN).

    IEEE 754 floats order like their bits, but for the sign: negative ones run backwards.
    """
    bits = (similarity + np.float32(0.0)).view(np.uint32)  # + 0.0: -0.0 and 0.0 must not differ
    sign = np.uint32(0x8000_0000)
    ascending = np.where(bits & sign, ~bits, bits | sign)
    return np.invert(ascending)


def _as_graph(
    a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32], weight: npt.NDArray[np.float64]
) -> sparse.csr_array:
    """Links sorted by (a, b), each pair once, as a matrix over only the rows that occur in them.

    Built as CSR at once: by way of COO, SciPy would sort again and add up repetitions.
    """
    compact_a, compact_b, rows = _compact(a, b)
    starts = np.zeros(rows + 1, np.int32)
    np.cumsum(np.bincount(compact_a, minlength=rows), out=starts[1:])
    return sparse.csr_array((weight, compact_b, starts), shape=(rows, rows))


def _compact(
    a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int]:
    """Row numbers replaced by 0..n-1 in the same order, and n."""
    space = int(b.max()) + 1
    if space <= 16 * len(a):
        # A table over the whole space costs less than a sort of the ends while it is this small.
        present = np.zeros(space, np.bool_)
        present[a] = True
        present[b] = True
        number = np.cumsum(present, dtype=np.int32) - np.int32(1)
        return number[a], number[b], int(number[-1]) + 1
    rows = np.unique(np.concatenate((a, b)))
    return (
        np.searchsorted(rows, a).astype(np.int32),
        np.searchsorted(rows, b).astype(np.int32),
        len(rows),
    )

"""Connected components of links, and links along tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from stream_cluster.model import Interrupt, Labels

Rows = npt.NDArray[np.uint32]

_BLOCK_PAIRS = 1 << 21
"""Pairs worked on at once: for about 0.2 s, and in 100 MB."""


def connected_components(
    n_rows: int, pairs: Sequence[tuple[Rows, Rows]], interrupt: Interrupt | None = None
) -> Labels:
    """Component number of each row 0..n_rows-1 in the undirected graph of all pairs.

    Args:
        n_rows: number of rows; one without a pair is a component of its own.
        pairs: any number of (a, b) arrays of equal length, rows below n_rows, in any order; pairs may
            repeat and a may equal b.
        interrupt: checked with every few million pairs.

    Returns:
        int32, shape (n_rows,), numbered 0..k-1 in the order of each component's lowest row, so equal
        partitions have equal labels whatever the links were.

    Raises:
        ValueError: a row is not below n_rows.
        Cancelled, TaskError: by `interrupt`.
    """
    labels = None
    for all_a, all_b in pairs:
        for first in range(0, len(all_a), _BLOCK_PAIRS):
            a, b = all_a[first : first + _BLOCK_PAIRS], all_b[first : first + _BLOCK_PAIRS]
            highest = max(int(a.max()), int(b.max()))
            if highest >= n_rows:
                raise ValueError(f"pairs: found row {highest}, expected rows below {n_rows}")
            if labels is None:
                labels = _components(n_rows, a, b)
            else:
                # The components so far are the rows of a smaller graph, numbered in the same order.
                labels = _components(int(labels.max()) + 1, labels[a], labels[b])[labels]
            if interrupt is not None:
                interrupt.check()
    return np.arange(n_rows, dtype=np.int32) if labels is None else labels


def _components(n_rows: int, a: npt.NDArray[np.integer], b: npt.NDArray[np.integer]) -> Labels:
    if not bool((a[1:] >= a[:-1]).all()):
        # One sort of 64-bit keys; the way over a COO matrix would also add up repetitions.
        keys = (a.astype(np.uint64) << np.uint64(32)) | b.astype(np.uint64)
        keys.sort()
        a = (keys >> np.uint64(32)).astype(np.uint32)
        b = keys.astype(np.uint32)
    starts = np.zeros(n_rows + 1, np.int32)
    np.cumsum(np.bincount(a, minlength=n_rows), out=starts[1:])
    # float64 because csgraph would convert anything else.
    graph = sparse.csr_array((np.ones(len(a)), b.astype(np.int32), starts), shape=(n_rows, n_rows))
    _, labels = csgraph.connected_components(graph, directed=False)
    return np.asarray(labels, np.int32)


def track_pairs(track: npt.NDArray[np.signedinteger]) -> tuple[Rows, Rows]:
    """Pairs (a, b), a < b, that chain the members of each track in the order of their rows.

    Args:
        track: integers, shape (n,): number of each row's track, -1 for none.
    """
    members = np.flatnonzero(track >= 0)
    members = members[np.argsort(track[members], kind="stable")]
    same = track[members[1:]] == track[members[:-1]]
    return members[:-1][same].astype(np.uint32), members[1:][same].astype(np.uint32)

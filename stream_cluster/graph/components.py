"""Connected components of links, and links along tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from stream_cluster.model import Labels

Rows = npt.NDArray[np.uint32]


def connected_components(n_rows: int, pairs: Sequence[tuple[Rows, Rows]]) -> Labels:
    """Component number of each row 0..n_rows-1 in the undirected graph of all pairs.

    Args:
        n_rows: number of rows; one without a pair is a component of its own.
        pairs: any number of (a, b) arrays of equal length, rows below n_rows, in any order; pairs may
            repeat and a may equal b.

    Returns:
        int32, shape (n_rows,), numbered 0..k-1 in the order of each component's lowest row, so equal
        partitions have equal labels whatever the links were.

    Raises:
        ValueError: a row is not below n_rows.
    """
    pairs = [(a, b) for a, b in pairs if len(a)]
    if not pairs:
        return np.arange(n_rows, dtype=np.int32)
    a = pairs[0][0] if len(pairs) == 1 else np.concatenate([a for a, _ in pairs])
    b = pairs[0][1] if len(pairs) == 1 else np.concatenate([b for _, b in pairs])
    highest = max(int(a.max()), int(b.max()))
    if highest >= n_rows:
        raise ValueError(f"pairs: found row {highest}, expected rows below {n_rows}")
    if not bool((a[1:] >= a[:-1]).all()):
        # One sort of 64-bit keys; the way over a COO matrix would also add up repetitions.
        keys = (a.astype(np.uint64) << np.uint64(32)) | b
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

"""What hangs on each link of a forest: how many objects are on its smaller side."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from stream_cluster.model import Interrupt, Links

Counts = npt.NDArray[np.int64]


def smaller_sides(n_rows: int, forest: Links, interrupt: Interrupt) -> Counts:
    """Rows on the smaller side of each link, were it removed. Shape (len(forest),).

    Args:
        forest: links of rows 0..n_rows-1 without cycles.

    Raises:
        Cancelled, TaskError: by `interrupt`.
    """
    if not len(forest):
        return np.empty(0, np.int64)
    a, b = forest.a.astype(np.int64), forest.b.astype(np.int64)
    graph = sparse.coo_array((np.ones(len(a)), (a, b)), shape=(n_rows, n_rows)).tocsr()
    count, tree = csgraph.connected_components(graph, directed=False)
    roots = np.full(count, n_rows, np.int64)
    np.minimum.at(roots, tree, np.arange(n_rows))
    # One search from a row above all trees walks all of them.
    ends = np.concatenate((b, roots))
    begins = np.concatenate((a, np.full(count, n_rows)))
    rooted = sparse.coo_array((np.ones(len(ends)), (begins, ends)), shape=(n_rows + 1, n_rows + 1)).tocsr()
    order, parent = csgraph.breadth_first_order(rooted, n_rows, directed=False)
    below = [1] * (n_rows + 1)
    above = parent.tolist()
    # From the leaves up; plain integers, as each step needs the one before.
    for number, row in enumerate(order[:0:-1].tolist()):
        below[above[row]] += below[row]
        if number % 1_000_000 == 0:
            interrupt.check()
    sizes = np.array(below, np.int64)
    child = np.where(parent[b] == a, b, a)
    sides: Counts = np.minimum(sizes[child], sizes[roots[tree[child]]] - sizes[child])
    return sides

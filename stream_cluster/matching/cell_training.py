"""Centroids of cells: spherical k-means on codes, with the kernel for the assignment.

Deterministic: the same sample gives the same centroids, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from stream_cluster.matching import kernel
from stream_cluster.matching.codes import quantise
from stream_cluster.matching.kernel import PackedRows
from stream_cluster.matching.threads import thread_limit
from stream_cluster.model import Codes

ROWS_PER_CENTROID = 40
"""Rows of the sample for each centroid: with fewer, centroids fit the sample and not the space."""

FEWEST_MEMBERS = 8
"""A centroid is the mean of at least so many rows of the sample: the descriptor of nobody."""

_ITERATIONS = 5
_SEED = 9
_FEWEST_CELLS = 16
_MOST_CELLS = 1 << 16
_CELLS_PER_ROOT = 4.0

Cells = npt.NDArray[np.uint32]
ShouldStop = Callable[[], bool]


class Centroids:
    """Centroids and the cell of each."""

    def __init__(self, codes: Codes, cells: Cells) -> None:
        """Codes of shape (k, dim), and the number of the cell of each."""
        self.codes = codes
        self.cells = cells
        self.packed = PackedRows(codes.shape[1])
        self.packed.append(np.ascontiguousarray(codes))

    def __len__(self) -> int:
        return len(self.codes)

    def cells_of(self, codes: Codes, threads: int | None = None) -> Cells:
        """The cell of each of these codes: that of the most similar centroid."""
        best, _ = kernel.best(
            self.packed, np.ascontiguousarray(codes), threads=threads or thread_limit(), path=""
        )
        cells: Cells = self.cells[best]
        return cells


def cell_count(rows: int) -> int:
    """How many cells suit a space of so many rows: in proportion to its root, so that the cost of a query,
    which is compared with all centroids and the rows of some cells, grows with the root too."""
    return int(np.clip(round(_CELLS_PER_ROOT * rows**0.5 / 64) * 64, _FEWEST_CELLS, _MOST_CELLS))


def sample_of(rows: int, cells: int) -> npt.NDArray[np.int64]:
    """Rows to learn so many cells from: of the rows 0..rows - 1, ascending, without repetition."""
    wanted = cells * ROWS_PER_CENTROID
    if wanted >= rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng([_SEED, rows]).choice(rows, wanted, replace=False))


def learn_centroids(
    sample: Codes, count: int, *, threads: int | None = None, should_stop: ShouldStop = lambda: False
) -> Codes | None:
    """About `count` centroids of a sample: codes of shape (k, dim), k at most count and at least 1.

    None when told to stop, or when the sample has too few rows that are not zero.
    """
    sample = sample[sample.any(axis=1)]
    count = min(count, len(sample) // FEWEST_MEMBERS)
    if count < 1:
        return None
    threads = threads or thread_limit()
    random = np.random.default_rng([_SEED, len(sample), count])
    centroids = sample[np.sort(random.choice(len(sample), count, replace=False))]
    for iteration in range(_ITERATIONS):
        if should_stop():
            return None
        packed = PackedRows(sample.shape[1])
        packed.append(np.ascontiguousarray(centroids))
        best, similarity = kernel.best(packed, sample, threads=threads, path="")
        sizes = np.bincount(best, minlength=len(centroids))
        sums = kernel.add_up(sample, best, len(centroids), threads=threads)
        kept = (sizes >= FEWEST_MEMBERS) & sums.any(axis=1)
        centroids = quantise(sums[kept])
        lacking = count - len(centroids)
        if lacking and iteration < _ITERATIONS - 2:
            # Where there were too few: from the rows that fit worst, which begin cells of their own.
            worst = np.argpartition(similarity, min(4 * lacking, len(sample) - 1))[: 4 * lacking]
            begin = np.sort(random.choice(worst, min(lacking, len(worst)), replace=False))
            centroids = np.concatenate([centroids, sample[begin]])
        if len(centroids) == 0:
            return None
    return centroids


def split_in_two(codes: Codes) -> Codes | None:
    """Two centroids for the rows of a cell; None when they are too few or too much alike."""
    centroids = learn_centroids(codes, 2)
    return None if centroids is None or len(centroids) < 2 else centroids

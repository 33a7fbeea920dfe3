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

ROWS_PER_CENTROID = 32
"""Rows of the sample for each centroid: with fewer, centroids fit the sample and not the space."""

FEWEST_MEMBERS = 8
"""A centroid is the mean of at least so many rows of the sample: the descriptor of nobody."""

_ITERATIONS = 5
_SEED = 9
_FEWEST_CELLS = 16
_MOST_CELLS = 1 << 16
_CELLS_PER_ROOT = 8.0
_GROUPED_FROM = 2048
_GROUPS_SEARCHED = 4
_AT_ONCE = 32_768

Cells = npt.NDArray[np.uint32]
ShouldStop = Callable[[], bool]


def best_centroids(
    centroids: Codes, codes: Codes, threads: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """(number, similarity) of the most similar centroid of each code, or of one that is about as similar.

    Many codes and many centroids: centroids are themselves put into groups, and a code is compared with those
    of the groups most like it. That is a fraction of the work, and finds the best nearly always.
    """
    packed = PackedRows(centroids.shape[1])
    packed.append(np.ascontiguousarray(centroids))
    codes = np.ascontiguousarray(codes)
    if len(centroids) < _GROUPED_FROM or len(codes) < _GROUPED_FROM:
        found: tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]] = kernel.best(
            packed, codes, threads=threads, path=""
        )
        return found
    return _Grouped(centroids, threads).best(codes, threads)


class _Grouped:
    """Centroids in groups of similar ones, of which a code is compared with `_GROUPS_SEARCHED`."""

    def __init__(self, centroids: Codes, threads: int) -> None:
        heads = learn_centroids(centroids, round(len(centroids) ** 0.5), threads=threads)
        if heads is None:
            heads = centroids[:1]
        self._heads = PackedRows(centroids.shape[1])
        self._heads.append(np.ascontiguousarray(heads))
        group, _ = kernel.best(self._heads, np.ascontiguousarray(centroids), threads=threads, path="")
        self._members = [np.flatnonzero(group == number).astype(np.uint32) for number in range(len(heads))]
        self._packed = []
        for members in self._members:
            packed = PackedRows(centroids.shape[1])
            packed.append(np.ascontiguousarray(centroids[members]))
            self._packed.append(packed)

    def best(self, codes: Codes, threads: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
        best = np.zeros(len(codes), np.uint32)
        similarity = np.full(len(codes), -2.0, np.float32)
        for first in range(0, len(codes), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            self._best(codes[part], best[part], similarity[part], threads)
        return best, similarity

    def _best(
        self,
        codes: Codes,
        best: npt.NDArray[np.uint32],
        similarity: npt.NDArray[np.float32],
        threads: int,
    ) -> None:
        offsets, groups, _ = kernel.nearest(
            self._heads, codes, 3.0, most=_GROUPS_SEARCHED, threads=threads, path=""
        )
        ends = offsets.astype(np.int64)
        owners = np.repeat(np.arange(len(codes)), ends[1:] - ends[:-1])
        order = np.argsort(groups, kind="stable")
        starts = np.searchsorted(groups[order], np.arange(len(self._members) + 1))
        for number, members in enumerate(self._members):
            rows = owners[order[starts[number] : starts[number + 1]]]
            if len(rows) == 0 or len(members) == 0:
                continue
            place, found = kernel.best(self._packed[number], codes[rows], threads=threads, path="")
            better = found > similarity[rows]
            best[rows[better]] = members[place[better]]
            similarity[rows[better]] = found[better]


class Centroids:
    """Centroids and the cell of each."""

    def __init__(self, codes: Codes, cells: Cells) -> None:
        """Codes of shape (k, dim), and the number of the cell of each."""
        self.codes = codes
        self.cells = cells
        self._grouped: _Grouped | None = None  # when many codes are put into many cells
        self.packed = PackedRows(codes.shape[1])
        self.packed.append(np.ascontiguousarray(codes))

    def __len__(self) -> int:
        return len(self.codes)

    def cells_of(self, codes: Codes, threads: int | None = None) -> Cells:
        """The cell of each of these codes: that of the most similar centroid, or about as similar."""
        codes = np.ascontiguousarray(codes)
        threads = threads or thread_limit()
        if len(self) >= _GROUPED_FROM and len(codes) >= _GROUPED_FROM:
            if self._grouped is None:
                self._grouped = _Grouped(self.codes, threads)
            best, _ = self._grouped.best(codes, threads)
        else:
            best, _ = kernel.best(self.packed, codes, threads=threads, path="")
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
    is_zero = ~sample.any(axis=1)
    if bool(is_zero.any()):
        sample = sample[~is_zero]
    count = min(count, len(sample) // FEWEST_MEMBERS)
    if count < 1:
        return None
    threads = threads or thread_limit()
    random = np.random.default_rng([_SEED, len(sample), count])
    centroids = sample[np.sort(random.choice(len(sample), count, replace=False))]
    for iteration in range(_ITERATIONS):
        if should_stop():
            return None
        best, similarity = best_centroids(centroids, sample, threads)
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

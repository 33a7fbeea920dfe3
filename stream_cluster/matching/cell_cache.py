"""The cells of a space on disk, so that a restart trains nothing.

The file (see `cache_file`) holds the centroids, int8 of shape (cells, dim), and then for each row the number
of its centroid, little-endian uint32, 2**32 - 1 for removed rows. Rows that came after the file was written
are put into cells when they are read: that takes microseconds each. No descriptor is in it: a centroid is the
mean of `cell_training.FEWEST_MEMBERS` objects or more. A file that does not fit the rows costs nothing but
recall, which is measured, and is refused all the same when a sample of rows lies elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream_cluster import files
from stream_cluster.matching import cache_file
from stream_cluster.matching.cache_file import CacheRejected
from stream_cluster.matching.cell_store import REMOVED
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.model import Codes

_CHECKED_ROWS = 256
_LEAST_AGREEMENT = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class SavedCells:
    """What the file holds."""

    centroids: Codes
    """Shape (k, dim)."""
    place: npt.NDArray[np.uint32]
    """Number of the centroid of each row, shape (rows,)."""
    trained_rows: int
    margin: float


def save(path: Path, matcher: CellMatcher) -> bool:
    """Write the cells of a matcher; False when there are none, or rows are on their way to new ones.

    Raises:
        OSError: it cannot be written.
    """
    with matcher.store.lock:
        centroids = matcher.centroids
        if centroids is None or not matcher.is_settled:
            return False
        cells = matcher.store.cell_of(np.arange(len(matcher.store)))
        numbers = np.full(matcher.store.packed.cell_count, REMOVED, np.uint32)
        numbers[centroids.cells] = np.arange(len(centroids), dtype=np.uint32)
    live = cells != REMOVED
    place = np.full(len(cells), REMOVED, "<u4")
    place[live] = numbers[cells[live]]

    def write(name: str) -> None:
        with files.create(Path(name), files.OWNER) as file:
            file.write(centroids.codes.tobytes())
            file.write(place.tobytes())

    files.make_folder(path.parent)
    fields: cache_file.Fields = {
        "engine": "cells 1",
        "dim": matcher.dim,
        "cells": len(centroids),
        "rows": len(place),
        "trained_rows": matcher.trained_rows,
        "margin_e6": round(matcher.control.margin * 1e6),
    }
    cache_file.save(path, write, centroids.codes.nbytes + place.nbytes, fields)
    return True


def load(path: Path, dim: int) -> SavedCells:
    """Read a file.

    Raises:
        CacheRejected: missing, damaged, or of another dimension or format.
    """
    fields = cache_file.verify(path)
    if fields.get("engine") != "cells 1" or fields.get("dim") != dim:
        raise CacheRejected("parameters", f"{path}: found {fields}, expected cells of dimension {dim}")
    count, rows = int(fields["cells"]), int(fields["rows"])
    data = path.read_bytes()
    if len(data) != count * dim + 4 * rows:
        raise CacheRejected("damaged", f"{path}: found {len(data)} bytes, expected {count * dim + 4 * rows}")
    centroids = np.frombuffer(data, np.int8, count * dim).reshape(count, dim)
    place = np.frombuffer(data, "<u4", rows, count * dim)
    if bool(((place >= count) & (place != REMOVED)).any()):
        raise CacheRejected("damaged", f"{path}: found a row in a cell that is not there")
    margin = int(fields["margin_e6"]) / 1e6
    return SavedCells(centroids, place, int(fields["trained_rows"]), margin)


class Restoring:
    """Puts rows that come from the state into a matcher's cells, as a saved file says."""

    def __init__(self, matcher: CellMatcher, saved: SavedCells) -> None:
        """Of a matcher without rows."""
        self._matcher = matcher
        self._saved = saved
        centroids = matcher.with_cells(saved.centroids.copy())
        matcher.adopt(centroids, saved.trained_rows)
        self._cells = centroids.cells
        matcher.control.margin = saved.margin
        self._checked = self._agreed = 0

    def add(self, codes: Codes) -> None:
        """Add the next rows; zeros are removed rows."""
        first = len(self._matcher)
        place = self._saved.place[first : first + len(codes)]
        known = np.arange(len(codes)) < len(place)
        known[known] = place[: int(known.sum())] != REMOVED
        removed = ~codes.any(axis=1)
        cells = np.full(len(codes), REMOVED, np.uint32)
        cells[known] = self._cells[place[known[: len(place)]]]
        self._check(codes, cells, np.flatnonzero(known & ~removed))
        unknown = ~known & ~removed
        if bool(unknown.any()):
            cells[unknown] = self._matcher.nearest_cells(codes[unknown])
        cells[removed] = REMOVED
        self._matcher.append(codes, cells)

    @property
    def fits(self) -> bool:
        """Whether the rows that were looked at lie where they belong."""
        return self._agreed >= _LEAST_AGREEMENT * self._checked

    def _check(self, codes: Codes, cells: npt.NDArray[np.uint32], rows: npt.NDArray[np.intp]) -> None:
        if self._checked < _CHECKED_ROWS and len(rows):
            rows = rows[:: max(len(rows) // 32, 1)]
            self._agreed += int((self._matcher.nearest_cells(codes[rows]) == cells[rows]).sum())
            self._checked += len(rows)

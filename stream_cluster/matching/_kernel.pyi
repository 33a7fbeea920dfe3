"""The native kernel; its C++ is in `native/`. Callers use `store` and `exact`, which fit it in."""

import numpy as np
import numpy.typing as npt

class Sketch:
    """A rotation by which sketches are made; see `native/sketch.h`."""

    def __init__(self, rotation: npt.NDArray[np.float32], step: float) -> None:
        """Rotation of shape (dim, width), C-contiguous, with orthonormal columns; width 32, 64, 96 or 128.

        Raises ValueError for another width, or a step below 1/253.
        """

    @property
    def dim(self) -> int: ...
    @property
    def width(self) -> int: ...

class PackedRows:
    """Codes of one space in packed blocks of 64 rows, which the kernel reads as they are.

    Every method but a search holds the GIL. Rows may be read while a search runs, but not changed.
    """

    def __init__(self, dim: int) -> None:
        """Raises ValueError unless 1 <= dim <= 4096."""

    @property
    def dim(self) -> int: ...
    @property
    def removed_count(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes allocated."""

    def __len__(self) -> int:
        """Rows ever appended, removed ones included."""

    def append(self, codes: npt.NDArray[np.int8]) -> None:
        """Add rows, shape (n, dim), C-contiguous. Raises ValueError for -128; nothing is added then."""

    def use_sketch(self, sketch: Sketch, *, threads: int) -> None:
        """Make sketches of all rows instead of those there are, and of rows appended later; without the GIL.

        Not during a search. Raises ValueError for another dimension.
        """

    @property
    def sketch_width(self) -> int:
        """Values of each sketch; 0 when there are none."""

    def remove(self, rows: npt.NDArray[np.uint32]) -> None:
        """Erase rows. These four raise IndexError for a row that is not there."""

    def gather(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.int8]: ...
    def gather_norms(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]: ...
    def is_removed(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]: ...

class CellRows:
    """Codes of one space in packed blocks of 64 rows that each belong to one cell; see `native/cell_rows.h`.

    Not thread-safe: `cell_store` keeps changes apart from each other, from reading and from searches.
    """

    def __init__(self, dim: int, file: int = -1) -> None:
        """With an open file, which is closed with the rows, codes lie there and not in memory.

        Raises ValueError unless 1 <= dim <= 4096.
        """

    @property
    def dim(self) -> int: ...
    @property
    def removed_count(self) -> int: ...
    @property
    def nbytes(self) -> int:
        """Bytes allocated, those of the file included."""

    @property
    def file_bytes(self) -> int: ...
    @property
    def cell_count(self) -> int: ...
    @property
    def block_count(self) -> int:
        """Blocks ever used, empty ones included."""

    def sizes(self) -> npt.NDArray[np.uint32]:
        """Rows of each cell."""

    def __len__(self) -> int:
        """Rows ever appended, removed ones included."""

    def add_cells(self, count: int) -> None: ...
    def append(self, codes: npt.NDArray[np.int8], cells: npt.NDArray[np.uint32]) -> None:
        """Add rows, shape (n, dim), C-contiguous, each to a cell; 2**32 - 1: a removed row.

        Raises ValueError for -128, IndexError for a cell that is not there; nothing is added then. Raises
        MemoryError when there is no room.
        """

    def move(self, rows: npt.NDArray[np.uint32], cells: npt.NDArray[np.uint32]) -> None:
        """Move rows to other cells. These raise IndexError for a row or cell that is not there."""

    def remove(self, rows: npt.NDArray[np.uint32]) -> None: ...
    def gather(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.int8]: ...
    def gather_norms(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]: ...
    def is_removed(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]: ...
    def cell_of(self, rows: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """2**32 - 1 for removed rows."""

    def rows_of(self, cell: int) -> npt.NDArray[np.uint32]: ...

class Run:
    """A comparison under way. The thread that calls `next` works too. Used by one thread at a time."""

    def next(
        self, timeout_s: float
    ) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.float32]] | None:
        """Work until there is a chunk of hits, the time is up or all is done; without the GIL.

        Returns (left, right, similarity), 1 to `max_hits` of them, or None.
        """

    def stop(self) -> None:
        """End the other threads. Also done when the run is deleted."""

    @property
    def done(self) -> bool:
        """No chunk will come any more."""

    @property
    def progress(self) -> float:
        """Share of the pairs that were compared."""

    @property
    def threads(self) -> int:
        """Threads that work, the caller's included."""

def search(
    rows: PackedRows,
    queries: npt.NDArray[np.int8],
    threshold: float,
    *,
    first_row: int,
    threads: int,
    max_hits: int,
    path: str,
) -> Run:
    """Hits of the queries among the rows from `first_row` on: (position of the query, row).

    Args:
        rows: as they are now.
        queries: shape (n, dim), C-contiguous.
        path: one of `available_paths`; empty: see `path_in_use`.

    Raises:
        ValueError: another dimension, a code of -128, or a path that this processor does not support.
    """

def pairs_of_codes(
    codes: npt.NDArray[np.int8],
    rows: npt.NDArray[np.uint32] | None,
    threshold: float,
    *,
    sketch: Sketch | None = None,
    threads: int,
    max_hits: int,
    path: str,
) -> Run:
    """Each pair of codes above the threshold once; of these rows, which positions are then counted in.

    A sketch changes no result, but excludes most pairs. The run makes it of all codes first.

    Raises:
        ValueError: as for `search`.
        IndexError: a row that is not there.
    """

def pairs_of_packed(
    packed: PackedRows,
    rows: npt.NDArray[np.uint32] | None,
    threshold: float,
    *,
    sketch: Sketch | None = None,
    threads: int,
    max_hits: int,
    path: str,
) -> Run:
    """`pairs_of_codes` for packed rows. Removed rows are in no pair.

    Without `rows` and `sketch`, the sketches of the packed rows are used.
    """

def nearest(
    centroids: PackedRows,
    codes: npt.NDArray[np.int8],
    margin: float,
    *,
    most: int,
    threads: int,
    path: str,
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """(offsets, rows of `centroids`, similarity): those less than `margin` below the best, the best first.

    Those of code q are offsets[q] to offsets[q + 1]: at most `most`, at least one. Without the GIL.
    """

def best(
    centroids: PackedRows, codes: npt.NDArray[np.int8], *, threads: int, path: str
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.float32]]:
    """(row of `centroids`, similarity) of the best for each code; the lowest row of equal ones."""

def add_up(
    codes: npt.NDArray[np.int8], centroid: npt.NDArray[np.uint32], centroids: int, *, threads: int
) -> npt.NDArray[np.float32]:
    """Sums of the unit vectors of the codes of each centroid, shape (centroids, dim)."""

def search_cells(
    cells: CellRows,
    queries: npt.NDArray[np.int8],
    offsets: npt.NDArray[np.uint64],
    probed: npt.NDArray[np.uint32],
    threshold: float,
    *,
    pairs: bool,
    threads: int,
    max_hits: int,
    path: str,
) -> Run:
    """Hits of query q among the rows of the cells probed[offsets[q]:offsets[q + 1]]: (query, row).

    With `pairs` the queries are all rows in order, and each pair comes once: (lower row, higher row).

    Raises:
        ValueError: another dimension, a code of -128, or offsets that do not fit.
        IndexError: a cell that is not there.
    """

def scan_cells(
    cells: CellRows,
    queries: npt.NDArray[np.int8],
    blocks: npt.NDArray[np.uint32] | None,
    threshold: float,
    *,
    threads: int,
    max_hits: int,
    path: str,
) -> Run:
    """Hits of the queries among the rows of these blocks, or of all: (query, row)."""

def available_paths() -> list[str]:
    """The instruction sets that run here, the fastest first."""

def path_in_use(path: str) -> str:
    """The path that a name stands for; the empty name: STREAM_CLUSTER_KERNEL, or else the fastest.

    Raises:
        ValueError: this processor does not support it; the message says which it does.
    """

"""Exact matching with the native kernel. `numpy_exact` is the same in NumPy: the oracle of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from stream_cluster.matching import kernel
from stream_cluster.matching.codes import check_codes
from stream_cluster.matching.protocol import MAX_HITS, Hits
from stream_cluster.matching.sketch import learn_sketch, sample_rows
from stream_cluster.matching.store import CodeStore, row_numbers
from stream_cluster.matching.threads import thread_limit
from stream_cluster.model import Codes, Interrupt, Links, Progress, no_progress

CHECK_EVERY_S = 0.05
"""How long the kernel works before it comes back to look for an interrupt."""

SKETCH_AFTER = 20_000
"""All pairs of fewer rows are compared in less time than it takes to learn a sketch."""


class ExactMatcher:
    """A `Matcher` that compares with every resident row."""

    engine = "exact"

    def __init__(self, dim: int, *, store: CodeStore | None = None) -> None:
        """Over its own store, or over one that is shared; then whoever shares it may also append."""
        self.store = CodeStore(dim) if store is None else store

    @property
    def dim(self) -> int:
        """Dimension of the codes."""
        return self.store.dim

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.store.nbytes

    def __len__(self) -> int:
        return len(self.store)

    def search(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """See `Matcher.search`."""
        return scan(self.store, codes, threshold_cosine, interrupt=interrupt)

    def add(self, codes: Codes) -> None:
        """See `Matcher.add`."""
        self.store.append(codes)

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """See `Matcher.remove`."""
        self.store.remove(rows)


def scan(
    store: CodeStore,
    codes: Codes,
    threshold_cosine: float,
    *,
    first_row: int = 0,
    interrupt: Interrupt | None = None,
) -> Iterator[Hits]:
    """Hits of the codes among the rows of the store from `first_row` on. See `Matcher.search`."""
    check_codes(codes, store.dim)
    run = kernel.search(
        store.packed,
        np.ascontiguousarray(codes),
        threshold_cosine,
        first_row=first_row,
        threads=thread_limit(),
        max_hits=MAX_HITS,
        path="",
    )
    for query, row, similarity in _pull(run, interrupt, no_progress):
        yield Hits(query, row, similarity)


def all_pairs(
    codes: Codes | CodeStore,
    threshold_cosine: float,
    *,
    rows: npt.NDArray[np.integer] | None = None,
    interrupt: Interrupt | None = None,
    progress: Progress | None = None,
) -> Iterator[Links]:
    """All links among the codes, each pair compared once, in chunks of at most `MAX_HITS`.

    While the caller deals with a chunk, at most a few more are made, so memory stays bounded however many
    links there are. Uses as many threads as `threads.limit_threads` set.

    Args:
        codes: codes, or a store of them; never copied as a whole. Not to be changed meanwhile.
        threshold_cosine: a link has a similarity strictly above it.
        rows: compare only these rows; a and b of the links are then positions in `rows`.
        interrupt: checked every 50 ms and with every chunk.
        progress: called with the stage "match".

    Raises:
        ValueError: not int8 of shape (n, 1..4096), or a value of -128.
        IndexError: a row that is not there.
        Cancelled, TaskError: by `interrupt`.
    """
    numbers = None if rows is None else row_numbers(rows, len(codes))
    threads = thread_limit()
    if isinstance(codes, CodeStore):
        sketch = _sketch_for(codes, rows, threshold_cosine)
        run = kernel.pairs_of_packed(
            codes.packed,
            numbers,
            threshold_cosine,
            sketch=sketch,
            threads=threads,
            max_hits=MAX_HITS,
            path="",
        )
    else:
        check_codes(codes, codes.shape[-1])
        codes = np.ascontiguousarray(codes)
        sketch = _sketch_for(codes, rows, threshold_cosine)
        run = kernel.pairs_of_codes(
            codes,
            numbers,
            threshold_cosine,
            sketch=sketch,
            threads=threads,
            max_hits=MAX_HITS,
            path="",
        )
    for a, b, similarity in _pull(run, interrupt, no_progress if progress is None else progress):
        yield Links(a, b, similarity)


def _sketch_for(
    codes: Codes | CodeStore, rows: npt.NDArray[np.integer] | None, threshold_cosine: float
) -> kernel.Sketch | None:
    """A sketch of just what is compared; None where there is one, for few rows, or where it is of no use."""
    if rows is None and isinstance(codes, CodeStore) and codes.packed.sketch_width:
        return None  # the kernel uses those of the store
    count = len(codes) if rows is None else len(rows)
    if count < SKETCH_AFTER or not 0 < threshold_cosine < 1:
        return None
    sample = sample_rows(count) if rows is None else rows[sample_rows(count)]
    return learn_sketch(
        codes.gather(sample) if isinstance(codes, CodeStore) else codes[sample], threshold_cosine
    )


def _pull(
    run: kernel.Run, interrupt: Interrupt | None, progress: Progress
) -> Iterator[tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.float32]]]:
    """The chunks of a run, until it is done. Its threads end when the iterator is dropped."""
    try:
        while not run.done:
            if interrupt is not None:
                interrupt.check()
            chunk = run.next(CHECK_EVERY_S)
            progress("match", run.progress)
            if chunk is not None:
                yield chunk
    finally:
        run.stop()

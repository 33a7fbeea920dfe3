"""Approximate matching on hnswlib, with a true radius search. The only file that knows hnswlib.

hnswlib ranks by 1 - cosine of float32 copies of the codes; that ranking only proposes candidates. Their
similarity is computed from the codes, so what is reported is bit-identical to exact matching, and the
only possible difference is a missing hit.

What hnswlib 0.8 demands, and where it is met:

- No radius search: k grows until the weakest of k candidates is below the threshold (`_proposals`).
- `knn_query` raises for the whole batch when one query finds fewer than k, because k exceeds the live
  elements or because duplicates cut the graph in pieces: k stays within the live elements, and a batch
  that raises is halved until the queries to blame stand alone; those are matched exactly.
- add, query, resize and save must not overlap: an instance is used by one thread at a time.
- A fixed capacity: it is resized by half before it is exceeded (`_make_room`).
- An all-zero vector is at distance 1 from everything and would be a dead end: it is not put in.
- Loading, saving and resizing hold the GIL: about a second per gigabyte in which no other thread runs.
  Adding and searching release it.
- Saving is neither atomic nor checksummed, and a full disk goes unnoticed: see `cache_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import hnswlib
import numpy as np
import numpy.typing as npt

from stream_cluster.matching import cache_file
from stream_cluster.matching.cache_file import CacheRejected
from stream_cluster.matching.codes import check_codes, inverse_norms, pair_dots, similarities
from stream_cluster.matching.exact import scan
from stream_cluster.matching.protocol import MAX_HITS, Hits
from stream_cluster.matching.store import CodeStore
from stream_cluster.matching.threads import resolve_threads
from stream_cluster.model import Codes, Interrupt

FIRST_K = 16
K_GROWTH = 4
MAX_K = 2048
"""A query with more hits than this is matched exactly: a walk of the graph that long costs more."""

_SLACK = 1e-3
"""How far hnswlib's float32 cosine may be from ours; 4096 roundings of 6e-8 stay far below it."""

_FIRST_CAPACITY = 1024
_CHUNK_ROWS = 1024
_QUERY_BATCH = 256
_SEED = 100

Labels64 = npt.NDArray[np.uint64]


class HnswParameters(NamedTuple):
    """What the shape of the graph depends on; a cache with other parameters is not used."""

    m: int = 16
    ef_construction: int = 200


class HnswMatcher:
    """A `Matcher` over a graph of the first `indexed` rows; later rows of the store are scanned exactly."""

    engine = "hnsw"

    def __init__(
        self,
        dim: int,
        m: int = 16,
        ef_construction: int = 200,
        ef_search: int = 100,
        threads: int = 0,
        *,
        exact_below: int = 0,
        store: CodeStore | None = None,
    ) -> None:
        """Over its own store, or over one that is shared; rows of a shared one enter by `catch_up`.

        Args:
            dim: dimension of the codes.
            m: links per node of the graph (twice that on its lowest layer).
            ef_construction: candidates kept while a row is put in.
            ef_search: candidates kept while a query is answered.
            threads: for adding and searching; 0 means one per core.
            exact_below: with fewer live rows than this, search scans them all, which is faster then.
            store: the codes.
        """
        self.store = CodeStore(dim) if store is None else store
        self.parameters = HnswParameters(m, ef_construction)
        self._ef_search = ef_search
        self._threads = resolve_threads(threads)
        self._exact_below = exact_below
        self._index = hnswlib.Index("cosine", dim)
        self._index.init_index(
            _FIRST_CAPACITY,
            M=m,
            ef_construction=ef_construction,
            random_seed=_SEED,
            allow_replace_deleted=False,
        )
        self._index.set_ef(ef_search)
        self._indexed = 0
        self._in_graph = np.zeros(0, np.bool_)  # rows that are in the graph and not marked as deleted
        self._live = 0
        self._holds_removed = False

    @property
    def dim(self) -> int:
        """Dimension of the codes."""
        return self.store.dim

    @property
    def indexed(self) -> int:
        """Rows below this number are covered by the graph."""
        return self._indexed

    @property
    def live(self) -> int:
        """Rows in the graph that a search can find."""
        return self._live

    @property
    def holds_removed(self) -> bool:
        """Whether the graph has vectors of removed rows: hnswlib marks them and never lets go of them."""
        return self._holds_removed

    @property
    def nbytes(self) -> int:
        """Bytes of codes and graph, about: a float32 vector, links of the lowest layer, a label."""
        # About 100 for what hnswlib keeps beside it: a lock, a level, an entry in its map of labels.
        per_element = 4 * self.dim + 4 * (2 * self.parameters.m + 1) + 8 + 100
        return self.store.nbytes + int(self._index.get_max_elements()) * per_element

    def __len__(self) -> int:
        return len(self.store)

    def add(self, codes: Codes) -> None:
        """See `Matcher.add`."""
        self.store.append(codes)
        self.catch_up()

    def catch_up(self, should_stop: Callable[[], bool] | None = None) -> None:
        """Put the rows of the store that are not in the graph yet into it, until done or told to stop."""
        while self._indexed < len(self.store):
            if should_stop is not None and should_stop():
                return
            self._put_in(np.arange(self._indexed, min(self._indexed + _CHUNK_ROWS, len(self.store))))

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """See `Matcher.remove`."""
        self.store.remove(rows)
        self._mark_deleted(np.asarray(rows))

    def drop_removed(self) -> None:
        """Delete from the graph what was removed from a shared store."""
        rows = np.flatnonzero(self._in_graph[: self._indexed])
        self._mark_deleted(rows[self.store.is_removed(rows)])

    def search(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """See `Matcher.search`. May miss hits, but not below a threshold of 0 (nearly all are hits)."""
        check_codes(codes, self.dim)
        if threshold_cosine >= 1:
            return  # no similarity is above 1
        if threshold_cosine < 0 or self._live < max(self._exact_below, 1):
            yield from scan(self.store, codes, threshold_cosine, interrupt=interrupt)
            return
        unanswered: list[npt.NDArray[np.intp]] = []
        norms = inverse_norms(codes)
        threshold = float(np.float32(threshold_cosine))
        # An all-zero query has similarity 0 to everything, which is no hit.
        for found in self._proposals(
            codes, np.flatnonzero(norms > 0), threshold_cosine, unanswered, interrupt
        ):
            query, row = found
            dots = pair_dots(codes[query], self.store.gather(row))
            similarity = similarities(dots, norms[query], self.store.gather_norms(row))
            above = similarity > np.float32(threshold)
            if bool(above.any()):
                yield Hits(query[above].astype(np.uint32), row[above].astype(np.uint32), similarity[above])
        exact = np.concatenate([np.empty(0, np.intp), *unanswered])
        yield from _renumbered(scan(self.store, codes[exact], threshold, interrupt=interrupt), exact)
        if self._indexed < len(self.store):
            rest = np.setdiff1d(np.arange(len(codes)), exact)
            tail = scan(self.store, codes[rest], threshold, first_row=self._indexed, interrupt=interrupt)
            yield from _renumbered(tail, rest)

    def save(self, path: Path) -> None:
        """Write the graph to `path`, atomically and checksummed.

        Raises:
            OSError: it cannot be written, or not completely.
        """
        cache_file.save(path, self._index.save_index, int(self._index.index_file_size()), self._describe())

    @classmethod
    def load(
        cls,
        path: Path,
        store: CodeStore,
        *,
        m: int = 16,
        ef_construction: int = 200,
        ef_search: int = 100,
        threads: int = 0,
        exact_below: int = 0,
    ) -> HnswMatcher:
        """A matcher over the graph saved at `path`; rows of the store after it enter by `catch_up`.

        Raises:
            CacheRejected: missing, damaged, of other parameters, or not made of the rows of the store.
        """
        matcher = cls(store.dim, m, ef_construction, ef_search, threads, exact_below=exact_below, store=store)
        fields = cache_file.verify(path)
        expected = {**matcher._describe(), "rows": fields["rows"]}
        if fields != expected:
            raise CacheRejected("parameters", f"{path}: found {fields}, expected {expected}")
        matcher._adopt(path, int(fields["rows"]))
        return matcher

    def _describe(self) -> cache_file.Fields:
        return {
            "library": "hnswlib 0.8",
            "dim": self.dim,
            "m": self.parameters.m,
            "ef_construction": self.parameters.ef_construction,
            "rows": self._indexed,
        }

    def _adopt(self, path: Path, rows: int) -> None:
        """Load a verified file and check that it holds the rows that the store holds."""
        if rows > len(self.store):
            raise CacheRejected("rows", f"{path}: found {rows} rows, expected at most {len(self.store)}")
        self._index = hnswlib.Index("cosine", self.dim)
        try:
            self._index.load_index(str(path), max_elements=max(rows + rows // 2, _FIRST_CAPACITY))
        except RuntimeError as error:
            raise CacheRejected("damaged", f"{path}: {error}") from error
        self._index.set_ef(self._ef_search)
        labels = np.sort(np.array(self._index.get_ids_list(), np.int64))
        self._in_graph = np.zeros(rows, np.bool_)
        self._in_graph[labels[labels < rows]] = True
        self._indexed = rows
        if len(labels) != int(self._in_graph.sum()):
            raise CacheRejected("rows", f"{path}: found rows beyond {rows}")
        for start in range(0, rows, _CHUNK_ROWS):
            self._check_rows(path, np.arange(start, min(start + _CHUNK_ROWS, rows)))
        self._live = int(self._in_graph.sum())

    def _check_rows(self, path: Path, rows: npt.NDArray[np.intp]) -> None:
        """Compare the vectors in the graph with the codes: a store put back from a backup differs."""
        norms = self.store.gather_norms(rows)
        in_graph = self._in_graph[rows]
        if bool((~in_graph & (norms > 0)).any()):
            raise CacheRejected("rows", f"{path}: a row of {rows[0]}..{rows[-1]} is not in it")
        for row in rows[in_graph & (norms == 0)]:
            self._delete(int(row))
        rows = rows[in_graph & (norms > 0)]
        if len(rows) == 0:
            return
        try:
            vectors = np.asarray(self._index.get_items(rows), np.float32)
        except RuntimeError as error:  # deleted in the graph, yet alive in the store
            raise CacheRejected("rows", f"{path}: {error}") from error
        expected = self.store.gather(rows).astype(np.float32) * self.store.gather_norms(rows)[:, None]
        if float(np.abs(vectors - expected).max()) > _SLACK:
            raise CacheRejected("rows", f"{path}: other codes than the store has in {rows[0]}..{rows[-1]}")

    def _delete(self, row: int) -> None:
        """Delete a row that was removed from the store, perhaps after the graph was saved, perhaps before."""
        try:
            self._index.mark_deleted(row)
        except RuntimeError as error:
            if "already deleted" not in str(error):
                raise
        self._in_graph[row] = False
        self._holds_removed = True

    def _put_in(self, rows: npt.NDArray[np.intp]) -> None:
        """Add the next rows to the graph."""
        stop = int(rows[-1]) + 1
        rows = rows[self.store.gather_norms(rows) > 0]
        self._make_room(stop)
        if len(rows):
            self._index.add_items(self.store.gather(rows).astype(np.float32), rows, num_threads=self._threads)
            self._in_graph[rows] = True
            self._live += len(rows)
        self._indexed = stop

    def _make_room(self, rows: int) -> None:
        capacity = int(self._index.get_max_elements())
        if rows > capacity:
            capacity = max(rows, capacity + capacity // 2)
            self._index.resize_index(capacity)
        if len(self._in_graph) < rows:
            self._in_graph = np.concatenate(
                (self._in_graph, np.zeros(capacity - len(self._in_graph), np.bool_))
            )

    def _mark_deleted(self, rows: npt.NDArray[np.integer]) -> None:
        rows = np.unique(rows)
        rows = rows[rows < self._indexed]
        for row in rows[self._in_graph[rows]]:
            self._index.mark_deleted(int(row))
            self._in_graph[row] = False
            self._live -= 1
            self._holds_removed = True

    def _proposals(
        self,
        codes: Codes,
        queries: npt.NDArray[np.intp],
        threshold: float,
        unanswered: list[npt.NDArray[np.intp]],
        interrupt: Interrupt | None,
    ) -> Iterator[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]]:
        """Pairs (query, row) that contain every hit the graph finds; queries it cannot answer are noted."""
        k = min(FIRST_K, self._live)
        while len(queries):
            again: list[npt.NDArray[np.intp]] = []
            batch = min(MAX_HITS // k, _QUERY_BATCH)
            for start in range(0, len(queries), batch):
                if interrupt is not None:
                    interrupt.check()
                part = queries[start : start + batch]
                for asked, rows, cosines in self._nearest(codes, part, k, unanswered):
                    near: npt.NDArray[np.bool_] = cosines > threshold - _SLACK
                    # All k near: there may be more. Ask again for more rather than report these twice.
                    more = near.all(axis=1) if k < self._live else np.zeros(len(asked), np.bool_)
                    again.append(asked[more])
                    near[more] = False
                    i, j = np.nonzero(near)
                    yield asked[i], rows[i, j].astype(np.intp)
            queries = np.concatenate(again) if again else queries[:0]
            if k >= MAX_K:
                unanswered.append(queries)
                return
            k = min(k * K_GROWTH, self._live, MAX_K)

    def _nearest(
        self,
        codes: Codes,
        queries: npt.NDArray[np.intp],
        k: int,
        unanswered: list[npt.NDArray[np.intp]],
    ) -> Iterator[tuple[npt.NDArray[np.intp], Labels64, npt.NDArray[np.float32]]]:
        """Queries with the rows and cosines of their k nearest, each of shape (queries, k)."""
        self._index.set_ef(max(self._ef_search, k))
        try:
            rows, distances = self._index.knn_query(
                codes[queries].astype(np.float32), k=k, num_threads=self._threads
            )
        except RuntimeError:
            # Fewer than k found for at least one of them.
            if len(queries) == 1:
                unanswered.append(queries)
                return
            half = len(queries) // 2
            yield from self._nearest(codes, queries[:half], k, unanswered)
            yield from self._nearest(codes, queries[half:], k, unanswered)
            return
        yield queries, rows, np.float32(1.0) - distances


def _renumbered(parts: Iterator[Hits], queries: npt.NDArray[np.intp]) -> Iterator[Hits]:
    """Hits of a selection of queries, as hits of all."""
    numbers = queries.astype(np.uint32)
    for hits in parts:
        yield Hits(numbers[hits.query], hits.row, hits.similarity)

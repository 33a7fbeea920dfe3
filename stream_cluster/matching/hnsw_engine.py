"""HNSW as an engine of a space: how a graph is made, its file, and the sample that measures its recall."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream_cluster import files
from stream_cluster.matching import cache_file
from stream_cluster.matching.cache_file import CacheRejected
from stream_cluster.matching.cell_trainer import Notify
from stream_cluster.matching.exact import ExactMatcher
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.matching.options import MatcherSettings
from stream_cluster.matching.protocol import Hits
from stream_cluster.matching.recall import RecallEstimate, estimate
from stream_cluster.matching.store import CodeStore
from stream_cluster.model import Codes, Interrupt

INLINE_ROWS = 1024
"""A graph of at most so many rows is built by the caller: a second at most. Also, a search among fewer
rows than this compares with all of them, which is faster than a walk of the graph."""

_MOST_QUERIES = 4096


class HnswEngine:
    """Makes the graph of one space, and keeps it in a file."""

    def __init__(self, dim: int, settings: MatcherSettings, cache_path: Path | None, notify: Notify) -> None:
        """`cache_path`: None: nothing is kept."""
        self._dim = dim
        self._settings = settings
        self._path = cache_path
        self._notify = notify

    @staticmethod
    def is_quick(rows: int) -> bool:
        """Whether a graph of so many rows is built while the caller waits."""
        return rows <= INLINE_ROWS

    def make(self, store: CodeStore, should_stop: Callable[[], bool]) -> HnswMatcher:
        """A graph of all rows of a store, from the file if that is good. May run in a thread of its own."""
        matcher = self._from_cache(store)
        if matcher is None:
            matcher = HnswMatcher(
                self._dim,
                self._settings.hnsw_m,
                self._settings.hnsw_ef_construction,
                self._settings.hnsw_ef_search,
                self._settings.threads,
                exact_below=INLINE_ROWS,
                store=store,
            )
        matcher.catch_up(should_stop)
        return matcher

    def _from_cache(self, store: CodeStore) -> HnswMatcher | None:
        if self._path is None:
            return None
        try:
            matcher = HnswMatcher.load(
                self._path,
                store,
                m=self._settings.hnsw_m,
                ef_construction=self._settings.hnsw_ef_construction,
                ef_search=self._settings.hnsw_ef_search,
                threads=self._settings.threads,
                exact_below=INLINE_ROWS,
            )
        except CacheRejected as rejected:
            # That there is none yet is nothing to tell.
            if rejected.reason != "missing":
                self._notify("hnsw_cache_rejected", {"reason": rejected.reason, "detail": rejected.detail})
            return None
        if matcher.holds_removed:
            # Killed between the removal and the end of the file.
            self.drop_cache()
        self._notify("hnsw_cache_loaded", {"rows": matcher.indexed})
        return matcher

    def save(self, matcher: HnswMatcher) -> bool:
        """Save a graph if there is a path for it; True if it was saved. With removed rows it is not."""
        if self._path is None or matcher.holds_removed:
            return False
        try:
            files.make_folder(self._path.parent)
            matcher.save(self._path)
        except (OSError, RuntimeError) as error:  # RuntimeError: hnswlib cannot write
            self._notify("hnsw_cache_not_saved", {"error": str(error)})
            return False
        return True

    def drop_cache(self) -> None:
        """Delete the file, if there is one."""
        if self._path is not None:
            cache_file.delete(self._path)


class RecallSampler:
    """Answers a share of the queries to a graph exactly too, and counts which links it found."""

    def __init__(self, share: float) -> None:
        """`share` of the queries, in [0, 1]."""
        self._share = share
        self._queries = 0
        self._counts = np.zeros(2, np.int64)  # links true and found since `take`
        self._latest: deque[tuple[int, int]] = deque(maxlen=_MOST_QUERIES)  # of each query

    def choose(self, count: int) -> npt.NDArray[np.intp]:
        """Which of the next `count` queries are in the sample: evenly spread, without chance."""
        steps = np.floor(np.arange(self._queries, self._queries + count + 1) * self._share)
        self._queries += count
        return np.flatnonzero(np.diff(steps))

    def search(
        self,
        hnsw: HnswMatcher,
        exact: ExactMatcher,
        codes: Codes,
        threshold_cosine: float,
        *,
        sampled: npt.NDArray[np.intp],
        interrupt: Interrupt | None,
    ) -> Iterator[Hits]:
        """Hits of HNSW; for the sampled queries the exact ones, as they are known anyway."""
        in_sample = np.zeros(len(codes), np.bool_)
        in_sample[sampled] = True
        found = np.zeros(len(codes), np.int64)
        for hits in hnsw.search(codes, threshold_cosine, interrupt):
            counted = in_sample[hits.query]
            found += np.bincount(hits.query[counted], minlength=len(codes))
            others = ~counted
            if bool(others.any()):
                yield Hits(hits.query[others], hits.row[others], hits.similarity[others])
        true = np.zeros(len(sampled), np.int64)
        for hits in exact.search(codes[sampled], threshold_cosine, interrupt):
            true += np.bincount(hits.query, minlength=len(sampled))
            yield Hits(sampled[hits.query].astype(np.uint32), hits.row, hits.similarity)
        # Together and last: a search that is interrupted must not count on one side only.
        self._counts += int(true.sum()), int(found[sampled].sum())
        self._latest.extend(zip(true.tolist(), found[sampled].tolist(), strict=True))

    def take(self) -> tuple[int, int]:
        """Links (true, found) since the last call."""
        true, found = self._counts.tolist()
        self._counts[:] = 0
        return true, found

    def recall(self) -> RecallEstimate:
        """Recall of the latest queries of the sample."""
        counts = np.array(self._latest, np.int64).reshape(-1, 2)
        return estimate(counts[:, 0], counts[:, 1])

"""The matcher of one space: exact, or HNSW when the space is large enough for it to pay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from stream_cluster import files
from stream_cluster.matching import cache_file
from stream_cluster.matching.build import IndexBuild
from stream_cluster.matching.cache_file import CacheRejected
from stream_cluster.matching.exact import ExactMatcher, all_pairs
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.matching.protocol import Hits
from stream_cluster.matching.store import CodeStore
from stream_cluster.matching.threads import limit_threads
from stream_cluster.model import Codes, Interrupt, Links

INLINE_ROWS = 1024
"""A graph of at most so many rows is built by the caller: a second at most. Also, a search among fewer
rows than this compares with all of them, which is faster than a walk of the graph."""

Notify = Callable[[str, Mapping[str, object]], None]
"""Called with the name of an event and its fields, for the log. May come from any thread."""


class MatcherSettings(Protocol):
    """The settings `matching.*` that are needed here."""

    @property
    def engine(self) -> str:
        """`auto`, `exact` or `hnsw`."""
        ...

    @property
    def hnsw_after(self) -> int:
        """With `auto`: rows from which on HNSW is used."""
        ...

    @property
    def hnsw_m(self) -> int:
        """Links per node of the graph."""
        ...

    @property
    def hnsw_ef_construction(self) -> int:
        """Candidates kept while a row is put into the graph."""
        ...

    @property
    def hnsw_ef_search(self) -> int:
        """Candidates kept while a query is answered."""
        ...

    @property
    def recall_sample_share(self) -> float:
        """Share of the queries to HNSW that are answered exactly too, in [0, 1]."""
        ...

    @property
    def threads(self) -> int:
        """Threads for matching; 0 means one per core."""
        ...


class RecallSample(NamedTuple):
    """What HNSW found of the links that it should have found for the sampled queries."""

    links_true: int
    links_found: int


class SpaceMatcher:
    """A `Matcher` that changes its engine as the space grows, without pausing.

    The graph is built in a background thread once a search finds the space large enough; until it has
    caught up, and for good if that fails, matching is exact. Rows that are put back after a restart
    are added before the first search, so that a cached graph is compared with all of them.

    One thread calls it (beside the one of the build, which it manages itself).

    Events given to `notify`: `hnsw_build_started` (rows), `hnsw_cache_loaded` (rows),
    `hnsw_cache_rejected` (reason, detail), `hnsw_in_use` (rows), `hnsw_failed` (error).
    """

    def __init__(
        self,
        dim: int,
        settings: MatcherSettings,
        cache_path: Path | None = None,
        *,
        notify: Notify | None = None,
    ) -> None:
        """An empty space.

        Args:
            dim: dimension of the codes.
            settings: `matching.*`; `threads` is also set for BLAS, in the whole process.
            cache_path: file for the graph, so that a restart does not build it again.
            notify: told about changes of the engine.
        """
        if settings.engine not in {"auto", "exact", "hnsw"}:
            raise ValueError(f"engine: found {settings.engine!r}, expected auto, exact or hnsw")
        limit_threads(settings.threads)
        self.store = CodeStore(dim)
        self._settings = settings
        self._cache_path = cache_path
        self._notify: Notify = _tell_nobody if notify is None else notify
        self._exact = ExactMatcher(dim, store=self.store)
        self._hnsw: HnswMatcher | None = None
        self._build: IndexBuild | None = None
        self._stay_exact = False
        self._queries = 0
        self._links_true = 0
        self._links_found = 0
        self._taken = RecallSample(0, 0)

    @property
    def recall(self) -> RecallSample:
        """The counts of the recall sample since the start, as far as they were taken."""
        return self._taken

    @property
    def engine(self) -> str:
        """`exact` or `hnsw`: the one in use now."""
        return "exact" if self._hnsw is None else self._hnsw.engine

    @property
    def dim(self) -> int:
        """Dimension of the codes."""
        return self.store.dim

    @property
    def nbytes(self) -> int:
        """Bytes held by the codes, and by the graph if it is in use."""
        return self.store.nbytes if self._hnsw is None else self._hnsw.nbytes

    @property
    def holds_only_codes(self) -> bool:
        """Whether there is no graph, built or under construction: the codes give everything again."""
        return self._hnsw is None and self._build is None

    def __len__(self) -> int:
        return len(self.store)

    def add(self, codes: Codes) -> None:
        """See `Matcher.add`."""
        self.store.append(codes)
        if self._hnsw is not None:
            try:
                self._hnsw.catch_up()
            except (RuntimeError, MemoryError) as error:
                # The rows are in the store: exact matching goes on with nothing lost.
                self._give_up(error)

    def restore(self, blocks: Iterable[Codes]) -> None:
        """Append rows that were stored before a restart; zeros are rows that had been removed."""
        for codes in blocks:
            removed = np.flatnonzero(~codes.any(axis=1)) + len(self.store)
            self.store.append(codes, learn=False)
            self.store.remove(removed)
        self.store.append(np.empty((0, self.store.dim), np.int8))

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """See `Matcher.remove`. A graph of these rows on disk is deleted, for their vectors are in it."""
        if self._hnsw is not None:
            self._hnsw.remove(rows)
        else:
            self.store.remove(rows)
        self._drop_cache()

    def search(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """See `Matcher.search`. May start the build of a graph, or take one that is ready into use."""
        self.prepare()
        if self._hnsw is None:
            return self._exact.search(codes, threshold_cosine, interrupt)
        sampled = self._sample(len(codes)) if 0 <= threshold_cosine < 1 else np.empty(0, np.intp)
        if len(sampled) == 0:
            return self._hnsw.search(codes, threshold_cosine, interrupt)
        return self._search_and_sample(self._hnsw, codes, threshold_cosine, sampled, interrupt)

    def within(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Links]:
        """Links among new codes, exactly; a and b are positions in `codes`. In bounded chunks."""
        return all_pairs(codes, threshold_cosine, interrupt=interrupt)

    def prepare(self) -> None:
        """Start a graph if it is time for one, and use it once it is ready. Each search begins with this."""
        if self._hnsw is not None or self._stay_exact or not self._hnsw_wanted():
            return
        try:
            if self._build is not None:
                if self._build.done:
                    self._use(self._build.result())
            elif len(self.store) <= INLINE_ROWS:
                self._use(self._make(lambda: False))
            else:
                self._notify("hnsw_build_started", {"rows": len(self.store)})
                self._build = IndexBuild(self._make)
        except Exception as error:  # whatever stops the graph must not stop matching
            self._give_up(error)

    def wait_until_built(self, timeout_s: float | None = None) -> bool:
        """Wait for a build that is under way, and say whether HNSW is in use then."""
        if self._build is not None and self._build.wait(timeout_s):
            self.prepare()
        return self._hnsw is not None

    def take_recall(self) -> RecallSample:
        """The counts of the recall sample since the last call."""
        sample = RecallSample(self._links_true, self._links_found)
        self._taken = RecallSample(self._taken.links_true + sample[0], self._taken.links_found + sample[1])
        self._links_true = 0
        self._links_found = 0
        return sample

    def save_cache(self) -> bool:
        """Save the graph if one is in use and there is a path for it; True if it was saved.

        A graph keeps the vectors of removed rows, so it is not saved with them: the next start builds one
        without. One that cannot be written is told of, and costs nothing but time: the next start builds it.
        """
        if self._hnsw is None or self._cache_path is None or self._hnsw.holds_removed:
            return False
        try:
            files.make_folder(self._cache_path.parent)
            self._hnsw.save(self._cache_path)
        except (OSError, RuntimeError) as error:  # RuntimeError: hnswlib cannot write
            self._notify("hnsw_cache_not_saved", {"error": str(error)})
            return False
        return True

    def close(self) -> None:
        """Stop a build that is under way. The cache is not saved by this."""
        if self._build is not None:
            self._build.stop()
            self._build = None
            self._stay_exact = True

    def _hnsw_wanted(self) -> bool:
        engine = self._settings.engine
        return engine == "hnsw" or (engine == "auto" and len(self.store) >= self._settings.hnsw_after)

    def _make(self, should_stop: Callable[[], bool]) -> HnswMatcher:
        """A graph of all rows, from the cache if that is good. Runs in the thread of the build."""
        matcher = self._from_cache()
        if matcher is None:
            matcher = HnswMatcher(
                self.dim,
                self._settings.hnsw_m,
                self._settings.hnsw_ef_construction,
                self._settings.hnsw_ef_search,
                self._settings.threads,
                exact_below=INLINE_ROWS,
                store=self.store,
            )
        matcher.catch_up(should_stop)
        return matcher

    def _from_cache(self) -> HnswMatcher | None:
        if self._cache_path is None:
            return None
        try:
            matcher = HnswMatcher.load(
                self._cache_path,
                self.store,
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
            self._drop_cache()
        self._notify("hnsw_cache_loaded", {"rows": matcher.indexed})
        return matcher

    def _drop_cache(self) -> None:
        if self._cache_path is not None:
            cache_file.delete(self._cache_path)

    def _use(self, matcher: HnswMatcher) -> None:
        """Take over a graph from the build: add and remove what came in the meantime."""
        self._build = None
        matcher.catch_up()
        matcher.drop_removed()
        self._hnsw = matcher
        self._notify("hnsw_in_use", {"rows": len(self.store)})

    def _give_up(self, error: Exception) -> None:
        self._build = None
        self._hnsw = None
        self._stay_exact = True
        self._notify("hnsw_failed", {"error": f"{type(error).__name__}: {error}"})

    def _sample(self, count: int) -> npt.NDArray[np.intp]:
        """Which of the next `count` queries are in the sample: evenly spread, without chance."""
        share = self._settings.recall_sample_share
        steps = np.floor(np.arange(self._queries, self._queries + count + 1) * share)
        self._queries += count
        return np.flatnonzero(np.diff(steps))

    def _search_and_sample(
        self,
        hnsw: HnswMatcher,
        codes: Codes,
        threshold_cosine: float,
        sampled: npt.NDArray[np.intp],
        interrupt: Interrupt | None,
    ) -> Iterator[Hits]:
        """Hits of HNSW; for the sampled queries the exact ones, as they are known anyway."""
        in_sample = np.zeros(len(codes), np.bool_)
        in_sample[sampled] = True
        links_found = 0
        for hits in hnsw.search(codes, threshold_cosine, interrupt):
            counted = in_sample[hits.query]
            links_found += int(counted.sum())
            others = ~counted
            if bool(others.any()):
                yield Hits(hits.query[others], hits.row[others], hits.similarity[others])
        links_true = 0
        for hits in self._exact.search(codes[sampled], threshold_cosine, interrupt):
            links_true += len(hits)
            yield Hits(sampled[hits.query].astype(np.uint32), hits.row, hits.similarity)
        # Together and last: a search that is interrupted must not count on one side only.
        self._links_found += links_found
        self._links_true += links_true


def _tell_nobody(event: str, fields: Mapping[str, object]) -> None:
    """A `Notify` that does nothing."""

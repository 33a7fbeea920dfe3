"""The matcher of one space: exact, or cells or HNSW when the space is large enough for them to pay."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.build import IndexBuild
from stream_cluster.matching.cell_cache import Restoring
from stream_cluster.matching.cell_engine import CellEngine
from stream_cluster.matching.cell_store import REMOVED, CellStore
from stream_cluster.matching.cell_trainer import Notify
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.matching.costs import CELLS_SHARE_OF_EXACT_S, Costs
from stream_cluster.matching.exact import ExactMatcher, all_pairs
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.matching.hnsw_engine import HnswEngine, RecallSampler
from stream_cluster.matching.options import MatcherSettings
from stream_cluster.matching.protocol import Hits
from stream_cluster.matching.store import CodeStore
from stream_cluster.matching.threads import limit_threads
from stream_cluster.model import Codes, Interrupt, Links, no_links

_TRY_CELLS_AGAIN = 2


class RecallSample(NamedTuple):
    """What HNSW found of the links that it should have found for the sampled queries."""

    links_true: int
    links_found: int


class SpaceMatcher:
    """A `Matcher` that changes its engine as the space grows, without pausing.

    Graph and cells are made in a background thread once a search finds the space large enough; until they
    have caught up, and for good if that fails, matching is exact. Rows that are put back after a restart are
    added before the first search, so that a cached graph is compared with all of them. Where cells were
    saved, the rows go straight into them.

    One thread calls it (beside those of the build and of cells, which it manages itself).

    Events given to `notify`: `hnsw_build_started` (rows), `hnsw_cache_loaded` (rows),
    `hnsw_cache_rejected` (reason, detail), `hnsw_in_use` (rows), `hnsw_failed` (error);
    `cells_build_started` (rows), `cells_cache_loaded` (rows, cells), `cells_cache_rejected` (reason, detail),
    `cells_in_use` (rows), `cells_not_faster` (rows, cells_s, exact_s: seconds of a batch),
    `cells_not_saved` (error), and those of `CellMatcher`.
    """

    def __init__(
        self,
        dim: int,
        settings: MatcherSettings,
        cache_path: Path | None = None,
        *,
        counted_cosine: float = -1.0,
        costs: Costs | None = None,
        notify: Notify | None = None,
    ) -> None:
        """An empty space.

        Args:
            dim: dimension of the codes.
            settings: `matching.*`; `threads` is also set for BLAS, in the whole process.
            cache_path: file for the graph, so that a restart does not build it again; that of cells lies
                beside it, and so does the mapped file of the codes.
            counted_cosine: links above it count for the recall of cells, where searches go further down.
            costs: what engines cost on this machine, for `auto`, which then tries what it has made before
                it is used; None: sizes alone decide.
            notify: told about changes of the engine.
        """
        if settings.engine not in {"auto", "exact", "cells", "hnsw"}:
            raise ValueError(f"engine: found {settings.engine!r}, expected auto, exact, cells or hnsw")
        limit_threads(settings.threads)
        self.store: CodeStore | CellStore = CodeStore(dim)
        self._settings = settings
        self._cache_path = cache_path
        self._costs = costs
        self._notify: Notify = _tell_nobody if notify is None else notify
        self._cell_engine = CellEngine(dim, settings, cache_path, counted_cosine, self._notify)
        self._hnsw_engine = HnswEngine(dim, settings, cache_path, self._notify)
        self._sampler = RecallSampler(settings.recall_sample_share)
        self._exact = ExactMatcher(dim, store=self.store)
        self._hnsw: HnswMatcher | None = None
        self._cells: CellMatcher | None = None
        self._restoring: Restoring | None = None
        self._build: IndexBuild[HnswMatcher | CellMatcher] | None = None
        self._stay_exact = False
        self._no_cells_below = 0
        """Rows up to which cells would be no faster, as was found when they had been made."""
        self._taken = RecallSample(0, 0)
        if settings.engine in {"auto", "cells"}:
            self._open_cells()

    @property
    def recall(self) -> RecallSample:
        """The counts of the recall sample since the start, as far as they were taken."""
        return self._taken

    @property
    def engine(self) -> str:
        """`exact`, `cells` or `hnsw`: the one in use now. Cells with too few rows to be made are exact."""
        if self._cells is not None:
            return self._cells.engine if self._cells.cell_count else "exact"
        return "exact" if self._hnsw is None else self._hnsw.engine

    @property
    def cells(self) -> CellMatcher | None:
        """The cells, where they are used."""
        return self._cells

    @property
    def dim(self) -> int:
        """Dimension of the codes."""
        return self.store.dim

    @property
    def nbytes(self) -> int:
        """Bytes held by the codes, and by graph or cells if they are in use."""
        if self._cells is not None:
            return self._cells.nbytes
        return self.store.nbytes if self._hnsw is None else self._hnsw.nbytes

    @property
    def holds_only_codes(self) -> bool:
        """Whether there is no graph and no cells, made or in the making: the codes give everything again."""
        if self._cells is not None and (self._cells.cell_count or self._cells.is_training):
            return False
        return self._hnsw is None and self._build is None

    def __len__(self) -> int:
        return len(self.store)

    def add(self, codes: Codes) -> None:
        """See `Matcher.add`."""
        if self._cells is not None:
            self._cells.add(codes)
            return
        assert isinstance(self.store, CodeStore)
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
            if self._restoring is not None:
                self._restoring.add(codes)
            elif self._cells is not None:
                cells = self._cells.cells_for(codes)
                self._cells.append(codes, np.where(codes.any(axis=1), cells, REMOVED))
            else:
                self._restore(codes)
        if isinstance(self.store, CodeStore):
            self.store.append(np.empty((0, self.store.dim), np.int8))

    def _restore(self, codes: Codes) -> None:
        assert isinstance(self.store, CodeStore)
        removed = np.flatnonzero(~codes.any(axis=1)) + len(self.store)
        self.store.append(codes, learn=False)
        self.store.remove(removed)

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """See `Matcher.remove`. A graph of these rows on disk is deleted, for their vectors are in it."""
        if self._hnsw is not None:
            self._hnsw.remove(rows)
        else:
            self.store.remove(rows)
        self._hnsw_engine.drop_cache()

    def search(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """See `Matcher.search`. May start to make a graph or cells, or take what is ready into use."""
        self.prepare()
        if self._cells is not None:
            return self._cells.search(codes, threshold_cosine, interrupt)
        if self._hnsw is None:
            return self._exact.search(codes, threshold_cosine, interrupt)
        sampled = self._sampler.choose(len(codes)) if 0 <= threshold_cosine < 1 else np.empty(0, np.intp)
        if len(sampled) == 0:
            return self._hnsw.search(codes, threshold_cosine, interrupt)
        return self._sampler.search(
            self._hnsw, self._exact, codes, threshold_cosine, sampled=sampled, interrupt=interrupt
        )

    def within(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Links]:
        """Links among new codes, exactly; a and b are positions in `codes`. In bounded chunks."""
        return all_pairs(codes, threshold_cosine, interrupt=interrupt)

    def prepare(self) -> None:
        """Start a graph or cells if it is time, and use them once ready. Each search begins with this."""
        if self._cells is not None:
            self._end_restoring(self._cells)
            return
        if self._hnsw is not None or self._stay_exact:
            return
        wanted = self._wanted()
        if wanted == "exact":
            return
        try:
            if self._build is not None:
                if self._build.done:
                    self._use(self._build.result())
            elif wanted == "cells":
                self._notify("cells_build_started", {"rows": len(self.store)})
                self._build = IndexBuild(self._make_cells)
            elif self._hnsw_engine.is_quick(len(self.store)):
                self._use(self._make_graph(lambda: False))
            else:
                self._notify("hnsw_build_started", {"rows": len(self.store)})
                self._build = IndexBuild(self._make_graph)
        except Exception as error:  # whatever stops the graph must not stop matching
            self._give_up(error)

    def wait_until_built(self, timeout_s: float | None = None) -> bool:
        """Wait for what is under way, and say whether cells or HNSW are in use then."""
        if self._build is not None and self._build.wait(timeout_s):
            self.prepare()
        if self._cells is not None:
            return self._cells.wait_until_trained(timeout_s)
        return self._hnsw is not None

    def take_recall(self) -> RecallSample:
        """The counts of the recall sample since the last call."""
        true, found = self._sampler.take() if self._cells is None else self._cells.take_counts()
        sample = RecallSample(true, found)
        self._taken = RecallSample(*(a + b for a, b in zip(self._taken, sample, strict=True)))
        return sample

    def describe(self) -> dict[str, Any] | None:
        """Engine and recall as JSON values; None while matching is exact."""
        if self.engine == "exact":
            return None
        if self._cells is not None:
            return {
                "engine": "cells",
                "recall": self._cells.recall().as_dict(),
                "target_recall": self._settings.target_recall,
                "scanned_share": round(self._cells.scanned_share, 6),
            }
        return {"engine": "hnsw", "recall": self._sampler.recall().as_dict()}

    def doubt(self, links: Links, first_row: int) -> None:
        """Be told the links of the rows added last, from `first_row` on, a spanning forest, for later."""
        if self._cells is not None:
            self._cells.doubt(links, first_row)

    @property
    def doubts(self) -> int:
        """Rows that `second_chance` could search for again."""
        return 0 if self._cells is None else len(self._cells.doubts)

    def second_chance(self, count: int, threshold_cosine: float) -> tuple[int, Links]:
        """Search again for up to `count` rows that cells covered least: (rows, links that were missed)."""
        return (0, no_links()) if self._cells is None else self._cells.second_chance(count, threshold_cosine)

    def save_cache(self) -> bool:
        """Save graph or cells if they are in use and there is a path for them; True if they were saved.

        A graph keeps the vectors of removed rows, so it is not saved with them: the next start builds one
        without. What cannot be written is told of, and costs nothing but time: the next start makes it.
        """
        if self._cells is not None:
            return self._cell_engine.save(self._cells)
        return self._hnsw is not None and self._hnsw_engine.save(self._hnsw)

    def close(self) -> None:
        """Stop what is under way. The cache is not saved by this."""
        if self._build is not None:
            self._build.stop()
            self._build = None
            self._stay_exact = True
        if self._cells is not None:
            self._cells.stop()

    def _wanted(self) -> str:
        engine = self._settings.engine
        return engine if engine != "auto" else self._wanted_for(len(self.store))

    def _wanted_for(self, rows: int) -> str:
        """The choice of `auto`."""
        cells_after = max(self._settings.cells_after, self._no_cells_below)
        hnsw_after = self._settings.hnsw_after
        if self._costs is not None:
            return self._costs.choose(rows, self.dim, cells_after=cells_after, hnsw_after=hnsw_after)
        if rows >= cells_after:
            return "cells"
        return "hnsw" if rows >= hnsw_after else "exact"

    # -- cells -------------------------------------------------------------------------------------------

    def _open_cells(self) -> None:
        """Use cells from the first row on: because they were saved, or because nothing else is wanted."""
        saved = self._cell_engine.saved()
        is_asked = self._settings.engine == "cells"
        if saved is not None and (is_asked or self._wanted_for(len(saved.place)) == "cells"):
            cells = self._cell_engine.new()
            self._take_cells(cells)
            self._restoring = Restoring(cells, saved)
            self._notify("cells_cache_loaded", {"rows": len(saved.place), "cells": len(saved.centroids)})
        elif is_asked:
            self._take_cells(self._cell_engine.new())

    def _take_cells(self, cells: CellMatcher) -> None:
        self._cells = cells
        self.store = cells.store

    def _end_restoring(self, cells: CellMatcher) -> None:
        """Once all rows are back: were they put where they belong?"""
        restoring, self._restoring = self._restoring, None
        if restoring is not None and not restoring.fits:
            self._cell_engine.tell_rejected("rows", f"{self._cache_path}: cells were made of other rows")
            cells.train_anew()

    def _make_cells(self, should_stop: Callable[[], bool]) -> CellMatcher:
        """Cells of all rows. Runs in the thread of the build."""
        assert isinstance(self.store, CodeStore)
        cells = self._cell_engine.new()
        cells.begin_with(self.store, should_stop)
        return cells

    def _make_graph(self, should_stop: Callable[[], bool]) -> HnswMatcher:
        assert isinstance(self.store, CodeStore)
        return self._hnsw_engine.make(self.store, should_stop)

    def _use(self, matcher: HnswMatcher | CellMatcher) -> None:
        """Take over a graph or cells from the build: add and remove what came in the meantime."""
        self._build = None
        if isinstance(matcher, CellMatcher):
            assert isinstance(self.store, CodeStore)
            if self._costs is not None and not self._are_faster(matcher, self.store):
                return
            matcher.catch_up(self.store)
            self._take_cells(matcher)
            # The codes are in the cells now, and only there.
            self._exact = ExactMatcher(self.dim)
            self._notify("cells_in_use", {"rows": len(self.store)})
            self._cell_engine.save_when_trained(matcher)
            return
        matcher.catch_up()
        matcher.drop_removed()
        self._hnsw = matcher
        self._notify("hnsw_in_use", {"rows": len(self.store)})

    def _are_faster(self, cells: CellMatcher, store: CodeStore) -> bool:
        """Whether cells save time, with this space's own rows. Otherwise they are tried again when it grows.

        Where a query has to go to a large part of the cells, exact matching is faster, and misses nothing.
        """
        cells_s, exact_s = self._cell_engine.times_beside_exact(cells, store)
        if cells_s <= CELLS_SHARE_OF_EXACT_S * exact_s:
            return True
        self._no_cells_below = _TRY_CELLS_AGAIN * len(store)
        times = {"cells_s": round(cells_s, 4), "exact_s": round(exact_s, 4)}
        self._notify("cells_not_faster", {"rows": len(store), **times})
        return False

    def _give_up(self, error: Exception) -> None:
        is_cells = self._hnsw is None and self._wanted() == "cells"
        self._build = None
        self._hnsw = None
        self._stay_exact = True
        fields = {"error": f"{type(error).__name__}: {error}"}
        if is_cells:
            self._notify("cells_failed", fields)
        else:
            self._notify("hnsw_failed", fields)


def _tell_nobody(event: str, fields: Mapping[str, object]) -> None:
    """A `Notify` that does nothing."""

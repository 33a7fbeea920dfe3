"""Matching in cells: an inverted file of int8 codes, whose cells the kernel scans exactly.

Rows lie in the cell of their most similar centroid, and a query is compared with the rows of the cells whose
centroids are nearly as similar to it as the best (`cell_control`). What is reported is bit-identical to exact
matching; the only possible difference is a missing hit. How many are missed is measured all the time, on a
random share of all rows, and decides how many cells are searched.

Centroids are trained in a thread once there are enough rows, and anew whenever there are `GROWTH` times as
many. While rows move to their new cells, a bunch at a time, a query goes to old and new cells. A cell that
has grown out of proportion is split in two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stream_cluster.matching import kernel
from stream_cluster.matching.cell_control import WHOLE_MARGIN
from stream_cluster.matching.cell_index import Float32s, Probes, hits_of
from stream_cluster.matching.cell_trainer import CellParameters, Notify, TrainedCells
from stream_cluster.matching.codes import check_codes
from stream_cluster.matching.protocol import MAX_HITS, Hits
from stream_cluster.matching.recall import RecallEstimate
from stream_cluster.matching.threads import thread_limit
from stream_cluster.model import Codes, Interrupt, Links, concatenate_links, no_links

BLOCK_ROWS = 64

_LEAST_SAMPLE_QUERIES = 2
_MOST_SAMPLE_QUERIES = 256
"""Many, with few of the links of each: links of one query are found or missed together."""
_MOST_SAMPLE_LINKS = 20_000
_SEED = 31
_WIDER = 2.0
_WIDER_BY = 0.01


class CellMatcher(TrainedCells):
    """A `Matcher` that compares with the rows of some cells. Called by one thread; it manages one more."""

    engine = "cells"

    def __init__(
        self,
        dim: int,
        parameters: CellParameters | None = None,
        *,
        folder: Path | None = None,
        notify: Notify | None = None,
        trained: Callable[[CellMatcher], None] | None = None,
    ) -> None:
        """Without rows.

        Args:
            dim: dimension of the codes.
            parameters: how to search.
            folder: where the codes lie in a mapped file; None: in memory.
            notify: told `cells_training` (rows, cells), `cells_trained` (rows, cells, recall),
                `cells_failed` (error), `cells_over_budget` and `cells_within_budget` (scanned_share, recall).
            trained: called with this matcher, by the thread of the training, when new cells are complete.
        """
        super().__init__(
            dim,
            CellParameters() if parameters is None else parameters,
            folder,
            (lambda _event, _fields: None) if notify is None else notify,
            (lambda: None) if trained is None else (lambda: trained(self)),
        )
        self.rows_compared = 0
        """Comparisons of a query with a row, in all."""
        self._searched_margin = 0.0
        self._random = np.random.default_rng(_SEED)
        self._over_budget = False
        self._counts = np.zeros(2, np.int64)  # links true and found of the samples since `take_counts`
        self._shares = np.zeros(2)  # rows compared, and rows that there were, of late

    def add(self, codes: Codes) -> None:
        """See `Matcher.add`."""
        with self.store.lock:  # new cells must not come between the two
            searched = self._last is not None and np.array_equal(self._last[0], codes)
            first_row = len(self.store)
            self.append(codes, self.cells_for(codes))
            if searched:
                self.doubts.add(first_row, self._excess, self._searched_margin)
        self.train_if_due()

    def doubt(self, links: Links, first_row: int) -> None:
        """Be told the links of the rows added last, from `first_row` on, a spanning forest, for later."""
        if len(links) == 0 or not self._sets:
            return
        with self.store.lock:
            counted = self.parameters.counted_cosine
            self.doubts.add_near(links, counted, first_row, self.control.margin)

    def remove(self, rows: npt.NDArray[np.integer]) -> None:
        """See `Matcher.remove`."""
        self.store.remove(rows)

    def search(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """See `Matcher.search`. May miss hits, but not below a threshold of 0 (nearly all are hits)."""
        check_codes(codes, self.dim)
        if not threshold_cosine < 1:
            return
        codes = np.ascontiguousarray(codes)
        self._last = None
        self._threshold = threshold_cosine
        with self.store.lock:
            if threshold_cosine < 0 or not self._sets or self.control.margin >= WHOLE_MARGIN:
                yield from self.scan(codes, threshold_cosine, None, interrupt)
                return
            margin = self._searched_margin = self.control.margin
            probes = self.probes(codes, margin)
            yield from self._search(codes, probes, threshold_cosine, interrupt)
            yield from self._sample(codes, probes, margin, threshold_cosine, interrupt)

    def search_exactly(
        self, codes: Codes, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """All hits: a comparison with every row."""
        check_codes(codes, self.dim)
        if threshold_cosine < 1:
            with self.store.lock:
                yield from self.scan(np.ascontiguousarray(codes), threshold_cosine, None, interrupt)

    def search_within(
        self, codes: Codes, threshold_cosine: float, margin: float, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """Hits among the cells within a margin of one's own; no sample is taken."""
        check_codes(codes, self.dim)
        codes = np.ascontiguousarray(codes)
        with self.store.lock:
            yield from self._search(codes, self.probes(codes, margin), threshold_cosine, interrupt)

    def search_nearest(
        self, codes: Codes, threshold_cosine: float, cells: int, interrupt: Interrupt | None = None
    ) -> Iterator[Hits]:
        """Hits among a number of cells, those nearest; no sample is taken. To compare with other indexes."""
        check_codes(codes, self.dim)
        codes = np.ascontiguousarray(codes)
        with self.store.lock:
            yield from self._search(
                codes, self.probes(codes, WHOLE_MARGIN, most=cells), threshold_cosine, interrupt
            )

    def second_chance(
        self, count: int, threshold_cosine: float, interrupt: Interrupt | None = None
    ) -> tuple[int, Links]:
        """Search again for the rows covered least, more widely than before.

        Returns how many rows that were, and their links to older rows that the first search missed.
        """
        with self.store.lock:
            doubts = self.doubts.take(count)
            rows = np.array([one.row for one in doubts], np.int64)
            kept = ~self.store.is_removed(rows)
            margins = np.array([one.margin for one in doubts], np.float32)[kept]
            first_rows = np.array([one.first_row for one in doubts], np.int64)[kept]
            rows = rows[kept]
            if len(rows) == 0 or not self._sets:
                return len(doubts), no_links()
            codes = self.store.gather(rows)
            wider = min(float(margins.max()) * _WIDER + _WIDER_BY, WHOLE_MARGIN)
            parts = []
            for hits in self._search(codes, self.probes(codes, wider), threshold_cosine, interrupt):
                needed, _ = self.needed(codes, hits)
                # The best cell was searched whatever the margin.
                was_left_out = (needed >= margins[hits.query]) & (needed > 0)
                missed = (hits.row < first_rows[hits.query]) & was_left_out
                query, row = hits.query[missed], hits.row[missed]
                parts.append(Links(row, rows[query].astype(np.uint32), hits.similarity[missed]))
            self._last = None
            return len(doubts), concatenate_links(parts)

    def _search(
        self, codes: Codes, probes: Probes, threshold_cosine: float, interrupt: Interrupt | None
    ) -> Iterator[Hits]:
        compared = int(self.store.packed.sizes()[probes.cells].sum(dtype=np.int64))
        self._count(compared, len(codes))
        run = kernel.search_cells(
            self.store.packed,
            codes,
            probes.offsets,
            np.ascontiguousarray(probes.cells),
            threshold_cosine,
            pairs=False,
            threads=thread_limit(),
            max_hits=MAX_HITS,
            path="",
        )
        yield from hits_of(run, interrupt)

    def _count(self, compared: int, queries: int) -> None:
        self.rows_compared += compared
        self._shares += compared, queries * max(len(self.store) - self.store.removed_count, 1)

    def _sample(
        self,
        codes: Codes,
        probes: Probes,
        margin: float,
        threshold_cosine: float,
        interrupt: Interrupt | None,
    ) -> Iterator[Hits]:
        """Compare some queries with a random share of all rows: links in cells not searched are missed ones.

        They are yielded too, for they are known now. Each true link is in the sample with the same
        probability, so that the share found is not biased.
        """
        if self.parameters.sample_share <= 0:
            return
        compared = int(self.store.packed.sizes()[probes.cells].sum(dtype=np.int64))
        effort = self.parameters.sample_share * (compared + len(codes) * self.cell_count)
        blocks_total = self.store.packed.block_count
        queries = int(np.clip(effort / BLOCK_ROWS / 64, _LEAST_SAMPLE_QUERIES, _MOST_SAMPLE_QUERIES))
        chosen = np.sort(self._random.choice(len(codes), min(queries, len(codes)), replace=False))
        blocks = int(min(max(effort / BLOCK_ROWS / max(len(chosen), 1), 1), blocks_total))
        sampled = np.sort(self._random.choice(blocks_total, blocks, replace=False)).astype(np.uint32)
        searched = _keys(probes, chosen)
        needed: list[list[Float32s]] = [[] for _ in chosen]
        true = found = 0
        left = _MOST_SAMPLE_LINKS
        for chunk in self.scan(codes[chosen], threshold_cosine, sampled, interrupt):
            hits = Hits(chunk.query[:left], chunk.row[:left], chunk.similarity[:left])
            left -= len(hits)
            margins, cells = self.needed(codes[chosen], hits)
            was_searched = np.isin(hits.query.astype(np.int64) << 32 | cells, searched)
            counted = hits.similarity > self.parameters.counted_cosine
            true += int(counted.sum())
            found += int((counted & was_searched).sum())
            for query in np.unique(hits.query[counted]).tolist():
                needed[query].append(margins[counted & (hits.query == query)])
            missed = ~was_searched
            if bool(missed.any()):
                yield Hits(
                    chosen[hits.query[missed]].astype(np.uint32), hits.row[missed], hits.similarity[missed]
                )
            if left == 0:  # where everything is alike, all would take longer than the search
                break
        self._counts += true, found
        self.control.take([np.concatenate(parts) for parts in needed if parts], searched=margin)
        self._tell_budget()

    def _tell_budget(self) -> None:
        share = self.scanned_share
        over = share > self.parameters.budget_share and len(self.control) > 0
        if over != self._over_budget:
            self._over_budget = over
            estimate = self.control.recall()
            fields = {"scanned_share": round(share, 4), "recall": round(estimate.recall, 4)}
            if over:
                self._notify("cells_over_budget", fields)
            else:
                self._notify("cells_within_budget", fields)

    @property
    def over_budget(self) -> bool:
        """Whether holding the target takes more comparisons than were meant."""
        return self._over_budget

    @property
    def scanned_share(self) -> float:
        """Rows compared with a query / rows there were, since the last `take_recall`."""
        return float(self._shares[0] / self._shares[1]) if self._shares[1] else 0.0

    def recall(self) -> RecallEstimate:
        """Recall of the latest searches."""
        return self.control.recall()

    def take_counts(self) -> tuple[int, int]:
        """Links (true, found) of the samples since the last call."""
        true, found = self._counts.tolist()
        self._counts[:] = 0
        self._shares *= 0.9
        return true, found


def _keys(probes: Probes, queries: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """The cells that these queries go to, as position in `queries` << 32 | cell."""
    parts = []
    for place, query in enumerate(queries.tolist()):
        cells = probes.cells[int(probes.offsets[query]) : int(probes.offsets[query + 1])]
        parts.append(place << 32 | cells.astype(np.int64))
    return np.concatenate(parts)

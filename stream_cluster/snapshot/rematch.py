"""Links among selected objects, found exactly or in cells."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stream_cluster.matching import all_pairs
from stream_cluster.matching.cell_pairs import CellPairs
from stream_cluster.matching.exact import SKETCH_AFTER
from stream_cluster.model import Codes, Interrupt, Links, Progress

PROBE_ROWS = SKETCH_AFTER
"""Of so many rows and of twice as many all pairs are compared, to see how long it takes."""


@dataclass(frozen=True, slots=True)
class Rematch:
    """How selections are matched again: the settings `matching.rematch_*` and `matching.target_recall`."""

    engine: Literal["auto", "exact", "cells"] = "auto"
    exact_s: float = 120.0
    """With `auto`: longer exact matching than this is left to cells, if they are clearly faster."""
    target_recall: float = 0.995


@dataclass(slots=True)
class Matching:
    """One re-match; `facts` are known when `links` is used up."""

    codes: Codes
    """Shape (n, dim)."""
    threshold_cosine: float
    """That of the links wanted."""
    rematch: Rematch
    interrupt: Interrupt
    progress: Progress
    passing: npt.NDArray[np.int64] | None = None
    """Positions to be matched, ascending; None for all."""
    facts: dict[str, Any] = field(default_factory=lambda: {"engine": "exact", "recall": None})
    """`engine` and `recall` as the manifest has them."""

    def links(self) -> Iterator[Links]:
        """Each link of positions above the threshold once; with cells nearly all of them.

        Raises:
            Cancelled, TaskError: by `interrupt`.
        """
        names = None if self.passing is None else self.passing.astype(np.uint32)
        found = self._found()
        for links in found:
            yield links if names is None else Links(names[links.a], names[links.b], links.similarity)

    def _exactly(self) -> Iterator[Links]:
        return all_pairs(
            self.codes,
            self.threshold_cosine,
            rows=self.passing,
            interrupt=self.interrupt,
            progress=self.progress,
        )

    def _found(self) -> Iterator[Links]:
        if self.rematch.engine == "exact":
            return self._exactly()
        if self.rematch.engine == "cells":
            return self._in_cells(None)
        exact_s = exact_seconds(self.codes, self.threshold_cosine, self.interrupt, self.passing)
        return self._in_cells(exact_s) if exact_s > self.rematch.exact_s else self._exactly()

    def _in_cells(self, exact_s: float | None) -> Iterator[Links]:
        run = CellPairs(
            np.ascontiguousarray(self.codes if self.passing is None else self.codes[self.passing]),
            self.threshold_cosine,
            self.rematch.target_recall,
            interrupt=self.interrupt,
            progress=self.progress,
            exact_s=exact_s,
        )
        yield from run.links()
        if run.engine == "cells":
            self.facts = {
                "engine": "cells",
                "recall": run.recall.as_dict(),
                "target_recall": self.rematch.target_recall,
                "scanned_share": round(run.scanned_share, 6),
            }


def exact_seconds(
    codes: Codes,
    threshold_cosine: float,
    interrupt: Interrupt,
    passing: npt.NDArray[np.int64] | None = None,
) -> float:
    """How long it would take to compare all pairs (of the `passing`), about; 0 for few.

    By the pairs of some rows, evenly spread, and of twice as many: what the second takes longer is due to
    pairs alone, and not to what is done once, such as learning a sketch.
    """
    count = len(codes) if passing is None else len(passing)
    if count <= 4 * PROBE_ROWS:
        return 0.0
    taken = []
    for size in (PROBE_ROWS, 2 * PROBE_ROWS):
        places = np.linspace(0, count - 1, size).astype(np.int64)
        rows = places if passing is None else passing[places]
        began = time.perf_counter()
        for _ in all_pairs(codes, threshold_cosine, rows=rows, interrupt=interrupt):
            pass
        taken.append(time.perf_counter() - began)
    # Where the second was hardly slower, the machine was busy at first: then by the second alone.
    pairs_s = max(taken[1] - taken[0], taken[1] / 2)
    return float(pairs_s / 3 * (count / PROBE_ROWS) ** 2)

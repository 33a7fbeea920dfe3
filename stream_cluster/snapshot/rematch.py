"""Links among selected objects, found exactly or in cells."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from stream_cluster.matching import all_pairs
from stream_cluster.matching.cell_pairs import FEWEST_ROWS, CellPairs
from stream_cluster.model import Codes, Interrupt, Links, Progress

_PROBE_ROWS = 16_384


@dataclass(frozen=True, slots=True)
class Rematch:
    """How selections are matched again: the settings `matching.rematch_*` and `matching.target_recall`."""

    engine: Literal["auto", "exact", "cells"] = "auto"
    exact_s: float = 120.0
    """With `auto`: longer exact matching than this is left to cells."""
    target_recall: float = 0.995


@dataclass(slots=True)
class Matching:
    """One re-match; `facts` are known when `links` is used up."""

    codes: Codes
    """Shape (n, dim)."""
    threshold_cosine: float
    rematch: Rematch
    interrupt: Interrupt
    progress: Progress
    facts: dict[str, Any] = field(default_factory=lambda: {"engine": "exact", "recall": None})
    """`engine` and `recall` as the manifest has them."""

    def links(self) -> Iterator[Links]:
        """Each link above the threshold once; with cells nearly all of them.

        Raises:
            Cancelled, TaskError: by `interrupt`.
        """
        if not self._uses_cells():
            yield from all_pairs(
                self.codes, self.threshold_cosine, interrupt=self.interrupt, progress=self.progress
            )
            return
        run = CellPairs(
            np.ascontiguousarray(self.codes),
            self.threshold_cosine,
            self.rematch.target_recall,
            interrupt=self.interrupt,
            progress=self.progress,
        )
        yield from run.links()
        if run.engine == "cells":
            self.facts = {
                "engine": "cells",
                "recall": run.recall.as_dict(),
                "target_recall": self.rematch.target_recall,
                "scanned_share": round(run.scanned_share, 6),
            }

    def _uses_cells(self) -> bool:
        if self.rematch.engine == "cells":
            return True
        return (
            self.rematch.engine == "auto"
            and len(self.codes) >= FEWEST_ROWS
            and exact_seconds(self.codes, self.threshold_cosine, self.interrupt) > self.rematch.exact_s
        )


def exact_seconds(codes: Codes, threshold_cosine: float, interrupt: Interrupt) -> float:
    """How long it would take to compare all pairs, about: by those of some rows, evenly spread."""
    if len(codes) <= 2 * _PROBE_ROWS:
        return 0.0
    rows = np.linspace(0, len(codes) - 1, _PROBE_ROWS).astype(np.int64)
    began = time.perf_counter()
    for _ in all_pairs(codes, threshold_cosine, rows=rows, interrupt=interrupt):
        pass
    return float((time.perf_counter() - began) * (len(codes) / _PROBE_ROWS) ** 2)

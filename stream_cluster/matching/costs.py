"""What matching costs on this machine, measured once and kept, and which engine is cheapest for a space.

Four figures are measured on made-up people of 512 dimensions in about two seconds: an exact comparison with a
resident row, one with a centroid, one with a row of a cell that few queries share, and adding to and asking
an HNSW graph. Costs grow in proportion to the dimension; those of the graph with the fifth root of its size,
as was measured (benchmarks/results/crossover.json): searches take more steps, and caches hold less of it.

    exact    rows * exact_row_ns
    cells    cells * centroid_ns + PROBES * rows / cells * cell_row_ns
    hnsw     (hnsw_add_ns + hnsw_ask_ns) * (rows / GRAPH_ROWS) ** 0.2

Exact matching is kept as long as an event costs less than EXACT_FITS_S, for it misses nothing.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from stream_cluster import files
from stream_cluster.matching import kernel
from stream_cluster.matching.cell_store import CellStore
from stream_cluster.matching.cell_training import Centroids, cell_count
from stream_cluster.matching.codes import quantise
from stream_cluster.matching.exact import ExactMatcher
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.matching.threads import thread_limit
from stream_cluster.model import Codes

EXACT_FITS_S = 0.0005
CELLS_SHARE_OF_EXACT_S = 0.5
"""Cells miss links: where they are timed with real data, they have to take this share of the time or less."""

PROBES = 6
FORMAT = 1
GRAPH_ROWS = 2000

Engine = Literal["exact", "cells", "hnsw"]
ENGINES: tuple[Engine, ...] = get_args(Engine)

_GRAPH_GROWTH = 0.2
_DIM = 512
_ROWS = 32_768
_CELLS = 512
_QUERIES = 512
_measuring = threading.Lock()


@dataclass(frozen=True, slots=True)
class Costs:
    """Nanoseconds at 512 dimensions."""

    exact_row_ns: float
    centroid_ns: float
    cell_row_ns: float
    hnsw_add_ns: float
    hnsw_ask_ns: float
    path: str
    """Instruction set of the kernel."""
    threads: int

    def event_s(self, engine: Engine, rows: int, dim: int) -> float:
        """Seconds for an event beside so many rows, about."""
        if engine == "exact":
            cost = rows * self.exact_row_ns
        elif engine == "cells":
            cells = cell_count(rows)
            cost = cells * self.centroid_ns + PROBES * rows / cells * self.cell_row_ns
        else:
            cost = (self.hnsw_add_ns + self.hnsw_ask_ns) * (rows / GRAPH_ROWS) ** _GRAPH_GROWTH
        return cost * dim / _DIM * 1e-9

    def choose(self, rows: int, dim: int, *, cells_after: int, hnsw_after: int) -> Engine:
        """The engine for a space: exact while that fits, else the cheapest of those its size allows.

        Cells and HNSW are for spaces of at least `cells_after` and `hnsw_after` rows.
        """
        if self.event_s("exact", rows, dim) <= EXACT_FITS_S:
            return "exact"
        possible: list[Engine] = ["exact"]
        possible += ["cells"] if rows >= cells_after else []
        possible += ["hnsw"] if rows >= hnsw_after else []
        return min(possible, key=lambda engine: self.event_s(engine, rows, dim))


def measure() -> Costs:
    """Measure this machine; takes about two seconds of all threads."""
    codes = _people(_ROWS + _QUERIES)
    resident, queries = codes[:_ROWS], np.ascontiguousarray(codes[_ROWS:])
    exact = ExactMatcher(_DIM)
    exact.add(resident)
    exact_s = _least_s(lambda: sum(len(hits) for hits in exact.search(queries, 0.5)))
    store = CellStore(_DIM)
    centroids = Centroids(resident[:_CELLS], store.take_cells(_CELLS))
    store.append(resident, np.arange(_ROWS, dtype=np.uint32) % _CELLS)
    threads = thread_limit()
    centroid_s = _least_s(lambda: centroids.cells_of(queries))
    offsets = np.arange(_QUERIES + 1, dtype=np.uint64)
    # One query for each cell: what it is compared with comes from memory.
    probed = np.arange(_QUERIES, dtype=np.uint32) % _CELLS

    def in_cells() -> None:
        run = kernel.search_cells(
            store.packed,
            queries,
            offsets,
            probed,
            0.5,
            pairs=False,
            threads=threads,
            max_hits=1 << 20,
            path="",
        )
        while not run.done:
            run.next(1.0)

    cells_s = _least_s(in_cells)
    graph = HnswMatcher(_DIM, threads=threads, ef_search=64)
    began = time.perf_counter()
    graph.add(resident[:GRAPH_ROWS])
    add_s = time.perf_counter() - began
    ask_s = _least_s(lambda: sum(len(hits) for hits in graph.search(queries, 0.5)))
    return Costs(
        exact_row_ns=exact_s / (_ROWS * _QUERIES) * 1e9,
        centroid_ns=centroid_s / (_CELLS * _QUERIES) * 1e9,
        cell_row_ns=cells_s / (_QUERIES * _ROWS / _CELLS) * 1e9,
        hnsw_add_ns=add_s / GRAPH_ROWS * 1e9,
        hnsw_ask_ns=ask_s / _QUERIES * 1e9,
        path=kernel.path_in_use(""),
        threads=threads,
    )


def costs_path(directory: Path) -> Path:
    """Where the costs are kept in a state directory."""
    return directory / "matching-costs.json"


def load(directory: Path) -> Costs | None:
    """The costs that were measured; None when there are none that can be read."""
    try:
        fields = json.loads(costs_path(directory).read_text())
        if fields.pop("format") != FORMAT:
            return None
        return Costs(**fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def load_or_measure(directory: Path) -> Costs:
    """The costs kept in a state directory if they are of this machine; else measured, and kept."""
    with _measuring:  # two at once would measure each other
        found = load(directory)
        if found is not None and (found.path, found.threads) == (kernel.path_in_use(""), thread_limit()):
            return found
        costs = measure()
        with contextlib.suppress(OSError):  # such as a full disk: the next start measures again
            files.make_folder(directory)
            temporary = costs_path(directory).with_suffix(".tmp")
            with files.create(temporary) as file:
                file.write(json.dumps({"format": FORMAT, **asdict(costs)}, indent=2).encode() + b"\n")
            temporary.replace(costs_path(directory))
        return costs


def _least_s(function: Callable[[], object]) -> float:
    """Seconds of the faster of two calls."""
    times = []
    for _ in range(2):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)


def _people(count: int) -> Codes:
    """Codes of people, four of each, whose variance lies in few directions, as that of faces does."""
    random = np.random.default_rng(1)
    spread = np.exp(-np.arange(_DIM) / 60).astype(np.float32)
    person = random.standard_normal((count // 4 + 1, _DIM), dtype=np.float32) * spread
    noise = random.standard_normal((count, _DIM), dtype=np.float32) * np.float32(0.1)
    vectors = np.repeat(person, 4, axis=0)[:count] + noise
    return quantise(vectors[random.permutation(count)])

"""From how many resident objects on HNSW is faster than exact matching: both on the same data and threads.

    python -m benchmarks.crossover [--rows 10000,50000,...] [--max-rows 2000000] [--write FILE.json [--keep]]

The work of one micro-batch of 512 new objects: find resident rows above the threshold, then add the batch. At
each number of resident rows some batches are given to both matchers, over one store of codes:

exact   `ExactMatcher`: compares with every row; adding is an append.
hnsw    `HnswMatcher` with the default parameters: radius search in the graph; adding inserts into the graph.

Times are seconds per 1,000 new objects. Recall is the share of the exact matcher's hits that HNSW found. The
graph's bytes per object are the growth of this process's resident memory, less the codes that both need; some
50 MB of working memory are in it, which counts below 100,000 rows. The file is written after each number of
rows: filling the graph with two million takes most of an hour.

The rows are the first ones of a set of `benchmarks.seed_data` as large as the largest number asked for, so
people have all their photographs only there.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.process import resident_memory_bytes
from benchmarks.report import write_report
from benchmarks.seed_data import DIM, parse_sizes, seed_data
from stream_cluster.config.settings import MatchingSettings
from stream_cluster.matching import CodeStore, Hits, limit_threads, quantise
from stream_cluster.matching.exact import ExactMatcher
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.model import Codes

_ROWS = (10_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 2_000_000)
_BATCH = 512
_CHUNK = 8192


class _Feed:
    """Codes of the data in order, in pieces of any size."""

    def __init__(self, objects: int) -> None:
        data = seed_data(objects + objects % 2)
        self._blocks: Iterator[Codes] = (quantise(block) for block in data.blocks())
        self._rest: Codes = np.empty((0, DIM), np.int8)

    def take(self, count: int) -> Codes:
        """The next `count` codes."""
        parts = [self._rest]
        while sum(map(len, parts)) < count:
            parts.append(next(self._blocks))
        codes = np.concatenate(parts)
        self._rest = codes[count:]
        return codes[:count]


class _Both:
    """The two matchers over one store."""

    def __init__(self, threshold: float, threads: int) -> None:
        settings = MatchingSettings()
        self.store = CodeStore(DIM)
        self.exact = ExactMatcher(DIM, store=self.store)
        self.hnsw = HnswMatcher(
            DIM,
            settings.hnsw_m,
            settings.hnsw_ef_construction,
            settings.hnsw_ef_search,
            threads,
            store=self.store,
        )
        self.with_graph = True
        """Whether rows enter the graph, too."""
        self._threshold = threshold
        self._start_bytes = 0

    def fill(self, feed: _Feed, rows: int) -> float:
        """Add rows up to that many. Returns the CPU seconds, of all threads, that the graph took."""
        spent_s = 0.0
        while len(self.store) < rows:
            codes = feed.take(min(_CHUNK, rows - len(self.store)))
            # After the first rows are made, so that the memory for making them does not count.
            self._start_bytes = self._start_bytes or resident_memory_bytes()
            self.store.append(codes)
            if self.with_graph:
                began = time.process_time()
                self.hnsw.catch_up()
                spent_s += time.process_time() - began
        return spent_s

    @property
    def graph_bytes(self) -> int:
        """Growth of resident memory without the codes."""
        return resident_memory_bytes() - self._start_bytes - self.store.nbytes

    def batch(self, codes: Codes) -> dict[str, float]:
        """Match and add one micro-batch. Returns seconds by step, and hits."""
        marks = [time.perf_counter()]
        exact = _keys(self.exact.search(codes, self._threshold))
        marks.append(time.perf_counter())
        near = _keys(self.hnsw.search(codes, self._threshold)) if self.with_graph else None
        marks.append(time.perf_counter())
        self.store.append(codes)
        marks.append(time.perf_counter())
        if near is not None:
            self.hnsw.catch_up()
        marks.append(time.perf_counter())
        exact_search, hnsw_search, append, insert = np.diff(marks)
        result = {"exact_search_s": exact_search, "exact_add_s": append, "hits": float(len(exact))}
        if near is not None:
            found = float(np.isin(exact, near, assume_unique=True).sum())
            result |= {"hnsw_search_s": hnsw_search, "hnsw_add_s": append + insert, "hits_found": found}
        return result


def _keys(parts: Iterator[Hits]) -> npt.NDArray[np.uint64]:
    """One number for each pair."""
    keys = [hits.query.astype(np.uint64) << np.uint64(32) | hits.row for hits in parts]
    return np.concatenate(keys) if keys else np.empty(0, np.uint64)


def measure(
    rows: Sequence[int], *, max_rows: int, threshold: float, threads: int, batches: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and result of each number of resident rows, as they are measured."""
    threads = limit_threads(threads)
    say = Console(stderr=True).print
    feed = _Feed(max(rows) + batches * _BATCH * len(rows))
    both = _Both(threshold, threads)
    for count in sorted(rows):
        both.with_graph = count <= max_rows
        fill_cpu_s = both.fill(feed, count)
        # The batches stay in the store: the next number of rows includes them.
        runs = [both.batch(feed.take(_BATCH)) for _ in range(batches)]
        result = _summary(count, runs, both, fill_cpu_s)
        say(f"{count:,} rows: exact {result['exact_s']} s, hnsw {result.get('hnsw_s', 'not built')}")
        yield f"{count:,} rows", result


def _summary(count: int, runs: list[dict[str, float]], both: _Both, fill_cpu_s: float) -> dict[str, Any]:
    def per_1000(step: str) -> float:
        # The median: one batch may fall together with something else on the machine.
        return float(np.median([run[step] for run in runs])) * 1000 / _BATCH

    exact_s = per_1000("exact_search_s") + per_1000("exact_add_s")
    hits = sum(run["hits"] for run in runs)
    result: dict[str, Any] = {
        "rows": count,
        "exact_s": round(exact_s, 4),
        "hits_per_object": round(hits / len(runs) / _BATCH, 2),
        "code_bytes_per_object": round(both.store.nbytes / len(both.store), 1),
    }
    if "hnsw_search_s" in runs[0]:
        search_s, add_s = per_1000("hnsw_search_s"), per_1000("hnsw_add_s")
        result |= {
            "hnsw_s": round(search_s + add_s, 4),
            "hnsw_search_s": round(search_s, 4),
            "hnsw_add_s": round(add_s, 4),
            "recall": round(sum(run["hits_found"] for run in runs) / hits, 5) if hits else 1.0,
            "graph_bytes_per_object": round(both.graph_bytes / len(both.store), 1),
            "graph_allocated_bytes_per_object": round(
                (both.hnsw.nbytes - both.store.nbytes) / len(both.store), 1
            ),
            "graph_fill_cpu_s": round(fill_cpu_s, 1),
        }
    return result


def crossover(results: Sequence[dict[str, Any]]) -> int | None:
    """Rows from which on HNSW is faster, between two measured numbers; None when it never is.

    Between them, time is taken as linear in the number of rows.
    """
    points = sorted(
        (int(result["rows"]), float(result["exact_s"]) - float(result["hnsw_s"]))
        for result in results
        if "hnsw_s" in result
    )
    slower = [number for number, (_, gain_s) in enumerate(points) if gain_s <= 0]
    if not slower:
        return points[0][0] if points else None
    last = slower[-1]
    if last == len(points) - 1:
        return None
    (low, loss_s), (high, gain_s) = points[last], points[last + 1]
    return round(low + (high - low) * -loss_s / (gain_s - loss_s))


def _print(results: dict[str, dict[str, Any]], found: int | None) -> None:
    heads = ("rows", "exact", "hnsw", "search", "insert", "recall", "hits", "graph B/object")
    table = Table(title="seconds per 1,000 new objects")
    for head in heads:
        table.add_column(head, justify="right")
    for result in results.values():
        cells = [f"{result['rows']:,}", f"{result['exact_s']:.3f}"]
        if "hnsw_s" in result:
            cells += [f"{result[name]:.3f}" for name in ("hnsw_s", "hnsw_search_s", "hnsw_add_s")]
            cells += [f"{result['recall']:.2%}", f"{result['hits_per_object']:g}"]
            cells += [f"{result['graph_bytes_per_object']:,.0f}"]
        else:
            cells += ["", "", "", "", f"{result['hits_per_object']:g}"]
        table.add_row(*cells)
    Console(width=None if Console().is_terminal else 110).print(table)
    print("HNSW is faster at no size measured" if found is None else f"HNSW is faster from {found:,} rows on")


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crossover",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=parse_sizes, default=list(_ROWS), help="numbers of resident rows")
    parser.add_argument(
        "--max-rows", type=int, default=2_000_000, help="rows that the graph is built for; beyond, only exact"
    )
    parser.add_argument("--batches", type=int, default=5, help="micro-batches at each number of rows")
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="add to the results that the file has")
    options = parser.parse_args(arguments)
    before = environment()
    names = ("max_rows", "batches", "threshold", "threads")
    results: dict[str, dict[str, Any]] = {}
    for name, result in measure(
        options.rows,
        max_rows=options.max_rows,
        threshold=options.threshold,
        threads=options.threads,
        batches=options.batches,
    ):
        results[name] = result
        write_report(
            options.write,
            "crossover",
            "make bench-crossover",
            parameters={**{name: getattr(options, name) for name in names}, "batch": _BATCH},
            hnsw_faster_from_rows=crossover(list(results.values())),
            environment=before,
            results=results,
            keep=options.keep,
        )
    _print(results, crossover(list(results.values())))


if __name__ == "__main__":
    main()

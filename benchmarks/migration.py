"""A space passes `matching.hnsw_after` under load: what ingest notices of the change of its engine.

    python -m benchmarks.migration [--rows 100000] [--rate 250] [--write benchmarks/results/migration.json]

One partition with durable settings and `matching.engine: auto`; no broker. Objects of `benchmarks.seed_data`
go in as fast as they can until there are --rows of them, which is `matching.hnsw_after` here. From then on
micro-batches arrive at --rate events a second, while a thread builds the graph beside them, and for --after
seconds more once the graph is in use. The graph must grow faster than rows arrive: with twice the rows and
the rate, two cores build for longer than the spare data last. For each phase, the time from when a batch is
due to its commit:

exact      the same rate before the number is reached, for --after seconds.
building   from the first search that starts the build to the one that takes the graph into use.
takeover   that one batch: it adds the rows that came in meanwhile to the graph.
hnsw       after it.

`late_batches` are those that were not done when the next one was due: ingest did not keep up then.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.process import peak_memory_bytes
from benchmarks.report import write_report
from benchmarks.seed_data import seed_data
from benchmarks.seed_table import read_records, write_records
from stream_cluster.config import Settings
from stream_cluster.config.settings import MatchingSettings
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import DecodeRules, RawRecord
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity

_IDENTITY = PartitionIdentity("events", 0, 1, "murmur2")
_BATCH = 512


class _Load:
    """Micro-batches into a partition, fast or at a rate; keeps what each of them took."""

    def __init__(self, partition: Partition, records: Iterator[RawRecord], engine: Callable[[], str]) -> None:
        self._partition = partition
        self._records = records
        self._engine = engine
        self.rows = 0

    def fill(self, rows: int) -> None:
        """As fast as it goes, up to so many objects."""
        while self.rows < rows:
            self._apply(min(_BATCH, rows - self.rows))

    def paced(self, rate: float, until: Callable[[], bool]) -> list[tuple[str, float]]:
        """At `rate` events a second until told: the engine after each batch, and seconds from due to done."""
        due = said = time.perf_counter()
        taken: list[tuple[str, float]] = []
        while not until():
            time.sleep(max(due - time.perf_counter(), 0.0))
            self._apply(_BATCH)
            taken.append((self._engine(), time.perf_counter() - due))
            due += _BATCH / rate
            if due > said + 10:
                said = due
                Console(stderr=True).print(f"{self.rows:,} objects resident, engine {self._engine()}")
        return taken

    def _apply(self, count: int) -> None:
        batch = list(itertools.islice(self._records, count))
        if len(batch) < count:
            raise SystemExit(
                "the data ended before the graph was in use: a lower --rate or more --spare is needed"
            )
        self._partition.apply(batch)
        self.rows += count


def measure(rows: int, rate: float, after_s: float, spare: int) -> dict[str, dict[str, Any]]:
    """One result for each phase."""
    say = Console(stderr=True).print
    matchers: list[SpaceMatcher] = []
    settings = Settings(matching=MatchingSettings(engine="auto", hnsw_after=rows, cells_after=1 << 40))

    def make(dim: int, _: object) -> SpaceMatcher:
        matchers.append(SpaceMatcher(dim, settings.matching))
        return matchers[-1]

    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as text:
        folder = Path(text)
        seed_data(rows + spare + (rows + spare) % 2).write(folder / "objects.npz")
        write_records(folder / "objects.npz", folder / "records")
        say(f"{rows + spare:,} objects made")
        partition = Partition(
            database_path(folder, 0),
            _IDENTITY,
            DecodeRules(None, settings.kafka.max_message_bytes, settings.ingest.uint8_offset),
            make,
            0.5,
            synchronous=settings.state.synchronous,
            page_cache_mb=settings.state.page_cache_mb,
        )
        records = (record for batch in read_records(folder / "records") for record in batch)
        load = _Load(partition, records, lambda: matchers[0].engine)
        before = int(rate * after_s)
        load.fill(rows - before)
        say(f"{load.rows:,} objects resident")
        phases = {"exact": load.paced(rate, lambda: load.rows >= rows)}
        building = load.paced(rate, lambda: matchers[0].engine == "hnsw")
        say(f"HNSW in use with {load.rows:,} objects resident")
        end = time.perf_counter() + after_s
        phases |= {"building": building[:-1], "takeover": building[-1:]}
        phases["hnsw"] = load.paced(rate, lambda: time.perf_counter() > end)
        recall = matchers[0].take_recall()
        partition.close()
    results = {name: _summary([took for _, took in taken], rate) for name, taken in phases.items()}
    results["hnsw"]["sampled_links"] = recall.links_true
    share = round(recall.links_found / recall.links_true, 5) if recall.links_true else None
    results["hnsw"]["sampled_recall"] = share
    results["hnsw"]["rows"] = load.rows
    results["hnsw"]["peak_memory_bytes"] = peak_memory_bytes()
    return results


def _summary(took_s: Sequence[float], rate: float) -> dict[str, Any]:
    times = np.asarray(took_s)
    return {
        "batches": len(times),
        "seconds": round(len(times) * _BATCH / rate, 1),
        "p50_ms": round(float(np.quantile(times, 0.5)) * 1e3, 1),
        "p99_ms": round(float(np.quantile(times, 0.99)) * 1e3, 1),
        "max_ms": round(float(times.max()) * 1e3, 1),
        "late_batches": int((times > _BATCH / rate).sum()),
    }


def _print(results: dict[str, dict[str, Any]]) -> None:
    table = Table(title=f"micro-batches of {_BATCH}, due to committed")
    for head in ("phase", "batches", "seconds", "p50 ms", "p99 ms", "max ms", "late"):
        table.add_column(head, justify="right")
    for name, result in results.items():
        names = ("batches", "seconds", "p50_ms", "p99_ms", "max_ms", "late_batches")
        table.add_row(name, *(f"{result[figure]:,}" for figure in names))
    Console(width=None if Console().is_terminal else 100).print(table)


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.migration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=100_000, help="resident objects when the engine changes")
    parser.add_argument("--rate", type=float, default=250.0, help="events a second")
    parser.add_argument("--after", type=float, default=20.0, help="seconds at the rate before and after")
    parser.add_argument(
        "--spare", type=int, default=400_000, help="objects to arrive during the change, at most"
    )
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    options = parser.parse_args(arguments)
    before = environment()
    results = measure(options.rows, options.rate, options.after, options.spare)
    _print(results)
    write_report(
        options.write,
        "migration",
        "make bench-migration",
        parameters={"rows": options.rows, "rate": options.rate, "after_s": options.after, "batch": _BATCH},
        environment=before,
        results=results,
    )


if __name__ == "__main__":
    main()

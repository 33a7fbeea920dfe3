"""What cluster updates cost ingest: the same records with and without them, side by side.

    python -m benchmarks.updates [--objects 10000,100000] [--write benchmarks/results/updates.json]

Two states with the same resident people, one of which has updates, take the same batches of 1024 records in
turn: `arrivals` are new objects, `mixed` are new ones and a tenth of deletions. What the outbox holds counts
as acknowledged after each batch, so it is written and deleted again, but nothing is sent. `load_s` is what
the first batch after a start takes longer with updates, `restate_s` the restatement of the whole space.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.deletes import apply, deletes, people, upserts
from benchmarks.environment import environment
from benchmarks.report import write_report
from benchmarks.seed_data import parse_sizes
from stream_cluster.config import Settings
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import DecodeRules, ObjectMessage
from stream_cluster.state.database import database_path
from stream_cluster.state.outbox import Told
from stream_cluster.state.partition import Partition, PartitionIdentity
from stream_cluster.state.updates import UpdateOptions

_FLOOR = 0.45
_BATCH = 1024
_ROUNDS = 8
_EPOCH = 1


def _open(folder: Path, *, updates: bool, end: Told | None = None) -> Partition:
    settings = Settings()
    folder.mkdir(exist_ok=True)
    return Partition(
        database_path(folder, 0),
        PartitionIdentity("events", 0, 1, "murmur2"),
        DecodeRules(partition_of=None, max_message_bytes=1 << 20, uint8_offset=128),
        lambda dim, _: SpaceMatcher(dim, settings.matching),
        _FLOOR,
        page_cache_mb=settings.state.page_cache_mb,
        updates=UpdateOptions(settings.similarity, end, _EPOCH) if updates else None,
    )


def _apply(partition: Partition, messages: Sequence[ObjectMessage]) -> float:
    """Apply one batch; its seconds. Whoever tells updates on is thought to be as quick."""
    (seconds,) = apply(partition, messages, len(messages))
    if partition.updates is not None:
        partition.updates.outbox.acknowledged_seq = partition.updates.outbox.last_seq
    return seconds


def _together(one: Partition, other: Partition, batches: Sequence[Sequence[ObjectMessage]]) -> dict[str, Any]:
    """The same batches for both, in turn, the first one alternating."""
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for number, batch in enumerate(batches):
        pair = [("without", one), ("with", other)]
        for name, partition in pair if number % 2 else reversed(pair):
            seconds[name].append(_apply(partition, batch))
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    return {
        "without_per_s": round(len(batches[0]) / medians["without"]),
        "with_per_s": round(len(batches[0]) / medians["with"]),
        "more_ms_per_batch": round((medians["with"] - medians["without"]) * 1e3, 2),
    }


def measure(objects: int, dim: int) -> dict[str, Any]:
    """All figures beside that many resident objects."""
    random = np.random.default_rng(1)
    vectors = people(objects + (2 * _ROUNDS + 1) * _BATCH, dim, random)
    new = upserts(vectors[objects:], objects)
    gone = deletes(random.permutation(objects))
    arrivals = [new[begin : begin + _BATCH] for begin in range(_BATCH, (_ROUNDS + 1) * _BATCH, _BATCH)]
    share = _BATCH // 10
    mixed = []
    for number in range(_ROUNDS):
        begin = (_ROUNDS + 1 + number) * _BATCH
        batch = [*new[begin : begin + _BATCH - share], *gone[number * share : (number + 1) * share]]
        mixed.append([batch[place] for place in random.permutation(_BATCH).tolist()])
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        plain = _open(Path(folder) / "without", updates=False)
        apply(plain, upserts(vectors[:objects]), _BATCH)
        told = _open(Path(folder) / "with", updates=False)
        apply(told, upserts(vectors[:objects]), _BATCH)
        told.close()
        told = _open(Path(folder) / "with", updates=True)
        assert told.updates is not None
        began = time.perf_counter()
        while told.updates.has_untold:
            told.updates.restate(objects)
        restate_s = time.perf_counter() - began
        outbox = told.updates.outbox
        end = Told(outbox.epoch, outbox.last_seq)
        plain.close()
        told.close()
        plain = _open(Path(folder) / "without", updates=False)
        told = _open(Path(folder) / "with", updates=True, end=end)
        load_s = -_apply(plain, new[:_BATCH]) + _apply(told, new[:_BATCH])
        results = {"arrivals": _together(plain, told, arrivals), "mixed": _together(plain, told, mixed)}
        assert told.updates is not None
        memory = told.updates.nbytes / (objects + 2 * _ROUNDS * _BATCH)
        plain.close()
        told.close()
    other = {
        "restate_s": round(restate_s, 3),
        "load_s": round(load_s, 3),
        "memory_bytes_per_object": round(memory, 1),
    }
    return {**results, "once": other}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.updates",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--objects", type=parse_sizes, default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    chosen = parser.parse_args(arguments)
    before = environment()
    results = {f"{objects:,} resident": measure(objects, chosen.dim) for objects in chosen.objects}
    table = Table("figure", *results, title="cluster updates")
    for kind, figures in next(iter(results.values())).items():
        for figure in figures:
            table.add_row(f"{kind}.{figure}", *(str(run[kind][figure]) for run in results.values()))
    Console().print(table)
    write_report(
        chosen.write,
        "updates",
        "make bench-updates",
        parameters={"objects": chosen.objects, "dim": chosen.dim, "floor": _FLOOR, "rounds": _ROUNDS},
        environment=before,
        results=results,
    )


if __name__ == "__main__":
    main()

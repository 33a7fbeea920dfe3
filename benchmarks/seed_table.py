"""The published table, measured with this product: batch and streaming, at every size and threshold.

    python -m benchmarks.seed_table [--sizes 10000,100000,1000000] [--write FILE.json [--keep]]

The data are those of `benchmarks.seed_data`, made anew in a temporary folder. For each size:

batch      `stream-cluster cluster FILE.npz --threshold t --engine exact` as a process, from the file to the
           archive, once for each threshold.
streaming  a process that reads the same objects as MessagePack records, in micro-batches of 1024, into one
           partition with the floor 0.5 (decoding, matching, durable commit), and then takes a snapshot at
           each threshold from the forest, each again from the state to the archive.

Both must put the same objects together: their lists of clusters are compared. Peak memory is resident memory.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.faces import run_cluster
from benchmarks.process import Usage, peak_memory_bytes, run_measured
from benchmarks.published import PUBLISHED, THRESHOLDS, nonzero, target_nonzero
from benchmarks.report import write_report
from benchmarks.seed_data import codes_of, count_links, parse_sizes, seed_data
from stream_cluster.config import Settings
from stream_cluster.config.settings import MatchingSettings
from stream_cluster.matching import SpaceMatcher, limit_threads
from stream_cluster.messages import (
    MSGPACK,
    Content,
    DecodeRules,
    Descriptor,
    Metadata,
    ObjectMessage,
    RawRecord,
    TaskRequest,
    encode_object,
)
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.offline.load import DEFAULT_ACCOUNT
from stream_cluster.offline.vectors import open_vectors
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import run_snapshot
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity

_FLOOR = min(THRESHOLDS)
_BATCH_RECORDS = 1024
_IDENTITY = PartitionIdentity("events", 0, 1, "murmur2")


def write_records(vectors: Path, target: Path) -> None:
    """Write the objects of an `.npz` as MessagePack records, each after its size (uint32, little-endian)."""
    with open_vectors(vectors) as file, target.open("wb") as records:
        for block in file.blocks(_BATCH_RECORDS):
            for object_id, vector in zip(block.ids, block.vectors, strict=True):
                message = ObjectMessage(
                    account_id=DEFAULT_ACCOUNT,
                    object_type="event",
                    action="upsert",
                    object_ids=(object_id,),
                    metadata=Metadata(),
                    descriptors=(Descriptor("face", 1, vector),),
                )
                value = encode_object(message, MSGPACK)
                records.write(len(value).to_bytes(4, "little") + value)


def read_records(path: Path) -> Iterator[list[RawRecord]]:
    """The records in micro-batches, as Kafka would deliver them."""
    offset = 0
    key = DEFAULT_ACCOUNT.encode()
    with path.open("rb") as file:
        batch: list[RawRecord] = []
        while size := file.read(4):
            value = file.read(int.from_bytes(size, "little"))
            batch.append(RawRecord(_IDENTITY.topic, 0, offset, 0, key, value, MSGPACK))
            offset += 1
            if len(batch) == _BATCH_RECORDS:
                yield batch
                batch = []
        if batch:
            yield batch


def stream(folder: Path, thresholds: Sequence[float], threads: int) -> dict[str, Any]:
    """Run in a process of its own: `records` into a partition, then a snapshot at each threshold.

    `records` is read from the folder, `stream-<threshold>.zip` written into it.
    """
    settings = Settings(matching=MatchingSettings(engine="exact", threads=threads))
    partition = Partition(
        database_path(folder, 0),
        _IDENTITY,
        DecodeRules(None, settings.kafka.max_message_bytes, settings.ingest.uint8_offset),
        lambda dim, _: SpaceMatcher(dim, settings.matching),
        _FLOOR,
        synchronous=settings.state.synchronous,
        page_cache_mb=settings.state.page_cache_mb,
    )
    events = links = 0
    batch_s, stage_s = [], dict[str, float]()
    for records in read_records(folder / "records"):
        began = time.perf_counter()
        outcome = partition.apply(records)
        batch_s.append(time.perf_counter() - began)
        events += outcome.accepted
        links += sum(outcome.links.values())
        for stage, seconds in outcome.stage_s.items():
            stage_s[stage] = stage_s.get(stage, 0.0) + seconds
    last = batch_s[-max(len(batch_s) // 10, 1) :]
    result: dict[str, Any] = {
        "objects": events,
        "seconds": round(sum(batch_s), 3),
        "events_per_s": round(events / sum(batch_s)),
        "events_per_s_of_last_tenth": round(min(len(last) * _BATCH_RECORDS, events) / sum(last)),
        "stage_s": {stage: round(seconds, 2) for stage, seconds in stage_s.items()},
        "links_above_floor": links,
        "peak_memory_bytes": peak_memory_bytes(),
    }
    result["snapshots"] = {f"{t:g}": _snapshot(partition, settings, folder, t) for t in thresholds}
    result["peak_memory_with_snapshots_bytes"] = peak_memory_bytes()
    partition.close()
    return result


def _snapshot(partition: Partition, settings: Settings, folder: Path, threshold: float) -> dict[str, Any]:
    content = Content(objects_type="events", threshold=threshold)
    task = TaskRequest(task_id="benchmark", account_id=DEFAULT_ACCOUNT, content=content)
    began = time.perf_counter()
    with partition.view() as view:
        done = run_snapshot(
            view,
            resolve_request(task, settings, time.time_ns() // 1000),
            folder / f"stream-{threshold:g}.zip",
            interrupt=Interrupt(),
            progress=no_progress,
            as_of=None,
        )
    seconds = round(time.perf_counter() - began, 3)
    return {"seconds": seconds, "method": done.method, "clusters": done.clusters}


def same_clusters(one: Path, other: Path) -> bool:
    """Whether two archives list the same clusters."""
    parts = []
    for path in (one, other):
        with zipfile.ZipFile(path) as archive:
            parts.append(archive.read("clusters.jsonl"))
    return parts[0] == parts[1]


def measure(
    size: int, thresholds: tuple[float, ...], threads: int, folder: Path
) -> dict[str, dict[str, Any]]:
    """All cells of one size, by a name for each."""
    say = Console(stderr=True).print
    vectors = folder / "objects.npz"
    data = seed_data(size)
    data.write(vectors)
    say(f"{size:,} objects written")
    batches = {}
    for threshold in thresholds:
        archive = folder / f"batch-{threshold:g}.zip"
        # Exact, as streaming below: both routes have to give the same clusters.
        batches[threshold] = run_cluster(vectors, threshold, archive, threads, "exact")
        say(f"{size:,} at {threshold:g}: batch {batches[threshold].seconds:.1f} s")
    write_records(vectors, folder / "records")
    command = [sys.executable, "-m", "benchmarks.seed_table", "--stream", str(folder)]
    command += ["--threads", str(threads), "--thresholds", ",".join(f"{t:g}" for t in thresholds)]
    usage, output = run_measured(command)
    if usage.returncode != 0:
        raise SystemExit(f"the streaming process ended with status {usage.returncode}")
    streamed = json.loads(output)
    say(f"{size:,}: streaming {streamed['seconds']:.1f} s, {streamed['events_per_s']:,} events a second")
    nonzeros = {t: count * data.copies**2 for t, count in _counted(data.objects, thresholds, threads).items()}
    cells = {}
    for threshold in thresholds:
        cells[f"{size:,} at {threshold:g}"] = {
            "objects": size,
            "threshold": threshold,
            **_nonzeros(size, threshold, nonzeros[threshold]),
            **_times(batches[threshold], streamed, f"{threshold:g}"),
            "same_clusters": same_clusters(
                folder / f"batch-{threshold:g}.zip", folder / f"stream-{threshold:g}.zip"
            ),
        }
    return cells


def _times(batch: Usage, streamed: dict[str, Any], threshold: str) -> dict[str, Any]:
    """Time and memory of both routes in a cell. Streaming is the same for all cells but for the snapshot."""
    snapshot = streamed["snapshots"][threshold]
    return {
        "batch": {
            "seconds": batch.seconds,
            "cpu_s": batch.cpu_s,
            "peak_memory_bytes": batch.peak_memory_bytes,
        },
        "streaming": {
            **{name: value for name, value in streamed.items() if name != "snapshots"},
            "snapshot_s": snapshot["seconds"],
            "snapshot_method": snapshot["method"],
        },
        "clusters": snapshot["clusters"],
    }


@lru_cache
def _counted(objects: int, thresholds: tuple[float, ...], threads: int) -> dict[float, float]:
    """Non-zeros of one copy of the data; with two copies each of them is there four times."""
    limit_threads(threads)
    links = count_links(codes_of(seed_data(objects)), thresholds)
    return {threshold: nonzero(objects, count) for threshold, count in links.items()}


def _nonzeros(size: int, threshold: float, found: float) -> dict[str, Any]:
    """What the data hold, and what was published about as many."""
    facts: dict[str, Any] = {"nonzero": round(found)}
    if threshold in THRESHOLDS:
        facts["nonzero_deviation"] = round(found / target_nonzero(size, threshold) - 1, 4)
    if (size, threshold) in PUBLISHED:
        published = PUBLISHED[size, threshold]
        facts["published"] = {
            "nonzero": published.nonzero,
            "seconds_below": published.seconds,
            "memory_gb_below": published.memory_gb,
        }
    return facts


_COLUMNS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("objects", lambda cell: f"{cell['objects']:,}"),
    ("t", lambda cell: f"{cell['threshold']:g}"),
    ("non-zeros", lambda cell: f"{cell['nonzero']:,}"),
    ("published", lambda cell: f"{cell['published']['nonzero']:,}" if "published" in cell else ""),
    ("time below", lambda cell: _duration(cell["published"]["seconds_below"]) if "published" in cell else ""),
    ("RAM below", lambda cell: f"{cell['published']['memory_gb_below']:g} GB" if "published" in cell else ""),
    ("batch", lambda cell: _duration(cell["batch"]["seconds"])),
    ("RAM", lambda cell: _megabytes(cell["batch"]["peak_memory_bytes"])),
    ("stream", lambda cell: _duration(cell["streaming"]["seconds"])),
    ("events/s", lambda cell: f"{cell['streaming']['events_per_s']:,}"),
    ("RAM", lambda cell: _megabytes(cell["streaming"]["peak_memory_bytes"])),
    ("snapshot", lambda cell: _duration(cell["streaming"]["snapshot_s"])),
    ("clusters", lambda cell: f"{cell['clusters']:,}"),
    ("equal", lambda cell: "yes" if cell["same_clusters"] else "NO"),
)


def _duration(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.2f} s"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _print(cells: dict[str, dict[str, Any]]) -> None:
    table = Table(title="clustering, published and measured")
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right")
    for cell in cells.values():
        table.add_row(*(text(cell) for _, text in _COLUMNS))
    Console(width=None if Console().is_terminal else 160).print(table)


def _thresholds(text: str) -> tuple[float, ...]:
    found = tuple(float(part) for part in text.split(","))
    if min(found) < _FLOOR:
        raise argparse.ArgumentTypeError(f"found {min(found):g}, expected thresholds from {_FLOOR:g}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """The command. Ends with status 1 when the two routes do not give the same clusters."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seed_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=parse_sizes, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--thresholds", type=_thresholds, default=THRESHOLDS)
    parser.add_argument("--threads", type=int, default=0, help="of the matching; 0 uses all cores")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="add to the results that the file has")
    parser.add_argument("--note", help="what a reader of the figures has to know, such as what else ran")
    parser.add_argument("--stream", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.stream is not None:
        print(json.dumps(stream(options.stream, options.thresholds, options.threads)))
        return 0
    before = environment()
    results: dict[str, dict[str, Any]] = {}
    for size in options.sizes:
        with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
            results |= measure(size, options.thresholds, options.threads, Path(folder))
    _print(results)
    write_report(
        options.write,
        "seed_table",
        "make bench-seed-table",
        parameters={
            "sizes": options.sizes,
            "floor": _FLOOR,
            "threads": options.threads,
            **({"note": options.note} if options.note else {}),
        },
        environment=before,
        results=results,
        keep=options.keep,
    )
    return 0 if all(cell["same_clusters"] for cell in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

"""A snapshot of a large space from its forest: seconds for the labels, for the archive, and peak memory.

    python -m benchmarks.snapshot [--objects 1000000] [--write benchmarks/results/snapshot.json]

The state is synthetic: objects, a spanning forest of people with heavy-tailed numbers of photographs, and
codes of one byte (a whole-space task reads none). The snapshot runs in a process of its own, so that its peak
memory is not that of the generator.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.process import run_measured
from stream_cluster.config import Settings
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import Content, DecodeRules, Descriptor, Metadata, Report, TaskRequest
from stream_cluster.model import Interrupt, Links, no_progress
from stream_cluster.snapshot.clusters import labels_from_forest, number_clusters
from stream_cluster.snapshot.request import find_space, resolve_request
from stream_cluster.snapshot.run import run_snapshot
from stream_cluster.snapshot.selection import select
from stream_cluster.state.chunks import write_codes, write_links
from stream_cluster.state.database import database_path, open_writer, transaction
from stream_cluster.state.objects import insert_objects, metadata_row, object_row
from stream_cluster.state.partition import Partition, PartitionIdentity
from stream_cluster.state.view import PartitionView

_IDENTITY = PartitionIdentity("events", 0, 1, "murmur2")
_T0_US = 1_777_000_000_000_000
_THRESHOLD = 0.6
_BLOCK = 50_000
# As many as a service commits at a time when it is busy.
_CHUNK_ROWS = 1000
_ONES = np.ones((_CHUNK_ROWS, 1), np.int8)


def synthetic_forest(objects: int, seed: int = 1) -> Links:
    """A spanning forest whose trees are people: sizes follow a Zipf law, similarities lie in (0.45, 1)."""
    random = np.random.default_rng(seed)
    sizes = np.minimum(random.zipf(1.8, objects), 5000)
    person = np.repeat(np.arange(objects), sizes)[:objects]
    person = person[random.permutation(objects)]
    order = np.argsort(person, kind="stable")
    same = person[order][1:] == person[order][:-1]
    # Each photograph is linked to the one of the same person before it.
    a, b = order[:-1][same], order[1:][same]
    similarity = random.uniform(0.45, 1.0, len(a)).astype(np.float32)
    return Links(a.astype(np.uint32), b.astype(np.uint32), similarity)


def make_state(folder: Path, objects: int, dim: int = 1) -> None:
    """Write the database of a partition with one space of that many objects, with codes of that many values.

    The codes are noise: what is read of them takes as long as of any others.
    """
    settings = Settings()
    rules = DecodeRules(partition_of=None, max_message_bytes=1 << 20, uint8_offset=128)
    path = database_path(folder, 0)
    Partition(
        path, _IDENTITY, rules, lambda dim, _: SpaceMatcher(dim, settings.matching), 0.45, synchronous="off"
    ).close()
    database = open_writer(path, _IDENTITY.meta(), synchronous="off", page_cache_mb=256)
    random = np.random.default_rng(2)
    descriptor = Descriptor("face", 1, np.ones(dim, np.int8))
    with transaction(database):
        database.execute(
            "INSERT INTO spaces (space_id, account_id, object_type, descriptor_type, version, dim, floor, "
            "next_row) VALUES (1, 'demo', 'event', 'face', 1, ?, 0.45, ?)",
            (dim, objects),
        )
        for begin in range(0, objects, _BLOCK):
            rows = range(begin, min(begin + _BLOCK, objects))
            objects_rows = [
                object_row(
                    1, row, str(uuid.UUID(bytes=random.bytes(16))), metadata_row(_metadata(row)), descriptor
                )
                for row in rows
            ]
            insert_objects(database, objects_rows)
            for first in range(0, len(rows), _CHUNK_ROWS):
                count = min(_CHUNK_ROWS, len(rows) - first)
                codes = random.integers(-127, 128, (count, dim), np.int8) if dim > 1 else _ONES[:count]
                write_codes(database, 1, begin + first, codes)
        write_links(database, 1, synthetic_forest(objects), merged=True)
    database.close()


def _metadata(row: int) -> Metadata:
    return Metadata(
        create_time_us=_T0_US + row * 1000, source=f"cam{row % 50}", track_id=f"cam{row % 50}-{row // 150}"
    )


def measure(folder: Path) -> dict[str, Any]:
    """Run in a process of its own: the labels alone, then whole snapshots."""
    result: dict[str, Any] = {}
    view = PartitionView(database_path(folder, 0))
    request = _request([])
    space = find_space(view, request)
    selection = select(view, space, [], with_tracks=False, interrupt=Interrupt())
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        clusters = number_clusters(labels_from_forest(view, selection, _THRESHOLD))
        seconds.append(time.perf_counter() - began)
    result["labels_s"] = {"min": round(min(seconds), 3), "median": round(float(np.median(seconds)), 3)}
    result["objects"], result["clusters"] = len(selection), len(clusters)
    for name, columns in (("archive", []), ("archive_3_columns", ["create_time", "source", "track_id"])):
        began = time.perf_counter()
        done = run_snapshot(
            view,
            _request(columns),
            folder / f"{name}.zip",
            interrupt=Interrupt(),
            progress=no_progress,
            as_of=None,
        )
        result[name] = {
            "seconds": round(time.perf_counter() - began, 2),
            **{f"{stage}_s": spent for stage, spent in done.timings_s.items()},
            "size_mb": round(done.archive.size_bytes / 1e6, 1),
        }
    return result


def _request(columns: list[str]) -> Any:
    content = Content(objects_type="events", threshold=_THRESHOLD, report=Report(columns=columns))
    task = TaskRequest(task_id="benchmark", account_id="demo", content=content)
    return resolve_request(task, Settings(), _T0_US * 2)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure)))
        return
    before = environment()
    with tempfile.TemporaryDirectory() as folder:
        make_state(Path(folder), arguments.objects)
        state_mb = round(database_path(Path(folder), 0).stat().st_size / 1e6, 1)
        usage, output = run_measured([sys.executable, "-m", "benchmarks.snapshot", "--measure", folder])
    if usage.returncode != 0:
        raise SystemExit(f"the measurement ended with status {usage.returncode}")
    peak_mb = round(usage.peak_memory_bytes / 1e6, 1)
    results = {**json.loads(output), "state_mb": state_mb, "peak_memory_mb": peak_mb}
    table = Table("figure", "value", title="snapshot")
    for name, value in results.items():
        table.add_row(name, str(value))
    Console().print(table)
    if arguments.write is not None:
        report = {
            "benchmark": "snapshot",
            "command": "make bench-snapshot",
            "parameters": {"objects": arguments.objects, "threshold": _THRESHOLD},
            "environment": before,
            "results": results,
        }
        arguments.write.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

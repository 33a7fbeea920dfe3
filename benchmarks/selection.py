"""Filtered tasks: seconds to select 100,000 of a million objects, and to their archive.

    python -m benchmarks.selection [--objects 1000000] [--write benchmarks/results/selection.json]

The state is written straight into the database: objects with metadata of every kind, in the order of
their time, and codes of 512 values with as many links as the published table has (`benchmarks.seed_data`), in
chunks as micro-batches leave them. The tasks run in a process of its own, so that its peak memory is not that
of the generator. Each task runs once to warm the page cache and then three times; the median is shown.

time_and_source      a fifth of the time and half of the sources: 100,000 of a million. The target.
source               a tenth of the sources, at any time: also 100,000
tags, meta           a list and a path of free JSON, at any time
many                 eight filters at once, on columns that no index holds
archive              the whole task time_and_source to its archive: three columns, no images
archive_all_columns  the same with every column of an event
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.process import run_measured
from benchmarks.report import write_report
from benchmarks.seed_data import BLOCK, DIM, seed_data
from stream_cluster.config import Settings
from stream_cluster.matching import limit_threads, quantise
from stream_cluster.messages import (
    EVENT_COLUMNS,
    Content,
    Descriptor,
    Filters,
    Metadata,
    Report,
    TaskRequest,
    TopMatch,
    format_time,
)
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.snapshot.request import ClusteringRequest, find_space, resolve_request
from stream_cluster.snapshot.run import run_snapshot
from stream_cluster.snapshot.selection import Selection, select
from stream_cluster.state.chunks import write_codes
from stream_cluster.state.database import database_path, open_writer, transaction
from stream_cluster.state.objects import insert_objects, metadata_row, object_row
from stream_cluster.state.partition import PartitionIdentity
from stream_cluster.state.view import PartitionView

_IDENTITY = PartitionIdentity("events", 0, 1, "murmur2")
_T0_US = 1_777_000_000_000_000
_INTERVAL_US = 100_000
_SOURCES = 50
_THRESHOLD = 0.81
_REPEATS = 3
_CHUNK_ROWS = 1024
_TARGETS = {"time_and_source": 0.5, "archive": 8.0}
"""Seconds that the project promises on two cores for a million objects."""


def make_state(folder: Path, objects: int) -> None:
    """Write the database of a partition with one space of that many objects."""
    database = open_writer(database_path(folder, 0), _IDENTITY.meta(), synchronous="off", page_cache_mb=256)
    random = np.random.default_rng(2)
    descriptor = Descriptor("face", 1, np.ones(1, np.int8), "attribute", None, 0.9)
    with transaction(database):
        database.execute(
            "INSERT INTO spaces (space_id, account_id, object_type, descriptor_type, version, dim, floor, "
            "next_row) VALUES (1, 'demo', 'event', 'face', 1, ?, 0.45, ?)",
            (DIM, objects),
        )
        first = 0
        for vectors in seed_data(objects).blocks():
            chance = random.integers(0, 1000, (BLOCK, 8)).tolist()
            insert_objects(
                database,
                [
                    object_row(
                        1,
                        first + i,
                        str(uuid.UUID(bytes=random.bytes(16))),
                        metadata_row(_metadata(first + i, chance[i])),
                        descriptor,
                    )
                    for i in range(len(vectors))
                ],
            )
            codes = quantise(vectors)
            for begin in range(0, len(codes), _CHUNK_ROWS):
                write_codes(database, 1, first + begin, codes[begin : begin + _CHUNK_ROWS])
            first += len(vectors)
    database.close()


def _metadata(row: int, chance: list[int]) -> Metadata:
    """Fields of an event; `chance` are eight numbers below 1000."""
    camera = chance[0] % _SOURCES
    time_us = _T0_US + row * _INTERVAL_US
    return Metadata(
        create_time_us=time_us,
        end_time_us=time_us + 2_000_000,
        source=f"cam{camera}",
        track_id=f"cam{camera}-{row // 150}",
        handler_id=f"handler-{camera % 4}",
        external_id=f"x-{row}",
        tags=(f"tag{chance[1] % 20}", f"tag{chance[2] % 20}"),
        meta={"gate": {"number": camera % 8, "open": chance[3] < 500}, "shift": "night"},
        gender=chance[4] % 2,
        age=chance[5] % 80,
        emotion=chance[6] % 7 + 1,
        ethnic_group=chance[7] % 4 + 1,
        city="Springfield",
        street=f"street {camera}",
        longitude=37.0 + camera / 100,
        latitude=55.0 + camera / 100,
        top_match=TopMatch(object_id=f"o-{row}", label="staff", similarity=chance[1] / 1000),
    )


def tasks(objects: int) -> Mapping[str, Filters]:
    """The filters of each task."""
    half = [f"cam{camera}" for camera in range(_SOURCES // 2)]
    return {
        "time_and_source": Filters(**_span(objects, 0.4, 0.6), sources=half),
        "source": Filters(sources=half[: _SOURCES // 10]),
        "tags": Filters(tags=["tag1", "tag2"]),
        "meta": Filters(meta={"gate": {"number": [1, 2]}, "shift": "night"}),
        "many": Filters(
            **_span(objects, 0.1, 0.9),
            gender=1,
            age__gte=18,
            age__lt=65,
            emotions=[3, 4, 5],
            ethnic_groups=[2, 4],
            tags=[f"tag{number}" for number in range(10)],
            top_similar_object_similarity__gte=0.2,
        ),
    }


def _span(objects: int, begin: float, end: float) -> dict[str, str]:
    bounds = (format_time(_T0_US + int(objects * share) * _INTERVAL_US) for share in (begin, end))
    return dict(zip(("create_time__gte", "create_time__lt"), bounds, strict=True))


def measure(folder: Path, objects: int) -> dict[str, Any]:
    """Run in a process of its own: the selections alone, then whole tasks."""
    limit_threads(0)
    result: dict[str, Any] = {}
    view = PartitionView(database_path(folder, 0))
    for name, filters in tasks(objects).items():
        request = _request(filters, [])
        _select(view, request)
        seconds = []
        for _ in range(_REPEATS):
            began = time.perf_counter()
            selection = _select(view, request)
            seconds.append(time.perf_counter() - began)
        result[name] = {
            "selected": len(selection),
            "seconds": round(statistics.median(seconds), 3),
            "objects": selection.in_space,
        }
    columns = {"archive": ["create_time", "source", "track_id"], "archive_all_columns": list(EVENT_COLUMNS)}
    for name, names in columns.items():
        result[name] = _archive(view, _request(tasks(objects)["time_and_source"], names), folder)
    for name, target_s in _TARGETS.items():
        result[name]["target_s"] = target_s
    return result


def _select(view: PartitionView, request: ClusteringRequest) -> Selection:
    return select(
        view,
        find_space(view, request),
        request.conditions,
        with_tracks=False,
        interrupt=Interrupt(),
        read_time_us=request.read_time_us,
    )


def _archive(view: PartitionView, request: ClusteringRequest, folder: Path) -> dict[str, Any]:
    began = time.perf_counter()
    done = run_snapshot(
        view, request, folder / "archive.zip", interrupt=Interrupt(), progress=no_progress, as_of=None
    )
    return {
        "selected": done.objects,
        "seconds": round(time.perf_counter() - began, 2),
        **{f"{stage}_s": spent for stage, spent in done.timings_s.items()},
        "quality_share": round(done.timings_s["quality"] / sum(done.timings_s.values()), 3),
        "clusters": done.clusters,
        "size_mb": round(done.archive.size_bytes / 1e6, 1),
    }


def _request(filters: Filters, columns: list[str]) -> ClusteringRequest:
    content = Content(
        objects_type="events", threshold=_THRESHOLD, filters=filters, report=Report(columns=columns)
    )
    task = TaskRequest(task_id="benchmark", account_id="demo", content=content)
    return resolve_request(task, Settings(), _T0_US * 2)


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure is not None:
        print(json.dumps(measure(options.measure, options.objects)))
        return 0
    before = environment()
    with tempfile.TemporaryDirectory() as folder:
        make_state(Path(folder), options.objects)
        state_mb = round(database_path(Path(folder), 0).stat().st_size / 1e6, 1)
        command = [sys.executable, "-m", "benchmarks.selection", "--measure", folder]
        usage, output = run_measured([*command, "--objects", str(options.objects)])
    if usage.returncode != 0:
        raise SystemExit(f"the measurement ended with status {usage.returncode}")
    results = json.loads(output)
    table = Table("task", "figures", title="selection")
    for name, figures in results.items():
        table.add_row(name, ", ".join(f"{figure} {value}" for figure, value in figures.items()))
    Console().print(table)
    write_report(
        options.write,
        "selection",
        "make bench-selection",
        parameters={
            "objects": options.objects,
            "dim": DIM,
            "threshold": _THRESHOLD,
            "state_mb": state_mb,
            "peak_memory_mb": round(usage.peak_memory_bytes / 1e6, 1),
        },
        environment=before,
        results=results,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Streaming beside many resident objects: events a second and latency from Kafka to durable.

    python -m benchmarks.stream [--resident 10000,100000,1000000] [--write benchmarks/results/stream.json]

As `benchmarks.ingest`, but the service starts on a state that holds resident objects already, all in the
space that the events are for, and it has read nothing of its topic yet. So every event is compared with all
of them (512 values each). For each number of them two runs, each with a state and topics of its own:

backlog   all events are sent as fast as the broker takes them: sustained events a second.
paced     events are sent at --rate a second, or at 70 % of the backlog's rate if that is lower: latency from
          the call that sends an event to the commit that made it durable.

The resident objects are strangers, one picture of each, by the generator's own model of faces; with
`--resident-data directions`, random directions, of which no sketch excludes a pair. Those that are similar by
chance are not linked in the state. Written straight into the database, because to ingest a million objects
would take longer than to measure.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.report import write_report
from benchmarks.seed_data import parse_sizes
from benchmarks.service_run import events_topic, run_service, state_directory, summarise
from stream_cluster.config import Settings
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.generate.vectors import Vectors, appearance_vectors
from stream_cluster.matching import quantise
from stream_cluster.messages import Descriptor, Metadata
from stream_cluster.sandbox import Broker, start_broker
from stream_cluster.state.chunks import write_codes
from stream_cluster.state.database import database_path, open_writer, transaction
from stream_cluster.state.objects import insert_objects, metadata_row, object_row
from stream_cluster.state.partition import PartitionIdentity

_BLOCK = 8192
_PACED_SHARE = 0.7


_FIRST_STRANGER = 1 << 40
"""Number of the first resident person: nobody in the events."""


def resident_vectors(
    options: GenerateOptions, data: str, rows: range, random: np.random.Generator
) -> Vectors:
    """Vectors of some resident objects, shape (len(rows), dim)."""
    if data == "directions":
        return random.standard_normal((len(rows), options.dim), dtype=np.float32)
    persons = np.arange(rows.start, rows.stop) + _FIRST_STRANGER
    return appearance_vectors(options, "face", persons, np.full(len(rows), 0.75), random)


def write_resident(directory: Path, topic: str, objects: int, options: GenerateOptions, data: str) -> None:
    """Write the state of partition 0 of `topic` with that many objects in the space of the events."""
    settings = Settings()
    meta = PartitionIdentity(topic, 0, 1, settings.kafka.partitioner).meta()
    directory.mkdir(parents=True)
    database = open_writer(database_path(directory, 0), meta, synchronous="off", page_cache_mb=256)
    random = np.random.default_rng(options.seed)
    descriptor = Descriptor("face", options.version, np.ones(1, np.int8))
    metadata = metadata_row(Metadata())
    with transaction(database):
        database.execute(
            "INSERT INTO spaces (space_id, account_id, object_type, descriptor_type, version, dim, floor, "
            "next_row) VALUES (1, ?, 'event', 'face', ?, ?, ?, ?)",
            (options.accounts[0], options.version, options.dim, settings.similarity.face.floor, objects),
        )
        for first in range(0, objects, _BLOCK):
            rows = range(first, min(first + _BLOCK, objects))
            vectors = resident_vectors(options, data, rows, random)
            insert_objects(
                database, [object_row(1, row, f"resident-{row}", metadata, descriptor) for row in rows]
            )
            write_codes(database, 1, first, quantise(vectors))
    database.close()


def measure(
    broker: Broker, resident: int, options: GenerateOptions, chosen: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """The two runs beside that many resident objects, by name."""
    settings = {"MATCHING__ENGINE": chosen.engine, "MATCHING__THREADS": str(chosen.threads)}
    events = [(record.key, record.value) for record in generate_events(options)]
    results: dict[str, dict[str, Any]] = {}
    pace: float | None = None
    for kind in ("backlog", "paced"):
        name = f"{kind}-{resident}"
        with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
            if resident:
                state = state_directory(Path(folder), name)
                write_resident(state, events_topic(name), resident, options, chosen.resident_data)
            run = summarise(run_service(broker, Path(folder), name, events, rate=pace, settings=settings))
        results[f"{kind}, {resident:,} resident"] = {
            "resident": resident,
            "rate": None if pace is None else round(pace),
            **run,
        }
        pace = min(chosen.rate, _PACED_SHARE * run["events_per_s"])
    return results


def _print(results: dict[str, dict[str, Any]]) -> None:
    heads = ("run", "events/s", "p50 ms", "p99 ms", "match", "commit", "peak memory")
    table = Table(*heads, title="streaming beside resident objects")
    for name, run in results.items():
        latency, stage_s = run["latency_ms"], run["stage_s"]
        table.add_row(
            name,
            f"{run['events_per_s']:,}",
            str(latency["p50"]),
            str(latency["p99"]),
            f"{stage_s['match']:.2f} s",
            f"{stage_s['commit']:.2f} s",
            f"{run['peak_memory_mb']:,.0f} MB",
        )
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stream",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--resident", type=parse_sizes, default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--resident-data", choices=("faces", "directions"), default="faces")
    parser.add_argument("--events", type=int, default=20_000, help="events of each run")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument(
        "--rate", type=float, default=1000.0, help="events a second of the paced runs at most"
    )
    parser.add_argument("--engine", choices=("auto", "exact", "hnsw"), default="exact")
    parser.add_argument("--threads", type=int, default=0, help="of the matching; 0 uses all cores")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    chosen = parser.parse_args(arguments)
    before = environment()
    options = GenerateOptions(events=chosen.events + 1, dim=chosen.dim)
    results: dict[str, dict[str, Any]] = {}
    with start_broker() as broker:
        for resident in chosen.resident:
            results |= measure(broker, resident, options, chosen)
        kind = broker.description
    _print(results)
    names = ("resident_data", "events", "dim", "rate", "engine", "threads")
    write_report(
        chosen.write,
        "stream",
        "make bench-stream",
        parameters={name: getattr(chosen, name) for name in names},
        broker=kind.split(",")[0],
        environment=before,
        results=results,
    )


if __name__ == "__main__":
    main()

"""Input that is meant to hurt, through a partition: equal descriptors, and rejections in a row.

    python -m benchmarks.hostile [--identical 1000000] [--rejections 1000000] [--write FILE]

`identical` is one account whose objects all have the same descriptor; then its first object, to which the
forest links all others, is deleted. `rejections` are records as they come from the topic, none of them good:
the generator's faults in turn. Memory is what the process has grown by.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.deletes import make_partition
from benchmarks.environment import environment
from benchmarks.process import peak_memory_bytes, resident_memory_bytes
from benchmarks.report import write_report
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.messages import Descriptor, Metadata, ObjectMessage, RawRecord

_BATCH = 1024
_TIME_US = 1_777_000_000_000_000


def identical(folder: Path, count: int, dim: int) -> dict[str, Any]:
    """`count` objects with one descriptor, and the deletion of the first."""
    vector = np.random.default_rng(1).standard_normal(dim).astype(np.float32)
    partition = make_partition(folder)
    before, peak_before = resident_memory_bytes(), peak_memory_bytes()
    seconds: list[float] = []
    while partition.next_offset < count:
        first = partition.next_offset
        messages = [_object(number, vector) for number in range(first, min(count, first + _BATCH))]
        began = time.perf_counter()
        partition.commit(partition.prepare_decoded(messages, first + len(messages)))
        seconds.append(time.perf_counter() - began)
    grown, peak = resident_memory_bytes() - before, peak_memory_bytes() - peak_before
    with partition.view() as view:
        (space,) = view.spaces()
        merged, pending = view.link_counts(space.space_id)
    deletion = ObjectMessage(
        account_id="demo",
        object_type="event",
        action="delete",
        object_ids=("object-000000000",),
        metadata=Metadata(),
        descriptors=(),
    )
    began = time.perf_counter()
    partition.commit(partition.prepare_decoded([deletion], partition.next_offset + 1))
    delete_s = time.perf_counter() - began
    with partition.view() as view:
        left = len(view.links(space.space_id, 0.5))
    partition.close()
    return {
        "objects": count,
        "objects_per_s": round(count / sum(seconds)),
        "batch_ms_p50": round(float(np.median(seconds)) * 1000, 1),
        "batch_ms_last": round(float(np.median(seconds[-10:])) * 1000, 1),
        "batch_ms_max": round(max(seconds) * 1000, 1),
        "links_kept": merged + pending,
        "links_seen": space.links_seen,
        "memory_mb": round(grown / 1e6, 1),
        "peak_memory_mb": round(peak / 1e6, 1),
        "delete_of_the_first_s": round(delete_s, 2),
        "links_kept_after_it": left,
    }


def _object(number: int, vector: np.ndarray[Any, np.dtype[np.float32]]) -> ObjectMessage:
    return ObjectMessage(
        account_id="demo",
        object_type="event",
        action="upsert",
        object_ids=(f"object-{number:09}",),
        metadata=Metadata(create_time_us=_TIME_US + number),
        descriptors=(Descriptor("face", 1, vector),),
    )


def rejections(folder: Path, count: int) -> dict[str, Any]:
    """`count` bad records in a row."""
    options = GenerateOptions(events=4000, dim=64, bad_share=1.0, too_large_bytes=20_000)
    records = list(generate_events(options))
    # It is no fault without a broker, and one of a wrong dimension has nothing to differ from.
    faults = ("wrong_partition", "wrong_dimension", None)
    bad = [record.value for record in records if record.expected_reason not in faults]
    partition = make_partition(folder, max_message_bytes=20_000)
    values = itertools.cycle(bad)
    seconds, memory = 0.0, []
    rejected = 0
    while partition.next_offset < count:
        first = partition.next_offset
        batch = [
            RawRecord("events", 0, first + number, 0, b"demo", value, None)
            for number, value in enumerate(itertools.islice(values, min(_BATCH, count - first)))
        ]
        began = time.perf_counter()
        prepared = partition.prepare(batch, first + len(batch))
        rejected += len(prepared.rejections)
        partition.commit(prepared)
        seconds += time.perf_counter() - began
        memory.append(resident_memory_bytes())
    partition.close()
    tenth = len(memory) // 10
    return {
        "records": count,
        "rejected": rejected,
        "records_per_s": round(count / seconds),
        "memory_mb_after_a_tenth": round(memory[tenth] / 1e6, 1),
        "memory_mb_at_the_end": round(memory[-1] / 1e6, 1),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=__doc__)
    parser.add_argument("--identical", type=int, default=1_000_000)
    parser.add_argument("--rejections", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--write", type=Path, help="result as JSON")
    options = parser.parse_args()
    measured_on = environment()
    results = {}
    with tempfile.TemporaryDirectory(prefix="stream-cluster-hostile-") as name:
        for kind in ("rejections", "identical"):
            (Path(name) / kind).mkdir()
        results["rejections"] = rejections(Path(name) / "rejections", options.rejections)
        Console().print(results)
        results["identical"] = identical(Path(name) / "identical", options.identical, options.dim)
    Console().print(results)
    write_report(
        options.write,
        "hostile",
        "make bench-hostile",
        parameters={"dim": options.dim},
        environment=measured_on,
        results=results,
    )


if __name__ == "__main__":
    main()

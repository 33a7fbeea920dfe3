"""Deletions beside resident objects: how many a second, one by one and in batches, and the worst component.

    python -m benchmarks.deletes [--objects 10000,100000] [--write benchmarks/results/deletes.json]

Each state is ingested by the partition itself: people with heavy-tailed numbers of photographs, so that most
deletions touch a small component. `one by one` is a batch, and so a transaction, for each deletion; `batches`
holds 100 deletions each. `mixed` are batches of 1024 records of which a tenth deletes resident objects and
the rest is new; `unmixed` is the same without the deletions, to compare. `chain` is a space whose objects are
one component, a chain that falls into halves when its middle is deleted: every object is compared again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.report import write_report
from benchmarks.seed_data import parse_sizes
from stream_cluster.config import Settings
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import DecodeRules, Descriptor, Metadata, ObjectMessage
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity

_IDENTITY = PartitionIdentity("events", 0, 1, "murmur2")
_FLOOR = 0.45
_CHAIN_FLOOR = 0.3
_BATCH = 1024
_DELETES = 100
_RULES = DecodeRules(partition_of=None, max_message_bytes=1 << 20, uint8_offset=128)


def people(count: int, dim: int, random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Unit vectors of photographs; people have numbers of them by a Zipf law, and a mean cosine of 0.7."""
    sizes = np.minimum(random.zipf(1.8, count), 200)
    person = np.repeat(np.arange(count), sizes)[:count]
    random.shuffle(person)
    noise = random.standard_normal((count, dim), dtype=np.float32)
    centres = np.random.default_rng(7).standard_normal((int(person.max()) + 1, dim), dtype=np.float32)
    vectors = np.sqrt(np.float32(0.7)) * _unit(centres)[person] + np.sqrt(np.float32(0.3)) * _unit(noise)
    return _unit(vectors)


def chain(count: int, dim: int) -> npt.NDArray[np.float32]:
    """Unit vectors of which each is linked to the next one and, above the floor, to no other."""
    vectors = np.zeros((count, dim), np.float32)
    random = np.random.default_rng(3)
    directions = _unit(random.standard_normal((count + 1, dim), dtype=np.float32))
    # Two neighbours share one of two nearly orthogonal directions: their cosine is about a half, that of
    # others about 0, each give or take 0.05.
    vectors[:] = directions[:-1] + directions[1:]
    return _unit(vectors)


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def upserts(vectors: npt.NDArray[np.float32], first: int = 0) -> list[ObjectMessage]:
    """An object for each vector."""
    return [
        ObjectMessage(
            account_id="demo",
            object_type="event",
            action="upsert",
            object_ids=(f"object-{number:08}",),
            metadata=Metadata(create_time_us=number * 1_000_000, source="cam"),
            descriptors=(Descriptor("face", 1, vector),),
        )
        for number, vector in enumerate(vectors, first)
    ]


def deletes(numbers: npt.NDArray[np.integer]) -> list[ObjectMessage]:
    """A record for each deletion."""
    return [
        ObjectMessage(
            account_id="demo",
            object_type="event",
            action="delete",
            object_ids=(f"object-{number:08}",),
            metadata=Metadata(),
            descriptors=(),
        )
        for number in numbers.tolist()
    ]


def make_partition(
    folder: Path, floor: float = _FLOOR, *, max_message_bytes: int = _RULES.max_message_bytes
) -> Partition:
    """The partition whose database is in a folder, created when missing, with durable settings."""
    settings = Settings()
    return Partition(
        database_path(folder, 0),
        _IDENTITY,
        DecodeRules(partition_of=None, max_message_bytes=max_message_bytes, uint8_offset=128),
        lambda dim, _: SpaceMatcher(dim, settings.matching),
        floor,
        page_cache_mb=settings.state.page_cache_mb,
    )


def _batches(messages: Sequence[ObjectMessage], size: int) -> Iterator[Sequence[ObjectMessage]]:
    for begin in range(0, len(messages), size):
        yield messages[begin : begin + size]


def apply(partition: Partition, messages: Sequence[ObjectMessage], size: int) -> list[float]:
    """Apply the messages in batches; seconds of each."""
    seconds = []
    for part in _batches(messages, size):
        began = time.perf_counter()
        partition.commit(partition.prepare_decoded(part, partition.next_offset + len(part)))
        seconds.append(time.perf_counter() - began)
    return seconds


def _figures(records: int, seconds: Sequence[float]) -> dict[str, Any]:
    return {
        "per_s": round(records / sum(seconds)),
        "batch_ms_p50": round(float(np.median(seconds)) * 1e3, 2),
        "batch_ms_max": round(max(seconds) * 1e3, 2),
    }


def measure(objects: int, dim: int) -> dict[str, Any]:
    """All figures beside that many resident objects."""
    random = np.random.default_rng(1)
    vectors = people(objects + 4 * _BATCH, dim, random)
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        partition = make_partition(Path(folder))
        apply(partition, upserts(vectors[:objects]), _BATCH)
        order = random.permutation(objects)
        # The first deletion loads what later ones find in memory.
        apply(partition, deletes(order[:1]), 1)
        single = apply(partition, deletes(order[1 : 1 + _DELETES]), 1)
        several = apply(partition, deletes(order[200 : 200 + 10 * _DELETES]), _DELETES)
        new = upserts(vectors[objects:], objects)
        unmixed = apply(partition, new[: 2 * _BATCH], _BATCH)
        gone = deletes(order[2000 : 2000 + _BATCH // 5])
        mixed = [*new[2 * _BATCH : 4 * _BATCH - len(gone)], *gone]
        shuffled = [mixed[number] for number in random.permutation(len(mixed)).tolist()]
        beside = apply(partition, shuffled, _BATCH)
        partition.close()
    return {
        "one_by_one": _figures(_DELETES, single),
        "batches": _figures(10 * _DELETES, several),
        "unmixed": _figures(2 * _BATCH, unmixed),
        "mixed": _figures(len(mixed), beside),
    }


def measure_chain(objects: int, dim: int) -> dict[str, Any]:
    """The deletion of the middle of a component that is the whole space, and then of an end of it."""
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        partition = make_partition(Path(folder), _CHAIN_FLOOR)
        apply(partition, upserts(chain(objects, dim)), _BATCH)
        (middle,) = apply(partition, deletes(np.array([objects // 2])), 1)
        (end,) = apply(partition, deletes(np.array([0])), 1)
        partition.close()
    return {"middle_s": round(middle, 3), "end_s": round(end, 3)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deletes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--objects", type=parse_sizes, default=[10_000, 100_000])
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    chosen = parser.parse_args(arguments)
    before = environment()
    results: dict[str, dict[str, Any]] = {}
    for objects in chosen.objects:
        results[f"{objects:,} resident"] = {
            **measure(objects, chosen.dim),
            "chain": measure_chain(objects, chosen.dim),
        }
    table = Table("figure", *results, title="deletions")
    for kind in ("one_by_one", "batches", "unmixed", "mixed", "chain"):
        for figure in next(iter(results.values()))[kind]:
            table.add_row(f"{kind}.{figure}", *(str(run[kind][figure]) for run in results.values()))
    Console().print(table)
    write_report(
        chosen.write,
        "deletes",
        "make bench-deletes",
        parameters={
            "objects": chosen.objects,
            "dim": chosen.dim,
            "floor": _FLOOR,
            "chain_floor": _CHAIN_FLOOR,
        },
        environment=before,
        results=results,
    )


if __name__ == "__main__":
    main()

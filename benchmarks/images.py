"""Saving images of a directory into an archive: images a second, and peak memory.

    python -m benchmarks.images [--images 10000] [--write benchmarks/results/images.json]

Objects of one space, an image each, in a directory with one folder for every thousand. The whole snapshot
with and without images runs in a process of its own; the difference is what the images took. `large` has
fewer and larger images, to show that memory is bound by `images.concurrency` and not by how much there is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.process import run_measured
from benchmarks.report import write_report
from stream_cluster.config import Settings, load_settings
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import (
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
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import run_snapshot
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity
from stream_cluster.state.view import PartitionView

_IDENTITY = PartitionIdentity("events", 0, 1, "murmur2")
_T0_US = 1_777_000_000_000_000
_DIM = 64
_BATCH = 4096
# Name of the run → (share of the images, bytes of each).
_RUNS = {"small": (1.0, 20_000), "large": (0.05, 1_000_000)}


def jpeg(size_bytes: int, random: np.random.Generator) -> bytes:
    """Bytes with the structure of a JPEG and a scan of noise; no decoder would like it."""
    frame = b"\xff\xc0\x00\x0b\x08\x00\x40\x00\x40\x01\x01\x11\x00"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    noise = random.integers(0, 255, size_bytes - 27, np.uint8).tobytes()  # no 0xFF, which would be a marker
    return b"\xff\xd8" + frame + scan + noise + b"\xff\xd9"


def reference(number: int) -> str:
    """Path of an object's image below the root."""
    return f"cam{number // 1000}/{number}.jpg"


def make_images(root: Path, images: int, size_bytes: int) -> None:
    """Write the images of objects 0..images-1."""
    random = np.random.default_rng(1)
    for number in range(images):
        path = root / reference(number)
        if number % 1000 == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(size_bytes, random))


def make_state(folder: Path, images: int) -> None:
    """A partition with an object for each image, five of a person."""
    rules = DecodeRules(partition_of=None, max_message_bytes=1 << 20, uint8_offset=128)
    matching = Settings().matching
    partition = Partition(
        database_path(folder, 0),
        _IDENTITY,
        rules,
        lambda dim, _: SpaceMatcher(dim, matching),
        0.45,
        synchronous="off",
    )
    people = np.random.default_rng(2).standard_normal(((images + 4) // 5, _DIM)).astype(np.float32)
    for begin in range(0, images, _BATCH):
        numbers = range(begin, min(begin + _BATCH, images))
        partition.apply([_record(number, people[number // 5]) for number in numbers])
    partition.close()


def _record(number: int, vector: np.ndarray[Any, Any]) -> RawRecord:
    message = ObjectMessage(
        account_id="demo",
        object_type="event",
        action="upsert",
        object_ids=(f"event-{number:08}",),
        metadata=Metadata(create_time_us=_T0_US + number),
        descriptors=(Descriptor("face", 1, vector, image=reference(number)),),
    )
    return RawRecord("events", 0, number, _T0_US // 1000, b"demo", encode_object(message), None)


def measure(folder: Path, *, images: bool) -> dict[str, Any]:
    """One whole snapshot, with the images or without."""
    roots = [{"kind": "directory", "path": str(folder / "images")}]
    content = Content(objects_type="events", threshold=0.7, save_images=images)
    task = TaskRequest(task_id="benchmark", account_id="demo", content=content)
    request = resolve_request(task, load_settings(None, {}, {"images.roots": roots}), _T0_US * 2)
    with PartitionView(database_path(folder, 0)) as view:
        began = time.perf_counter()
        done = run_snapshot(
            view, request, folder / "out.zip", interrupt=Interrupt(), progress=no_progress, as_of=None
        )
        seconds = time.perf_counter() - began
    with zipfile.ZipFile(folder / "out.zip") as archive:
        counts = json.loads(archive.read("manifest.json"))["counts"]
    return {"seconds": seconds, "size_bytes": done.archive.size_bytes, **counts.get("images", {})}


def _run(folder: Path, *arguments: str) -> tuple[dict[str, Any], float]:
    """The measurement in a process of its own, and its peak memory in MB."""
    command = [sys.executable, "-m", "benchmarks.images", "--measure", str(folder), *arguments]
    usage, output = run_measured(command)
    if usage.returncode != 0:
        raise SystemExit(f"the measurement ended with status {usage.returncode}")
    return json.loads(output), usage.peak_memory_bytes / 1e6


def compare(images: int, size_bytes: int) -> dict[str, Any]:
    """Images a second of one run, from warm files, and the memory that they took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder / "images", images, size_bytes)
        make_state(folder, images)
        subprocess.run(["sync"], check=True)
        without, base_mb = _run(folder, "--without")
        done, peak_mb = _run(folder)
    if done["saved"] != images:
        raise SystemExit(f"only {done['saved']} of {images} images were saved")
    seconds = done["seconds"] - without["seconds"]
    return {
        "images": images,
        "image_size_kb": size_bytes / 1e3,
        "images_per_s": round(images / seconds),
        "images_s": round(seconds, 3),
        "snapshot_s": round(done["seconds"], 3),
        "archive_mb": round(done["size_bytes"] / 1e6, 1),
        "peak_memory_mb": round(peak_mb, 1),
        "peak_memory_without_images_mb": round(base_mb, 1),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(json.dumps(measure(arguments.measure, images=not arguments.without)))
        return
    before = environment()
    results = {
        name: compare(int(arguments.images * share), size_bytes)
        for name, (share, size_bytes) in _RUNS.items()
    }
    table = Table("figure", *results, title="images")
    for figure in next(iter(results.values())):
        table.add_row(figure, *(str(run[figure]) for run in results.values()))
    Console().print(table)
    write_report(
        arguments.write,
        "images",
        "make bench-images",
        parameters={"images": arguments.images, "concurrency": Settings().images.concurrency},
        environment=before,
        results=results,
    )


if __name__ == "__main__":
    main()

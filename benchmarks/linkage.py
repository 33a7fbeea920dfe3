"""Connected components and average linkage, side by side: quality on real faces, time and memory at scale.

    python -m benchmarks.linkage --data DIR [--sizes 100000] [--chain 200000] [--write FILE.json [--keep]]
    python -m benchmarks.linkage --cells scale --sizes 1000000 --linkages average --write FILE.json --keep

Every run is a process of its own, and the file is written after each. Cells:

scale  `stream-cluster cluster` over made-up objects of `benchmarks.seed_data`.
chain  The same over one chained component.
faces  `stream-cluster evaluate --sweep` over labelled faces in DIR (`benchmarks.faces`); `range` is the width
       of the thresholds over which BCubed F is at least 0.95.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.environment import environment
from benchmarks.faces import read_clusters
from benchmarks.process import Usage, run_measured
from benchmarks.report import write_report
from benchmarks.seed_data import BLOCK, NOBODY, Vectors, ids_of, parse_sizes, seed_data, unit, write_npz
from stream_cluster.evaluation.measures import measure
from stream_cluster.model import Linkage

LINKAGES: tuple[Linkage, ...] = ("components", "average")
CELLS = ("scale", "chain", "faces")
COMMAND = (sys.executable, "-c", "from stream_cluster.cli import main; main()")
_SWEEP = "0.34:0.66:0.005"
_SHOWN = 4
"""Every so many-th threshold of the sweep is kept."""
_WINDOW = 8


def _output(command: Sequence[str]) -> tuple[Usage, Any]:
    """What a command used, and the JSON that it printed. Raises RuntimeError."""
    with tempfile.TemporaryFile() as errors:
        usage, output = run_measured(list(command), stderr=errors)
        errors.seek(0)
        if usage.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: status {usage.returncode}\n{errors.read().decode()}")
    return usage, msgspec.json.decode(output)


def run(source: Path, threshold: float, linkage: str, archive: Path) -> dict[str, Any]:
    """Cluster a file; what it took, and what the archive's manifest counts. Raises RuntimeError."""
    command = [*COMMAND, "cluster", str(source), "--threshold", f"{threshold:g}"]
    command += ["--linkage", linkage, "--output", str(archive), "--json"]
    usage, result = _output(command)
    counts = result["counts"]
    return {
        "cluster_s": result["timings_s"]["cluster"],
        "seconds": usage.seconds,
        "peak_memory_mb": round(usage.peak_memory_bytes / 1e6),
        "clusters": counts["clusters"],
        "largest_cluster": counts["largest_cluster"],
    }


def people_apart(person_of: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Number of each object's person; nobody's pictures have a number each, so each should be alone."""
    return np.where(person_of == NOBODY, person_of.max() + 1 + np.arange(len(person_of)), person_of)


def measured_run(
    source: Path, threshold: float, linkage: str, people: npt.NDArray[np.int32]
) -> dict[str, Any]:
    """`run` over an `.npz` of `benchmarks.seed_data.write_npz`, and how good its clusters are."""
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        archive = Path(folder) / "out.zip"
        found = run(source, threshold, linkage, archive)
        quality = measure(read_clusters(archive, ids_of(len(people))), people)
    return found | {"pairwise_f": round(quality.pairwise.f, 4), "bcubed_f": round(quality.bcubed.f, 4)}


def at_scale(objects: int, threshold: float, linkages: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Made-up objects of 512 dimensions, with each linkage."""
    data = seed_data(objects)
    people = people_apart(np.tile(data.person_of, data.copies))
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        source = Path(folder) / "data.npz"
        data.write(source)
        for linkage in linkages:
            yield f"{objects:,} {linkage}", measured_run(source, threshold, linkage, people)


def chain(objects: int, dim: int = 512) -> Iterator[Vectors]:
    """Objects in one component, in blocks of rows; each is the sum of `_WINDOW` directions in a row.

    Cosines fall by 1 / _WINDOW from one object to the next, so that only neighbours are linked. One in a
    hundred is near one direction: all of these are alike, so that one group of them grows object by object.
    Another one is between that direction and its neighbours, and linked to both.
    """
    random = np.random.default_rng(7)
    common = unit(random.standard_normal((1, dim), dtype=np.float32))
    before = unit(random.standard_normal((_WINDOW - 1, dim), dtype=np.float32))
    for first in range(0, objects, BLOCK):
        count = min(BLOCK, objects - first)
        directions = np.concatenate((before, unit(random.standard_normal((count, dim), dtype=np.float32))))
        before = directions[count:]
        rows = sum(directions[step : step + count] for step in range(_WINDOW))
        place = np.arange(first, first + count) % 100
        for start, lowest, highest in ((0, 1.6, 2.4), (50, 1.05, 1.15)):
            chosen = place == start
            share = random.uniform(lowest, highest, (int(chosen.sum()), 1)).astype(np.float32)
            rows[chosen] = unit(rows[chosen]) + share * common
        yield unit(rows)


def chained(objects: int, threshold: float, linkages: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """One chained component with each linkage."""
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        source, archive = Path(folder) / "chain.npz", Path(folder) / "out.zip"
        write_npz(source, objects, 512, chain(objects))
        for linkage in linkages:
            yield f"chain of {objects:,} {linkage}", run(source, threshold, linkage, archive)


def on_faces(folder: Path, linkages: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Real faces with each linkage: the best threshold, and how wide the range of good ones is."""
    command = [*COMMAND, "evaluate", str(folder / "events.jsonl.gz"), str(folder / "people.csv"), "--json"]
    command += ["--sweep", _SWEEP, "--linkage", ",".join(linkages)]
    for linkage, swept in _output(command)[1]["linkages"].items():
        best, good = swept["best"], swept["good"]
        yield (
            f"faces {linkage}",
            {
                "best_threshold": best["threshold"],
                "pairwise_f": round(best["pairwise"]["f"], 4),
                "bcubed_f": round(best["bcubed"]["f"], 4),
                "good_from": good["from"],
                "good_to": good["to"],
                "range": round(good["to"] - good["from"], 4),
                "by_threshold": {
                    f"{point['threshold']:g}": [round(point[kind]["f"], 4) for kind in ("pairwise", "bcubed")]
                    for point in swept["points"][::_SHOWN]
                },
            },
        )


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.linkage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of events.jsonl.gz and people.csv")
    parser.add_argument("--cells", type=lambda text: text.split(","), default=list(CELLS))
    parser.add_argument("--linkages", type=lambda text: text.split(","), default=list(LINKAGES))
    parser.add_argument("--sizes", type=parse_sizes, default=[100_000], help="of the made-up objects")
    parser.add_argument("--chain", type=int, default=200_000, help="objects of the chain")
    parser.add_argument("--threshold", type=float, default=0.5, help="of made-up objects and chain")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="add to the results that the file has")
    options = parser.parse_args(arguments)
    if not set(options.cells) <= set(CELLS) or not set(options.linkages) <= set(LINKAGES):
        parser.error(f"expected --cells of {', '.join(CELLS)} and --linkages of {', '.join(LINKAGES)}")
    if "faces" in options.cells and options.data is None:
        parser.error("--cells faces needs --data")
    machine = environment()
    results: dict[str, Any] = {}
    for name, found in _cells(options):
        results[name] = found
        print(f"{name}: {found}", flush=True)
        write_report(
            options.write,
            "linkage",
            "make bench-linkage",
            parameters={"threshold": options.threshold},
            environment=machine,
            results=results,
            keep=options.keep,
        )
    return 0


def _cells(options: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any]]]:
    if "scale" in options.cells:
        for size in options.sizes:
            yield from at_scale(size, options.threshold, options.linkages)
    if "chain" in options.cells:
        yield from chained(options.chain, options.threshold, options.linkages)
    if "faces" in options.cells:
        yield from on_faces(options.data, options.linkages)


if __name__ == "__main__":
    sys.exit(main())

"""Connected components and average linkage, side by side: quality on real faces, time and memory at scale.

    python -m benchmarks.linkage [--data DIR] [--sizes 100000] [--write FILE.json]

DIR holds labelled faces (`benchmarks.faces`); without it only the made-up data of `benchmarks.seed_data` is
clustered. Every run is `stream-cluster cluster` in a process of its own. On the faces, `range` is the width
of the thresholds over which BCubed F is at least 0.95.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.environment import environment
from benchmarks.faces import read_clusters, read_faces
from benchmarks.process import run_measured
from benchmarks.quality import measure
from benchmarks.report import write_report
from benchmarks.seed_data import parse_sizes, seed_data

LINKAGES = ("components", "average")
GOOD = 0.95
"""BCubed F that counts as good when the width of the range of thresholds is measured."""
_STEP = 0.02
_THRESHOLDS = np.round(np.arange(0.34, 0.6601, _STEP), 4)


def run(source: Path, threshold: float, linkage: str, archive: Path) -> dict[str, Any]:
    """Cluster a file; what it took, and what the archive's manifest counts. Raises RuntimeError."""
    command = [sys.executable, "-c", "from stream_cluster.cli import main; main()", "cluster", str(source)]
    command += ["--threshold", f"{threshold:g}", "--linkage", linkage, "--output", str(archive), "--json"]
    with tempfile.TemporaryFile() as errors:
        usage, output = run_measured(command, stderr=errors)
        errors.seek(0)
        if usage.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: status {usage.returncode}\n{errors.read().decode()}")
    result = msgspec.json.decode(output)
    counts = result["counts"]
    return {
        "cluster_s": result["timings_s"]["cluster"],
        "seconds": usage.seconds,
        "peak_memory_mb": round(usage.peak_memory_bytes / 1e6),
        "clusters": counts["clusters"],
        "largest_cluster": counts["largest_cluster"],
    }


def at_scale(objects: int, threshold: float) -> dict[str, Any]:
    """Both linkages of made-up objects of 512 dimensions."""
    data = seed_data(objects)
    # An unreadable picture is nobody's: each is alone.
    nobody = data.person_of < 0
    people = np.where(nobody, data.person_of.max() + 1 + np.arange(len(data)), data.person_of)
    ids = [f"{row:0{len(str(len(data) - 1))}d}" for row in range(len(data))]
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, archive = Path(folder) / "data.npz", Path(folder) / "out.zip"
        data.write(source)
        for linkage in LINKAGES:
            found = run(source, threshold, linkage, archive)
            quality = measure(read_clusters(archive, ids), people)
            found |= {"pairwise_f": round(quality.pairwise.f, 4), "bcubed_f": round(quality.bcubed.f, 4)}
            results[linkage] = found
    return results


def on_faces(folder: Path) -> dict[str, Any]:
    """Both linkages of real faces: the best threshold, and how wide the range of good ones is."""
    faces = read_faces(folder)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "out.zip"
        for linkage in LINKAGES:

            def score(threshold: float, linkage: str = linkage) -> tuple[float, float]:
                run(folder / "events.jsonl.gz", threshold, linkage, archive)
                quality = measure(read_clusters(archive, faces.ids), faces.people)
                return round(quality.pairwise.f, 4), round(quality.bcubed.f, 4)

            scores = {threshold: score(threshold) for threshold in _THRESHOLDS.tolist()}
            width = _widest([bcubed >= GOOD for _, bcubed in scores.values()])
            around = max(scores, key=lambda threshold: sum(scores[threshold]))
            for step in range(-6, 7):  # the peak is narrower than the steps
                threshold = round(around + step * _STEP / 4, 4)
                if threshold not in scores:
                    scores[threshold] = score(threshold)
            best = max(scores, key=scores.__getitem__)
            results[linkage] = {
                "best_threshold": best,
                "pairwise_f": scores[best][0],
                "bcubed_f": scores[best][1],
                "range": width,
                "by_threshold": {f"{threshold:g}": list(scores[threshold]) for threshold in sorted(scores)},
            }
    return results


def _widest(good: list[bool]) -> float:
    """Width between the ends of the longest run of good thresholds."""
    longest = length = 0
    for is_good in good:
        length = length + 1 if is_good else 0
        longest = max(longest, length)
    return round(max(longest - 1, 0) * _STEP, 4)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.linkage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of events.jsonl.gz and people.csv")
    parser.add_argument("--sizes", type=parse_sizes, default=[100_000])
    parser.add_argument("--threshold", type=float, default=0.5, help="of the made-up objects")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    options = parser.parse_args(arguments)
    machine = environment()
    results: dict[str, Any] = {}
    for size in options.sizes:
        for linkage, found in at_scale(size, options.threshold).items():
            results[f"{size:,} {linkage}"] = found
            print(f"{size:,} {linkage}: {found}", flush=True)
    if options.data is not None:
        for linkage, found in on_faces(options.data).items():
            results[f"faces {linkage}"] = found
            print(f"faces {linkage}: {found}", flush=True)
    write_report(
        options.write,
        "linkage",
        "make bench-linkage",
        parameters={"sizes": options.sizes, "threshold": options.threshold},
        environment=machine,
        results=results,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

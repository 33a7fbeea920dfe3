"""Real faces: `stream-cluster cluster` against SciPy's connected components, and against the truth.

    python -m benchmarks.faces --data DIR [--thresholds 0.44,0.52,0.60] [--write FILE.json]

DIR holds `events.jsonl.gz` (object messages with one float32 face descriptor each) and `people.csv`
(event_id,person). Ends with status 1 when a partition is not accepted (see `benchmarks.reference`).
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import os
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.environment import environment
from benchmarks.process import Usage, run_measured
from benchmarks.reference import (
    TOLERANCE,
    Vectors,
    code_links,
    compare_links,
    cosine_links,
    within_tolerance,
)
from stream_cluster.errors import InputError
from stream_cluster.evaluation.archive import read_archive
from stream_cluster.evaluation.measures import measure
from stream_cluster.evaluation.truth import match, read_truth
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.offline.sources import find_sources

Labels64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FaceSet:
    """Labelled objects, in the order of the file."""

    ids: list[str]
    vectors: Vectors
    """float32, shape (n, dim)."""
    people: Labels64
    """True person of each object."""


def read_faces(folder: Path) -> FaceSet:
    """Read `events.jsonl.gz` and `people.csv`; `ValueError` when an object has no person."""
    ids, rows = [], []
    with gzip.open(folder / "events.jsonl.gz") as lines:
        for line in lines:
            event = msgspec.json.decode(line)
            descriptor = event["descriptors"][0]
            if descriptor["encoding"] != "float32":
                raise ValueError(f"event {event['event_id']}: encoding {descriptor['encoding']}, not float32")
            ids.append(event["event_id"])
            rows.append(np.frombuffer(base64.b64decode(descriptor["data"]), "<f4"))
    [source] = find_sources([str(folder / "people.csv")])
    try:
        labelled = match(read_truth(source, Interrupt(), no_progress), ids, "events.jsonl.gz")
    except InputError as error:
        raise ValueError(str(error)) from error
    if labelled.without_label:
        raise ValueError(f"people.csv lacks {labelled.without_label} of {len(ids)} objects")
    return FaceSet(ids, np.stack(rows), labelled.people)


def read_clusters(archive: Path, ids: list[str]) -> Labels64:
    """Cluster number of each id from an archive.

    Raises `ValueError` unless the archive holds exactly these objects, once each.
    """
    try:
        found = read_archive(archive, Interrupt(), no_progress)
    except InputError as error:
        raise ValueError(str(error)) from error
    cluster_of = dict(zip(found.ids, found.clusters.tolist(), strict=True))
    unknown, missing = len(cluster_of.keys() - set(ids)), sum(one not in cluster_of for one in ids)
    if unknown or missing:
        raise ValueError(f"{archive.name}: {unknown} are unknown, {missing} of {len(ids)} missing")
    return np.array([cluster_of[object_id] for object_id in ids])


def run_cluster(
    events: Path, threshold: float, output: Path, threads: int = 0, engine: str | None = None
) -> Usage:
    """Run `stream-cluster cluster`; `RuntimeError` with its error output when it fails.

    `threads`: of the matching; 0 leaves it to the configuration, as None does for `engine`.
    """
    beside = Path(sys.executable).with_name("stream-cluster")
    program = str(beside) if beside.exists() else shutil.which("stream-cluster")
    if program is None:
        raise RuntimeError("stream-cluster is not installed in this environment: run `make setup`")
    command = [program, "cluster", str(events), "--descriptor-type", "face"]
    command += ["--threshold", f"{threshold:g}", "--output", str(output)]
    command += [] if engine is None else ["--engine", engine]
    variables = dict(os.environ)
    if threads:
        variables["STREAM_CLUSTER_MATCHING__THREADS"] = str(threads)
    with tempfile.TemporaryFile() as errors:
        usage, _ = run_measured(command, stderr=errors, env=variables)
        if usage.returncode != 0:
            errors.seek(0)
            text = io.TextIOWrapper(errors, errors="replace").read()
            raise RuntimeError(f"stream-cluster cluster ended with status {usage.returncode}:\n{text}")
    return usage


def compare(folder: Path, thresholds: list[float]) -> list[dict[str, Any]]:
    """One result per threshold, ready for JSON."""
    faces = read_faces(folder)
    # Codes and cosines differ by less than 0.01, so links of either kind near a threshold are in both sets.
    floor = min(thresholds) - 0.02
    by_cosine, by_code = cosine_links(faces.vectors, floor), code_links(faces.vectors, floor)
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for threshold in thresholds:
            archive = Path(scratch) / f"{threshold:g}.zip"
            run = run_cluster(folder / "events.jsonl.gz", threshold, archive)
            labels = read_clusters(archive, faces.ids)
            agreement = within_tolerance(labels, by_cosine, threshold)
            results.append(
                {
                    "threshold": threshold,
                    "objects": len(faces.ids),
                    "links": asdict(compare_links(by_cosine, by_code, threshold, len(faces.ids))),
                    "agreement": {**asdict(agreement), "accepted": agreement.accepted},
                    "quality": measure(labels, faces.people).as_dict(),
                    **asdict(run),
                }
            )
    return results


_COLUMNS = (
    "threshold",
    "links (cosine)",
    "links (code)",
    "differ",
    "farthest",
    "components",
    "pairwise F",
    "BCubed F",
    "ARI",
    "clusters",
    "largest",
    "seconds",
    "peak MB",
)


def table(results: list[dict[str, Any]]) -> str:
    """The results as aligned text."""
    rows = [_COLUMNS, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    )


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    links, quality, agreement = result["links"], result["quality"], result["agreement"]
    verdict = "identical" if agreement["identical"] else "accepted" if agreement["accepted"] else "WRONG"
    return (
        f"{result['threshold']:.3f}",
        str(links["by_cosine"]),
        str(links["by_code"]),
        str(links["differing"]),
        f"{links['farthest']:.5f}",
        verdict,
        f"{quality['pairwise']['f']:.4f}",
        f"{quality['bcubed']['f']:.4f}",
        f"{quality['adjusted_rand']:.4f}",
        str(quality["clusters"]),
        str(quality["largest_cluster"]),
        f"{result['seconds']:.2f}",
        f"{result['peak_memory_bytes'] / 1e6:.0f}",
    )


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faces", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of events.jsonl.gz and people.csv")
    parser.add_argument("--thresholds", default="0.44,0.52,0.60", help="cosines, separated by commas")
    parser.add_argument("--write", type=Path, help="write the results as JSON to this file")
    options = parser.parse_args(arguments)
    machine = environment()
    try:
        results = compare(options.data, [float(text) for text in options.thresholds.split(",")])
    except (OSError, RuntimeError, ValueError) as error:
        print(f"benchmarks.faces: {error}", file=sys.stderr)
        return 2
    print(table(results))
    print(f"components: accepted means equal apart from links within {TOLERANCE} of the threshold")
    if options.write is not None:
        report = {"benchmark": "faces", "tolerance": TOLERANCE, "environment": machine, "results": results}
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text(json.dumps(report, indent=2) + "\n")
    return 0 if all(result["agreement"]["accepted"] for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Where connected components collapse and average linkage does not: quality and time by size and threshold.

    python -m benchmarks.linkage_scale [--sizes 10000,100000] [--dims 128,512] [--write FILE.json [--keep]]

Made-up faces in the proportions of real ones (`benchmarks.face_data`). A cell is `stream-cluster cluster`
with one linkage at one threshold over the faces of one size and dimension, in a process of its own;
`largest_share` is the share of the largest cluster, `cluster_s` the time of matching and linkage. The file
is written after each cell, a picture of the quality beside it (.svg). With --keep, cells that the file has
are not measured again, so that sizes are added by later runs, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from benchmarks.face_data import FaceData
from benchmarks.linkage import LINKAGES, measured_run, people_apart
from benchmarks.report import write_report
from benchmarks.seed_data import parse_sizes
from stream_cluster.evaluation.plot import Curve, write_curves

Results = dict[str, dict[str, dict[str, Any]]]
"""Cells by threshold, by size, dimension and linkage."""

_THRESHOLDS = [0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6]


def name_of(size: int, dim: int, linkage: str) -> str:
    """Name of the cells of one size, dimension and linkage."""
    return f"{size:,} x {dim} {linkage}"


def kept(path: Path | None) -> Results:
    """The cells that a file has; none without a file."""
    if path is None or not path.exists():
        return {}
    found: Results = json.loads(path.read_text())["results"]
    return found


def measure(size: int, dim: int, thresholds: list[float], has: Results) -> Iterator[tuple[str, str, Any]]:
    """(name, threshold, figures) of each cell that is not there."""
    wanted = [
        (linkage, threshold)
        for threshold in thresholds
        for linkage in LINKAGES
        if f"{threshold:g}" not in has.get(name_of(size, dim, linkage), {})
    ]
    if not wanted:
        return
    data = FaceData(size, dim)
    people = people_apart(data.person_of)
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        source = Path(folder) / "faces.npz"
        data.write(source)
        for linkage, threshold in wanted:
            found = measured_run(source, threshold, linkage, people)
            share = float(np.round(found.pop("largest_cluster") / size, 6))
            yield name_of(size, dim, linkage), f"{threshold:g}", found | {"largest_share": share}


def draw(results: Results, target: Path) -> None:
    """A row of panels for each size and dimension."""
    rows: dict[str, list[Curve]] = {}
    for name, cells in results.items():
        objects, _, linkage = name.rpartition(" ")
        thresholds = sorted(cells, key=float)

        def values(figure: str, cells: dict[str, Any] = cells, order: list[str] = thresholds) -> list[float]:
            return [cells[threshold][figure] for threshold in order]

        figures = [values(figure) for figure in ("pairwise_f", "bcubed_f", "largest_share", "cluster_s")]
        rows.setdefault(objects, []).append(Curve(linkage, [float(one) for one in thresholds], *figures))
    write_curves(rows, target)


def _order(name: str) -> tuple[int, int]:
    size, _, rest = name.partition(" x ")
    return int(size.replace(",", "")), int(rest.split()[0])


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.linkage_scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=parse_sizes, default=[10_000, 100_000])
    parser.add_argument("--dims", type=parse_sizes, default=[128, 512])
    parser.add_argument(
        "--thresholds", type=lambda text: [float(part) for part in text.split(",")], default=_THRESHOLDS
    )
    parser.add_argument("--write", type=Path, help="write the results as JSON, and beside them a picture")
    parser.add_argument("--keep", action="store_true", help="add to the results that the file has")
    options = parser.parse_args(arguments)
    machine = environment()
    before = kept(options.write) if options.keep else {}
    results: Results = {}
    for size, dim in [(size, dim) for size in options.sizes for dim in options.dims]:
        for name, threshold, found in measure(size, dim, options.thresholds, before):
            print(f"{name} at {threshold}: {found}", flush=True)
            results.setdefault(name, dict(before.get(name, {})))[threshold] = found
            write_report(
                options.write,
                "linkage_scale",
                "make bench-linkage-scale",
                parameters={
                    "sizes": options.sizes,
                    "dims": options.dims,
                    "thresholds": options.thresholds,
                },
                environment=machine,
                results=results,
                keep=options.keep,
            )
        everything = before | results
        if options.write is not None and everything:
            ordered = {name: everything[name] for name in sorted(everything, key=_order)}
            draw(ordered, options.write.with_suffix(".svg"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

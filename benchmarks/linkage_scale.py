"""Where connected components collapse and average linkage does not: quality and time by size and threshold.

    python -m benchmarks.linkage_scale [--sizes 10000,100000] [--dims 128,512] [--once]
                                       [--write FILE.json [--keep]]

Made-up faces in the proportions of real ones (`benchmarks.face_data`). A cell is `stream-cluster cluster`
with one linkage at one threshold over the faces of one size and dimension, in a process of its own;
`largest_share` is the share of the largest cluster, `cluster_s` the time of matching and linkage. The file
is written after each cell, a picture of the quality beside it (.svg). With --keep, cells that the file has
are not measured again, so that sizes are added by later runs, and a run that was stopped goes on.

With --once, all cells of a size and dimension come from one match at the lowest threshold, as
`stream-cluster evaluate --sweep` makes them, for sizes whose match takes minutes. `match_s` and `cut_s` of
such cells are its time and that of the linkage, `cluster_s` their sum.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.environment import environment
from benchmarks.face_data import FaceData
from benchmarks.linkage import LINKAGES, measured_run, people_apart
from benchmarks.report import write_report
from benchmarks.seed_data import parse_sizes
from stream_cluster.evaluation.measures import measure as quality_of
from stream_cluster.evaluation.plot import Curve, write_curves
from stream_cluster.evaluation.sweep import cuts
from stream_cluster.matching import quantise
from stream_cluster.model import Interrupt

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


Wanted = list[tuple[str, float]]
"""Linkages and thresholds of one size and dimension."""


def missing(size: int, dim: int, thresholds: list[float], has: Results) -> Wanted:
    """The cells that are not there."""
    return [
        (linkage, threshold)
        for threshold in thresholds
        for linkage in LINKAGES
        if f"{threshold:g}" not in has.get(name_of(size, dim, linkage), {})
    ]


def measure(size: int, dim: int, wanted: Wanted) -> Iterator[tuple[str, str, Any]]:
    """(name, threshold, figures) of each cell that is wanted, each clustered by itself."""
    data = FaceData(size, dim)
    people = people_apart(data.person_of)
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as folder:
        source = Path(folder) / "faces.npz"
        data.write(source)
        for linkage, threshold in wanted:
            found = measured_run(source, threshold, linkage, people)
            share = float(np.round(found.pop("largest_cluster") / size, 6))
            yield name_of(size, dim, linkage), f"{threshold:g}", found | {"largest_share": share}


def measure_once(size: int, dim: int, wanted: Wanted) -> Iterator[tuple[str, str, Any]]:
    """(name, threshold, figures) of each cell that is wanted, all of them from one match."""
    data = FaceData(size, dim)
    codes = _codes(data)
    people = people_apart(data.person_of)
    thresholds = sorted({threshold for _, threshold in wanted})
    matched_at = began = time.perf_counter()

    def progress(stage: str, _share: float) -> None:
        nonlocal matched_at
        if stage == "match":
            matched_at = time.perf_counter()

    cut_from: float | None = None
    for cut in cuts(codes, thresholds, LINKAGES, interrupt=Interrupt(), progress=progress):
        cut_s = time.perf_counter() - (cut_from or matched_at)
        if (cut.linkage, thresholds[cut.place]) in wanted:
            quality = quality_of(cut.labels, people)
            figures = {
                "match_s": round(matched_at - began, 4),
                "cut_s": round(cut_s, 4),
                "cluster_s": round(matched_at - began + cut_s, 4),
                "clusters": quality.clusters,
                "pairwise_f": round(quality.pairwise.f, 4),
                "bcubed_f": round(quality.bcubed.f, 4),
                "largest_share": round(quality.largest_cluster / size, 6),
            }
            yield name_of(size, dim, cut.linkage), f"{thresholds[cut.place]:g}", figures
        cut_from = time.perf_counter()


def _codes(data: FaceData) -> npt.NDArray[np.int8]:
    codes = np.empty((data.objects, data.dim), np.int8)
    first = 0
    for block in data.blocks():
        codes[first : first + len(block)] = quantise(block)
        first += len(block)
    return codes


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
    parser.add_argument("--once", action="store_true", help="match each size and dimension once")
    parser.add_argument("--write", type=Path, help="write the results as JSON, and beside them a picture")
    parser.add_argument("--keep", action="store_true", help="add to the results that the file has")
    options = parser.parse_args(arguments)
    machine = environment()
    before = kept(options.write) if options.keep else {}
    results: Results = {}
    for size, dim in [(size, dim) for size in options.sizes for dim in options.dims]:
        wanted = missing(size, dim, options.thresholds, before)
        cells = (measure_once if options.once else measure)(size, dim, wanted) if wanted else iter(())
        for name, threshold, found in cells:
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

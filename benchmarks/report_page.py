"""report.html: seconds and bytes that it adds to a snapshot, and how soon a browser shows it.

    python -m benchmarks.report_page [--images 10000] [--objects 1000000] [--dim 512] [--write FILE.json]

`images`: objects with a drawn face each, in a directory; `objects`: a large state without images. What the
figures of the clusters take (cohesion, weakest links, bridges, the curve) is `quality_s`, and by the whole
snapshot `quality_share`. Each snapshot runs in a process of its own, with the page and without; the
difference is what the page took. `browser` opens a report of 100,000 clusters in Chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import images as with_images
from benchmarks import snapshot as without_images
from benchmarks.environment import environment
from benchmarks.process import run_measured
from benchmarks.report import write_report
from stream_cluster.config import load_settings
from stream_cluster.generate.faces import draw_face
from stream_cluster.messages import Content, Report, TaskRequest
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import run_snapshot
from stream_cluster.state.database import database_path
from stream_cluster.state.view import PartitionView

_NOW_US = 1_777_000_000_000_000 * 2
_REPETITIONS = 3
_BROWSER_CLUSTERS = 100_000
TARGETS = {
    "images": {"report_s": 3.0, "report_mb": 30.0, "quality_share": 0.2},
    "objects": {"report_s": 10.0, "quality_share": 0.2},
    "browser": {"first_paint_ms": 1000},
}


def make_faces(folder: Path, images: int) -> None:
    """A state of objects with images, five of a person, and the images."""
    for number in range(images):
        path = folder / "images" / with_images.reference(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_face(number // 5, number % 5, 1))
    with_images.make_state(folder, images)


def measure(folder: Path, *, page: bool, threshold: float) -> dict[str, Any]:
    """One whole snapshot, with the page or without, with images where there are some."""
    save_images = (folder / "images").is_dir()
    roots = [{"kind": "directory", "path": str(folder / "images")}]
    settings = load_settings(None, {}, {"images.roots": roots} if save_images else {})
    content = Content(
        objects_type="events", threshold=threshold, save_images=save_images, report=Report(html=page)
    )
    task = TaskRequest(task_id="benchmark", account_id="demo", content=content)
    request = resolve_request(task, settings, _NOW_US)
    target = folder / "out.zip"
    with PartitionView(database_path(folder, 0)) as view:
        began = time.perf_counter()
        done = run_snapshot(view, request, target, interrupt=Interrupt(), progress=no_progress, as_of=None)
        seconds = time.perf_counter() - began
    result: dict[str, Any] = {
        "seconds": seconds,
        "quality_s": done.timings_s["quality"],
        "objects": done.objects,
        "clusters": done.clusters,
    }
    if page:
        with zipfile.ZipFile(target) as archive:
            result["report_bytes"] = archive.getinfo("report.html").file_size
            result["page"] = json.loads(archive.read("manifest.json"))["counts"]["page"]
    return result


def compare(make: Callable[[Path], None], threshold: float) -> dict[str, Any]:
    """What the page adds; the least of some runs of each, in turn."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        subprocess.run(["sync"], check=True)
        runs = [(_run(folder, threshold, "--without"), _run(folder, threshold)) for _ in range(_REPETITIONS)]
    without_s = min(one["seconds"] for (one, _), _ in runs)
    with_s = min(one["seconds"] for _, (one, _) in runs)
    (_, base_mb), (one, peak_mb) = runs[-1]
    return {
        "objects": one["objects"],
        "clusters": one["clusters"],
        "report_s": round(with_s - without_s, 2),
        "report_mb": round(one["report_bytes"] / 1e6, 1),
        "snapshot_s": round(with_s, 2),
        "snapshot_without_report_s": round(without_s, 2),
        "quality_s": round(one["quality_s"], 2),
        "quality_share": round(one["quality_s"] / one["seconds"], 3),
        "peak_memory_mb": round(peak_mb, 1),
        "peak_memory_without_report_mb": round(base_mb, 1),
        **{f"listed_{name}": count for name, count in one["page"].items()},
    }


def _run(folder: Path, threshold: float, *arguments: str) -> tuple[dict[str, Any], float]:
    command = [sys.executable, "-m", "benchmarks.report_page", "--measure", str(folder)]
    usage, output = run_measured([*command, "--threshold", str(threshold), *arguments])
    if usage.returncode != 0:
        raise SystemExit(f"the measurement ended with status {usage.returncode}")
    return json.loads(output), usage.peak_memory_bytes / 1e6


def in_browser() -> dict[str, Any]:
    """Milliseconds until a report of many clusters is painted, and until its cards are there; medians."""
    # Only this run needs a browser, and what tests make up.
    from playwright.sync_api import sync_playwright  # noqa: PLC0415

    from tests.support.browser import ARGUMENTS  # noqa: PLC0415
    from tests.support.pages import content_of, sizes_of, write_page  # noqa: PLC0415

    paints, cards = [], []
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        path = Path(name) / "report.html"
        content = content_of(sizes_of(_BROWSER_CLUSTERS))
        listed = write_page(path, content)
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(ARGUMENTS))
        for _ in range(5):
            page = browser.new_page()
            page.goto(path.as_uri())
            page.wait_for_selector("html[data-ready]")
            paints.append(
                page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            )
            cards.append(page.evaluate("performance.getEntriesByName('cards')[0].startTime"))
            page.close()
        version = browser.version
        browser.close()
        size = path.stat().st_size
    return {
        "clusters": listed["clusters"],
        "objects": len(content.shown.ids),
        "listed_objects": listed["objects"],
        "report_mb": round(size / 1e6, 1),
        "first_paint_ms": round(statistics.median(paints)),
        "cards_ms": round(statistics.median(cards)),
        "chromium": version,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512, help="values of a descriptor of `objects`")
    parser.add_argument("--only", choices=["images", "objects", "browser"], help="nothing else")
    parser.add_argument("--keep", action="store_true", help="add to the results of the file")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threshold", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure is not None:
        print(
            json.dumps(measure(arguments.measure, page=not arguments.without, threshold=arguments.threshold))
        )
        return
    before = environment()
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "images": lambda: compare(lambda folder: make_faces(folder, arguments.images), 0.7),
        "objects": lambda: compare(
            lambda folder: without_images.make_state(folder, arguments.objects, arguments.dim), 0.6
        ),
        "browser": in_browser,
    }
    results = {name: run() for name, run in runs.items() if arguments.only in {None, name}}
    for name, result in results.items():
        table = Table("figure", "value", title=name)
        for figure, value in result.items():
            table.add_row(figure, str(value))
        Console().print(table)
    write_report(
        arguments.write,
        "report_page",
        "make bench-report",
        parameters={
            "images": arguments.images,
            "objects": arguments.objects,
            "dim": arguments.dim,
            "targets": TARGETS,
        },
        environment=before,
        results=results,
        keep=arguments.keep,
    )


if __name__ == "__main__":
    main()

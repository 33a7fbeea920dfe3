"""Matching in cells at one million and ten million objects of 512 dimensions.

    python -m benchmarks.cells PART... --data FOLDER [--write results.json]

Codes are made in FOLDER (made-up faces, `benchmarks.face_data`; evenly spread people,
`benchmarks.seed_data`), 5 GB for ten million. Each part can be run alone; its results are added to those of
the file. Parts:

exact           all links above 0.5 of one million faces: seconds, and what there is to find
batch           the same with cells: seconds, share of these links, and BCubed F of both
file            the same faces from a file to the archive with its page, by `stream-cluster cluster`
stream-ORDER    one million faces arrive: at random, by person, by camera; then 20% are deleted while more
                come
people          one million evenly spread people arrive: the target is reached, or said not to be
growth          ten million faces arrive, cells are made anew as the space grows
mapped          one million in a mapped file: with memory for all of it and for half
peers           Faiss (IVF, SQ8) and hnswlib on the same faces, where they fit
resident        ten million that are there, put into cells at once: events a second, latency, memory, share
                of links found

Events arrive in batches of BATCH: each is searched for, then added, as in the service. The share of links
found is that of sampled events, against a comparison with every row. Times of exact matching are of the
kernel.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from benchmarks import cells_mapped, cells_peers
from benchmarks.cells_data import DIM, CodesFile, Kind, Order, codes_file, ordered
from benchmarks.environment import environment
from benchmarks.process import peak_memory_bytes, resident_memory_bytes, run_measured
from benchmarks.report import write_report
from benchmarks.seed_data import write_npz
from benchmarks.streams import BATCH, THRESHOLD, Results, Stream, fill, percentiles
from stream_cluster.evaluation.measures import measure
from stream_cluster.graph.components import connected_components
from stream_cluster.graph.forest import ForestBuilder
from stream_cluster.matching import all_pairs, limit_threads
from stream_cluster.matching.cell_pairs import CellPairs
from stream_cluster.matching.cell_trainer import CellParameters
from stream_cluster.matching.cells import CellMatcher

MILLION = 1_000_000
TEN_MILLION = 10_000_000
NEW = 20_000


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cells",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parts = _parts()
    parser.add_argument("parts", nargs="+", choices=[*parts, "all"], metavar="PART")
    parser.add_argument("--data", type=Path, required=True, help="folder of codes, made when missing")
    parser.add_argument("--objects", type=int, default=MILLION, help="instead of a million")
    parser.add_argument("--many", type=int, default=TEN_MILLION, help="instead of ten million")
    parser.add_argument("--write", type=Path, help="results as JSON")
    options = parser.parse_args(arguments)
    chosen = list(parts) if "all" in options.parts else options.parts
    if len(chosen) > 1:
        # Each in a process of its own, so that its memory is its own.
        given = ["--data", str(options.data), "--objects", str(options.objects), "--many", str(options.many)]
        given += [] if options.write is None else ["--write", str(options.write)]
        for name in chosen:
            subprocess.run([sys.executable, "-m", "benchmarks.cells", name, *given], check=True)
        return 0
    threads = limit_threads(0)
    for name in chosen:
        around = environment()
        print(f"{name}:", flush=True)
        results = parts[name](options)
        for key, value in results.items():
            print(f"  {key}: {value}", flush=True)
        write_report(
            options.write,
            "cells",
            "python -m benchmarks.cells all --data FOLDER --write results.json",
            parameters={"threads": threads, "threshold": THRESHOLD, "batch": BATCH, "dim": DIM},
            environment=around,
            results={name: results},
            keep=True,
        )
    return 0


def _parts() -> dict[str, Callable[[argparse.Namespace], Results]]:
    def stream(order: Order) -> Callable[[argparse.Namespace], Results]:
        return lambda options: _arrival(options, "faces", order, deletes=True)

    return {
        "exact": _exact,
        "batch": _batch,
        "file": _file,
        **{f"stream-{order}": stream(order) for order in get_args(Order)},
        "people": lambda options: _arrival(options, "people", "random", deletes=False),
        "growth": _growth,
        "resident": _resident,
        "mapped": cells_mapped.measure,
        "peers": cells_peers.measure,
    }


# -- batch ---------------------------------------------------------------------------------------------------


def _batch(options: argparse.Namespace) -> Results:
    """Needs what `exact` found of the same objects for the comparison."""
    mapped, person = codes_file(options.data, "faces", options.objects)
    codes = np.array(mapped)
    began = time.perf_counter()
    run = CellPairs(codes, THRESHOLD, CellParameters().target_recall)
    forest = ForestBuilder()
    found = 0
    for links in run.links():
        found += len(links)
        forest.add(links)
    labels = _labels(forest, len(codes))
    cells_s = time.perf_counter() - began
    known = person >= 0
    results: Results = {
        "objects": len(codes),
        "cells_s": round(cells_s, 2),
        "engine": run.engine,
        "links": found,
        "share_measured": run.recall.as_dict(),
        "scanned_share": round(run.scanned_share, 6),
        "bcubed_f": round(measure(labels[known], person[known]).bcubed.f, 6),
        "peak_memory_bytes": peak_memory_bytes(),
    }
    print(f"  {results}", flush=True)
    path = _exact_path(options)
    if path.exists():
        exact = np.load(path)
        results |= {
            "links_exact": int(exact["links"]),
            "share_found": round(found / int(exact["links"]), 6),
            "bcubed_f_exact": round(measure(exact["labels"][known], person[known]).bcubed.f, 6),
        }
    return results


def _exact(options: argparse.Namespace) -> Results:
    """All links and clusters, kept in a file."""
    mapped, _ = codes_file(options.data, "faces", options.objects)
    codes = np.array(mapped)
    began = time.perf_counter()
    forest = ForestBuilder()
    true = 0
    for links in all_pairs(codes, THRESHOLD):
        true += len(links)
        forest.add(links)
    labels = _labels(forest, len(codes))
    exact_s = time.perf_counter() - began
    np.savez(_exact_path(options), links=true, labels=labels)
    return {"objects": len(codes), "exact_s": round(exact_s, 2), "links": true}


def _exact_path(options: argparse.Namespace) -> Path:
    return Path(options.data) / f"exact-{options.objects}.npz"


def _labels(forest: ForestBuilder, objects: int) -> npt.NDArray[np.int32]:
    links = forest.result()
    return connected_components(objects, [(links.a, links.b)])


def _file(options: argparse.Namespace) -> Results:
    """The command, in a process of its own; seconds of each stage."""
    mapped, _ = codes_file(options.data, "faces", options.objects)
    vectors = options.data / f"faces-{options.objects}.npz"
    if not vectors.exists():
        parts = range(0, options.objects, 8192)
        write_npz(vectors, options.objects, DIM, (mapped[at : at + 8192].astype(np.float32) for at in parts))
    archive = options.data / "out.zip"
    command = [sys.executable, "-c", "from stream_cluster.cli import main; main()", "cluster", str(vectors)]
    command += ["--threshold", f"{THRESHOLD:g}", "--engine", "cells", "--output", str(archive), "--json"]
    usage, output = run_measured(command)
    if usage.returncode != 0:
        raise SystemExit(f"the command ended with status {usage.returncode}")
    result = json.loads(output)
    return {
        "objects": result["counts"]["selected"],
        "clusters": result["counts"]["clusters"],
        "seconds": round(usage.seconds, 2),
        "cpu_s": round(usage.cpu_s, 2),
        "stages_s": {stage: round(seconds, 2) for stage, seconds in result["timings_s"].items()},
        "engine": result["matching"]["engine"],
        "share_measured": result["matching"]["recall"],
        "archive_bytes": result["archive"]["size_bytes"],
        "peak_memory_bytes": usage.peak_memory_bytes,
    }


# -- streams -------------------------------------------------------------------------------------------------


def _state(matcher: CellMatcher) -> Results:
    return {
        "cells": matcher.cell_count,
        "margin": round(matcher.control.margin, 4),
        "scanned_share": round(matcher.scanned_share, 6),
        "over_budget": matcher.over_budget,
        "recall_measured": matcher.recall().as_dict(),
        "target_recall": matcher.parameters.target_recall,
    }


def _least(checks: list[Results]) -> Results:
    """The worst of some checks, and all of them together."""
    worst = min(checks, key=lambda check: check["share"] if check["links_true"] else 1.0)
    true, found = (sum(check[name] for check in checks) for name in ("links_true", "links_found"))
    return {
        "share_of_all_checks": round(found / max(true, 1), 6),
        "least_share": worst["share"],
        "least_share_high": worst["high"],
        "least_share_rows": worst["rows"],
    }


def _arrival(options: argparse.Namespace, kind: Kind, order: Order, *, deletes: bool) -> Results:
    """Objects arrive one batch after another; then a fifth of them is deleted while more arrive."""
    objects = options.objects
    mapped, person = codes_file(options.data, kind, objects)
    codes = np.array(mapped)
    events: list[Results] = []
    matcher = CellMatcher(DIM, notify=lambda event, fields: events.append({"event": event, **fields}))
    stream = Stream(matcher, codes, ordered(person, order), checks_latest=order == "by_person")
    kept = objects * 9 // 10
    checks: list[Results] = []
    seconds = 0.0
    for stop in (kept // 8, kept // 4, kept // 2, kept * 3 // 4, kept):
        took = stream.run(stop)
        seconds += took
        latencies = percentiles(stream.latencies_s)
        stream.latencies_s.clear()
        checks.append({**stream.check(), "seconds": round(took, 2), **latencies})
    results: Results = {
        "objects": objects,
        "order": order,
        "events_s": round(kept / seconds),
        **_least(checks),
        "checks": checks,
        **_state(matcher),
    }
    if deletes:
        results["deletions"] = _deletions(stream, kept, objects)
    matcher.stop()
    return {**results, "events": events, "peak_memory_bytes": peak_memory_bytes()}


def _deletions(stream: Stream, kept: int, objects: int) -> Results:
    """A fifth is deleted in slices, with events between them."""
    gone = np.random.default_rng(3).permutation(kept)[: kept // 5]
    checks = []
    deleting_s = 0.0
    for step, part in enumerate(np.array_split(gone, 5)):
        began = time.perf_counter()
        stream.matcher.remove(part)
        deleting_s += time.perf_counter() - began
        stream.run(kept + (objects - kept) * (step + 1) // 6)
        checks.append(stream.check())
    return {
        "deleted": len(gone),
        "deletions_per_s": round(len(gone) / deleting_s),
        **_least(checks),
        "checks": checks,
        **percentiles(stream.latencies_s),
    }


def _growth(options: argparse.Namespace) -> Results:
    """From nothing to the whole; one batch in twenty is searched for, so that it takes minutes, not hours."""
    codes = CodesFile(codes_file(options.data, "faces", options.many + NEW)[0])
    events: list[Results] = []
    began = time.perf_counter()

    def notify(event: str, fields: Any) -> None:
        events.append({"at_s": round(time.perf_counter() - began, 1), "event": event, **fields})

    matcher = CellMatcher(DIM, notify=notify)
    stream = Stream(matcher, codes)
    checks: list[Results] = []
    for stop in np.linspace(0, options.many, 11).astype(int)[1:].tolist():
        took = stream.run(stop, search_every=20)
        checks.append(
            {
                **stream.check(),
                "seconds": round(took, 1),
                "cells": matcher.cell_count,
                "training": matcher.is_training,
                "memory_bytes": resident_memory_bytes(),
                **percentiles(stream.latencies_s[::20]),
            }
        )
        print(f"  {checks[-1]}", flush=True)
        stream.latencies_s.clear()
    grown_s = time.perf_counter() - began
    matcher.wait_until_trained()
    settled = stream.check()
    return {
        "objects": len(matcher),
        "seconds": round(grown_s, 1),
        **_least(checks),
        "checks": checks,
        "settled": settled,
        **_state(matcher),
        "matcher_bytes": matcher.nbytes,
        "peak_memory_bytes": peak_memory_bytes(),
        "events": events,
    }


def _resident(options: argparse.Namespace) -> Results:
    """New events beside those that are resident, which were put there at once."""
    codes = CodesFile(codes_file(options.data, "faces", options.many + NEW)[0])
    matcher = CellMatcher(DIM)
    filled_s = fill(matcher, codes, options.many)
    print(f"  filled in {filled_s:.0f} s", flush=True)
    stream = Stream(matcher, codes)
    stream.next = options.many
    stream.run(options.many + NEW // 4)  # caches fill, the margin settles
    stream.latencies_s.clear()
    seconds = stream.run(options.many + NEW * 3 // 4)
    latencies = percentiles(stream.latencies_s)
    check = stream.check(500)
    gone = np.random.default_rng(3).permutation(options.many)[: options.many // 5]
    began = time.perf_counter()
    matcher.remove(gone)
    deleting_s = time.perf_counter() - began
    return {
        "resident": options.many,
        "filled_s": round(filled_s, 1),
        "events_s": round(NEW / 2 / seconds),
        **latencies,
        "check": check,
        **_state(matcher),
        "matcher_bytes": matcher.nbytes,
        "peak_memory_bytes": peak_memory_bytes(),
        "deletions": {
            "deleted": len(gone),
            "deletions_per_s": round(len(gone) / deleting_s),
            "check": stream.check(500),
        },
    }


if __name__ == "__main__":
    sys.exit(main())

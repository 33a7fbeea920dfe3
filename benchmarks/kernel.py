"""The matching kernel: operations per second of each path, small batches, all pairs. One multiply-add is two.

    python -m benchmarks.kernel [--short] [--write FILE.json]

Wall time counts, so nothing else should run; processor time is given too, as it shows when something did.
The rate of a path is taken at a threshold where no pair is decided early; `all_pairs` is what early
decisions make of it, in the operations of a full comparison. Data, seeded: `people` of five objects each,
similar with a cosine of about 0.67, and otherwise independent directions, where sketches are of no use; and
`faces`, the data of the published table (`benchmarks.seed_data`), where they are.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import numpy.typing as npt

from benchmarks.environment import environment
from benchmarks.seed_data import SeedData
from stream_cluster.matching import kernel, numpy_exact
from stream_cluster.matching.codes import quantise
from stream_cluster.matching.exact import ExactMatcher, all_pairs
from stream_cluster.matching.threads import limit_threads
from stream_cluster.model import Codes

HERE = Path(__file__).parent
DIM = 512
NO_EARLY_DECISIONS = 0.24
"""Hardly a pair of independent directions is above it, and no cut of the dimension excludes that it is."""


Figures = dict[str, dict[str, Any]]


class Sizes(NamedTuple):
    """How much is measured."""

    path_rows: int
    pairs_rows: int
    numpy_rows: int
    resident_rows: tuple[int, ...]
    batches: tuple[int, ...]
    repeats: int


FULL = Sizes(30_000, 100_000, 30_000, (10_000, 100_000, 1_000_000), (1, 8, 64, 512, 4096), 5)
SHORT = Sizes(10_000, 20_000, 10_000, (10_000, 100_000), (1, 64, 4096), 2)


class Times(NamedTuple):
    """Of the fastest repetition."""

    wall_s: float
    cpu_s: float


def people(count: int, *, seed: int = 0) -> Codes:
    """Codes of `count` objects of people of five, in random order; made in parts to bound the memory."""
    random = np.random.default_rng(seed)
    parts = []
    for start in range(0, count, 50_000):
        part = min(50_000, count - start)
        centres = random.standard_normal((-(-part // 5), DIM), np.float32)
        vectors = np.repeat(centres, 5, axis=0)[:part]
        vectors += np.float32(0.7) * random.standard_normal(vectors.shape, np.float32)
        parts.append(quantise(vectors[random.permutation(part)]))
    return np.concatenate(parts)


def fastest(repeats: int, work: Callable[[], object]) -> Times:
    """Run it so many times."""
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append(Times(time.perf_counter() - wall, time.process_time() - cpu))
    return min(times)


def count(parts: Iterable[Any]) -> int:
    """Hits or links in all."""
    return sum(len(part) for part in parts)


def machine_peak() -> dict[str, Any] | None:
    """What the hardware can do, from `machine_peak.cpp`; None without AVX-512 VNNI or a compiler."""
    compiler = shutil.which("c++")
    if compiler is None or "avx512vnni" not in kernel.available_paths():
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peak"
        source = HERE / "machine_peak.cpp"
        flags = ["-O3", "-std=c++17", "-mavx512f", "-mavx512vnni", "-pthread", "-w"]
        subprocess.run([compiler, *flags, "-o", program, source], check=True)
        done = subprocess.run([program], check=True, capture_output=True, text=True)
    peak: dict[str, Any] = json.loads(done.stdout)
    return peak


def path_rates(codes: Codes, threads: int, repeats: int) -> Figures:
    """The rate of each path over all pairs."""
    results: Figures = {}
    for path in kernel.available_paths():
        with mock.patch.dict(os.environ, STREAM_CLUSTER_KERNEL=path):
            # The slow path does not need repeating to be measured well.
            found = _all_pairs(codes, threads, 1 if path == "portable" else repeats, NO_EARLY_DECISIONS)
        results[f"path_{path}"] = _shown(f"{path}, {threads} threads", found)
    return results


def faces(count: int) -> Codes:
    """Codes of `count` objects of the data of the published table."""
    return np.concatenate([quantise(block) for block in SeedData(count).blocks()])


def batches(name: str, codes: Codes, queries: Codes, threads: int, sizes: Sizes) -> Figures:
    """Batches of queries against resident rows, at a threshold of 0.5."""
    results: Figures = {}
    limit_threads(threads)
    for rows in sizes.resident_rows:
        matcher = ExactMatcher(DIM)
        matcher.add(codes[:rows])
        for batch in sizes.batches:
            repeats = max(sizes.repeats, min(200, 20_000_000 // (rows * batch)))
            times = fastest(
                repeats, lambda matcher=matcher, batch=batch: count(matcher.search(queries[:batch], 0.5))
            )
            found = {
                **times._asdict(),
                "queries_per_s": batch / times.wall_s,
                # Of the codes: less than that is read where a part of the dimension decides.
                "codes_gb_s": rows * DIM / times.wall_s / 1e9,
                "gops": 2.0 * rows * batch * DIM / times.wall_s / 1e9,
            }
            results[f"{name}_batch_{batch}_of_{rows}"] = _shown(
                f"{name}, batch of {batch}, {rows} rows, {threads} threads", found
            )
    return results


def early_decisions(name: str, codes: Codes, threads: int, repeats: int) -> Figures:
    """All pairs at several thresholds."""
    results: Figures = {}
    for threshold in (0.3, 0.4, 0.5, 0.6, 0.7, 0.81, 0.9):
        found = _all_pairs(codes, threads, repeats, threshold)
        what = f"{name}, all pairs at {threshold}, {threads} threads"
        results[f"{name}_all_pairs_{threshold}"] = _shown(what, found)
    return results


def against_numpy(name: str, codes: Codes, threads: int, repeats: int) -> dict[str, Any]:
    """Kernel and NumPy tiles on the same data, in turn."""
    limit_threads(threads)
    links: list[npt.NDArray[np.uint64]] = []
    times = []
    for module_pairs in (all_pairs, numpy_exact.all_pairs):
        found = [(part.a.astype(np.uint64) << np.uint64(32)) | part.b for part in module_pairs(codes, 0.5)]
        links.append(np.sort(np.concatenate(found)))
        times.append(fastest(min(repeats, 2), lambda pairs=module_pairs: count(pairs(codes, 0.5))))
    native, numpy_tiles = times
    result = {
        "rows": len(codes),
        "native_s": native.wall_s,
        "numpy_s": numpy_tiles.wall_s,
        "times_faster": numpy_tiles.wall_s / native.wall_s,
        "same_links": bool(np.array_equal(*links)),
    }
    return _shown(f"{name}, against NumPy, {threads} threads", result)


def _all_pairs(codes: Codes, threads: int, repeats: int, threshold: float) -> dict[str, Any]:
    limit_threads(threads)
    links = count(all_pairs(codes, threshold))
    times = fastest(repeats, lambda: count(all_pairs(codes, threshold)))
    operations = float(len(codes)) ** 2 * DIM
    return {
        "rows": len(codes),
        "links": links,
        **times._asdict(),
        "gops": operations / times.wall_s / 1e9,
        "gops_per_cpu": operations / times.cpu_s / 1e9,
    }


def _shown(what: str, result: dict[str, Any]) -> dict[str, Any]:
    figures = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in result.items())
    print(f"{what}:", ", ".join(figures), flush=True)
    return result


def measure(sizes: Sizes) -> dict[str, Figures]:
    """All figures, by the number of threads."""
    peak = machine_peak()
    most, asked = max(*sizes.resident_rows, sizes.pairs_rows), max(sizes.batches)
    all_codes = {"people": people(most + asked), "faces": faces(most + asked)}
    data = {name: codes[:most] for name, codes in all_codes.items()}
    queries = {name: codes[most:] for name, codes in all_codes.items()}
    results: dict[str, Figures] = {}
    for threads in (1, 2):
        figures: Figures = {}
        if peak is not None:
            machine = {name: values[threads - 1] for name, values in peak.items()}
            figures["machine_peak"] = _shown(f"machine, {threads} threads", machine)
        figures |= path_rates(data["people"][: sizes.path_rows], threads, sizes.repeats)
        for name, codes in data.items():
            if threads == 2:
                figures |= early_decisions(name, codes[: sizes.pairs_rows], threads, sizes.repeats)
                compared = against_numpy(name, codes[: sizes.numpy_rows], threads, sizes.repeats)
                figures[f"{name}_numpy"] = compared
            figures |= batches(name, codes, queries[name], threads, sizes)
        results[f"{threads} threads" if threads > 1 else "1 thread"] = figures
    return results


def main(arguments: list[str] | None = None) -> None:
    """Measure, print a line per figure, and write all of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--short", action="store_true", help="smaller sizes, for a look in half a minute")
    parser.add_argument("--write", type=Path, metavar="FILE.json", help="store the result")
    options = parser.parse_args(arguments)
    sizes = SHORT if options.short else FULL
    before = environment()
    report = {
        "benchmark": "kernel",
        "command": "make bench-kernel",
        "parameters": {"dim": DIM, "short": options.short, "repeats": sizes.repeats},
        "environment": before,
        "results": measure(sizes),
        "load_average_at_end": [round(load, 2) for load in os.getloadavg()],
    }
    if options.write is not None:
        options.write.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

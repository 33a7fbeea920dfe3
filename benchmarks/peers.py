"""This product and well-known libraries on the same task: all pairs above a cosine, and their components.

    python -m benchmarks.peers [--sizes 10000,100000] [--limit-s 600] [--write FILE.json [--keep]]

The data are those of `benchmarks.seed_data`. Each engine of `benchmarks.peer_engines` runs in a process of
its own, bound to as many cores as it has threads, one after another. It loads the vectors (not timed), takes
them into its index, finds the pairs, and SciPy labels the connected components. An engine that is not done
within the limit is stopped, and left out at larger sizes. One whose time at a smaller size (of this run, or
of the file that `--keep` adds to) says that it cannot be done within the limit is not started: comparing all
pairs takes quadratic time, and building a graph linear time at least.

Judged against cosines in float64:

links found   share of the true links (cosine above the threshold) that the engine found.
wrong         links found whose cosine is below the threshold by more than 0.002.
missed        links not found whose cosine is above the threshold by more than 0.002.
ARI, pair F   adjusted Rand index and pairwise F of the components against those of the true links.
slower        seconds by the seconds of this product, of index and search together, in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.peer_engines import ENGINES, EXHAUSTIVE, numpy_tiles
from benchmarks.process import Measured, peak_memory_bytes
from benchmarks.reference import TOLERANCE
from benchmarks.report import write_report
from benchmarks.seed_data import parse_sizes, seed_data
from stream_cluster.evaluation import measures
from stream_cluster.graph.components import connected_components
from stream_cluster.matching import all_pairs, limit_threads, quantise
from stream_cluster.matching.codes import inverse_norms

_OURS = "stream-cluster"
_BLOCK = 65_536
# Above it, candidates for the truth come from this product, with a margin for its codes: they are verified in
# float64 all the same, and float32 products of a million rows alone would take longer than all engines.
_TILES_UP_TO = 200_000

Keys = npt.NDArray[np.uint64]
Vectors = npt.NDArray[np.float32]


def run_engine(name: str, folder: Path, threshold: float, threads: int) -> dict[str, Any]:
    """Run in a process of its own: `objects.npz` of the folder; pairs and labels go to `<name>.npz` there."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    with np.load(folder / "objects.npz") as file:
        vectors = file["descriptors"]
    loaded_bytes = peak_memory_bytes()
    found = ENGINES[name](vectors, threshold, threads)
    began = time.perf_counter()
    labels = connected_components(len(vectors), [(found.a, found.b)])
    components_s = time.perf_counter() - began
    peak_bytes = peak_memory_bytes()
    np.savez(folder / f"{name}.npz", a=found.a, b=found.b, labels=labels)
    return {
        "seconds": round(found.index_s + found.search_s, 3),
        "index_s": round(found.index_s, 3),
        "search_s": round(found.search_s, 3),
        "components_s": round(components_s, 3),
        "peak_memory_bytes": peak_bytes,
        "memory_after_load_bytes": loaded_bytes,
        "links": len(found.a),
    }


# -- truth ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Truth:
    """What float64 says of a set of vectors at one threshold."""

    links: Keys
    """Pairs with a cosine above the threshold, as sorted keys."""
    certain: Keys
    """Those above the threshold by more than the tolerance: all of them must be found."""
    possible: Keys
    """Pairs with a cosine above the threshold less the tolerance: any of them may be found."""
    labels: npt.NDArray[np.int32]


def truth_of(vectors: Vectors, threshold: float, threads: int) -> Truth:
    """All pairs whose cosine in float64 is above the threshold. `vectors`: unit, shape (n, dim)."""
    lowest = threshold - TOLERANCE
    if len(vectors) <= _TILES_UP_TO:
        # float32 products of unit vectors are within 1e-5 of the cosine.
        found = numpy_tiles(vectors, lowest - 1e-4, threads)
        a, b = found.a, found.b
    else:
        a, b = _candidates_by_codes(vectors, lowest, threads)
    cosine = _cosines(vectors, a, b)
    keys = _keys(a, b)
    order = np.argsort(keys)
    keys, cosine = keys[order], cosine[order]
    true = keys[cosine > threshold]
    labels = connected_components(len(vectors), [_rows(true)])
    return Truth(true, keys[cosine > threshold + TOLERANCE], keys[cosine > lowest], labels)


def _candidates_by_codes(
    vectors: Vectors, lowest: float, threads: int
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    limit_threads(threads)
    codes = np.concatenate([quantise(vectors[i : i + _BLOCK]) for i in range(0, len(vectors), _BLOCK)])
    # Rounding moves each of dim values by half at most, so the direction by at most this angle; two of them.
    half = 0.5 * np.sqrt(vectors.shape[1]) * float(inverse_norms(codes).max())
    margin = 2 * float(np.arcsin(min(half, 1.0)))
    parts = [(links.a, links.b) for links in all_pairs(codes, max(lowest - margin, -1.0))]
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


def _cosines(
    vectors: Vectors, a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]
) -> npt.NDArray[np.float64]:
    result = np.empty(len(a))
    for first in range(0, len(a), _BLOCK):
        left = vectors[a[first : first + _BLOCK]].astype(np.float64)
        right = vectors[b[first : first + _BLOCK]].astype(np.float64)
        dots = np.einsum("ij,ij->i", left, right)
        squares = np.einsum("ij,ij->i", left, left) * np.einsum("ij,ij->i", right, right)
        result[first : first + _BLOCK] = dots / np.sqrt(squares)
    return result


def _keys(a: npt.NDArray[np.uint32], b: npt.NDArray[np.uint32]) -> Keys:
    return a.astype(np.uint64) << np.uint64(32) | b


def _rows(keys: Keys) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    return (keys >> np.uint64(32)).astype(np.uint32), keys.astype(np.uint32)


def judge(truth: Truth, pairs: Keys, labels: npt.NDArray[np.int32]) -> dict[str, Any]:
    """Compare pairs (sorted keys) and components with the truth."""

    def common(some: Keys, others: Keys) -> int:
        return int(np.isin(some, others, assume_unique=True).sum())

    found = common(truth.links, pairs)
    compared = measures.measure(labels, truth.labels)
    return {
        "links_true": len(truth.links),
        "links_found_share": round(found / len(truth.links), 6) if len(truth.links) else 1.0,
        "links_wrong": len(pairs) - common(pairs, truth.possible),
        "links_missed": len(truth.certain) - common(truth.certain, pairs),
        "adjusted_rand": round(compared.adjusted_rand, 6),
        "pairwise_f": round(compared.pairwise.f, 6),
        "clusters": compared.clusters,
    }


# -- the command ---------------------------------------------------------------------------------------


def _run_limited(name: str, folder: Path, threshold: float, threads: int, limit_s: float) -> dict[str, Any]:
    """`run_engine` as a process. Without a result: `failed` says why."""
    command = [sys.executable, "-m", "benchmarks.peers", "--run", name, "--folder", str(folder)]
    command += ["--threshold", repr(threshold), "--threads", str(threads)]
    counts = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    output, errors = folder / f"{name}.json", folder / f"{name}.err"
    with output.open("wb") as out, errors.open("wb") as err:
        measured = Measured(command, env={**os.environ, **counts}, stdout=out, stderr=err)
        timer = threading.Timer(limit_s, measured.process.kill)
        timer.start()
        usage = measured.wait()
        timer.cancel()
    if usage.returncode == 0:
        result: dict[str, Any] = json.loads(output.read_text())
        return {**result, "cpu_s_of_process": usage.cpu_s}
    if usage.seconds >= limit_s:
        return {"failed": f"not done within {limit_s:g} s", "peak_memory_bytes": usage.peak_memory_bytes}
    lines = errors.read_text(errors="replace").strip().splitlines()
    return {"failed": lines[-1] if lines else f"ended with status {usage.returncode}"}


def not_started(
    name: str, size: int, earlier: Mapping[str, dict[str, Any]], limit_s: float
) -> dict[str, Any] | None:
    """Why an engine is not started; None when it may be done within the limit, by all that is known.

    `earlier`: results at smaller sizes, by size and name, as the command writes them.
    """
    sizes = {
        int(key.split()[0].replace(",", "")): result
        for key, result in earlier.items()
        if key.split()[1] == name and "seconds" in result
    }
    smaller = [count for count in sizes if count < size]
    if name == _OURS or not smaller:
        return None
    count = max(smaller)
    seconds = sizes[count]["seconds"]
    least_s = seconds * (size / count) ** (2 if name in EXHAUSTIVE else 1)
    if least_s <= limit_s:
        return None
    return {
        "failed": f"not started: {seconds:,.0f} s at {count:,} make at least {least_s:,.0f} s here, "
        f"the limit is {limit_s:g} s",
        "least_s": round(least_s),
    }


def measure(
    size: int,
    names: Sequence[str],
    threshold: float,
    *,
    threads: int,
    limit_s: float,
    earlier: Mapping[str, dict[str, Any]],
    judged: bool = True,
) -> dict[str, dict[str, Any]]:
    """One result for each engine, by its name. `earlier`: as for `not_started`."""
    say = Console(stderr=True).print
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as text:
        folder = Path(text)
        data = seed_data(size)
        data.write(folder / "objects.npz")
        for name in names:
            results[name] = not_started(name, size, earlier, limit_s) or _run_limited(
                name, folder, threshold, threads, limit_s
            )
            say(f"{size:,} {name}: {results[name].get('failed') or results[name]['seconds']}")
        done = {name: result for name, result in results.items() if "failed" not in result and judged}
        if done:
            truth = truth_of(data.vectors(), threshold, threads)
        for name, result in done.items():
            with np.load(folder / f"{name}.npz") as file:
                result.update(judge(truth, _keys(file["a"], file["b"]), file["labels"]))
    ours = results.get(_OURS, {}).get("seconds")
    for result in results.values():
        if ours and "seconds" in result:
            result["times_slower"] = round(result["seconds"] / ours, 2)
    return results


def _print(results: dict[str, dict[str, Any]]) -> None:
    table = Table(title="all pairs and their components")
    heads = "run,index,search,slower,peak,links found,wrong,missed,ARI,pair F"
    for number, head in enumerate(heads.split(",")):
        table.add_column(head, justify="right" if number else "left")
    for name, result in results.items():
        if "failed" in result:
            table.add_row(name, result["failed"])
            continue
        table.add_row(
            name,
            f"{result['index_s']:.2f} s",
            f"{result['search_s']:.2f} s",
            f"{result['times_slower']:.1f} x" if "times_slower" in result else "",
            f"{result['peak_memory_bytes'] / 1e6:,.0f} MB",
            *_judgement(result),
        )
    Console(width=None if Console().is_terminal else 140).print(table)


def _judgement(result: dict[str, Any]) -> tuple[str, ...]:
    if "links_true" not in result:
        return ()
    return (
        f"{result['links_found_share']:.4%}",
        f"{result['links_wrong']:,}",
        f"{result['links_missed']:,}",
        f"{result['adjusted_rand']:.4f}",
        f"{result['pairwise_f']:.4f}",
    )


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(ENGINES))
    if unknown:
        raise argparse.ArgumentTypeError(f"found {unknown[0]}, expected some of {', '.join(ENGINES)}")
    return names


def main(arguments: list[str] | None = None) -> int:
    """The command. Ends with status 1 when this product has a link wrong or missed, or did not finish."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--sizes", type=parse_sizes, default=[10_000, 100_000])
    parser.add_argument("--engines", type=_names, default=list(ENGINES), help=", ".join(ENGINES))
    parser.add_argument("--threshold", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit-s", type=float, default=600.0, help="for each engine and size")
    parser.add_argument(
        "--unjudged",
        action="store_true",
        help="time and memory alone: the truth of a million takes longer than all engines",
    )
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    parser.add_argument("--keep", action="store_true", help="add to the results that the file has")
    parser.add_argument("--run", choices=list(ENGINES), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run is not None:
        print(json.dumps(run_engine(options.run, options.folder, options.threshold, options.threads)))
        return 0
    before = environment()
    kept: dict[str, dict[str, Any]] = {}
    if options.keep and options.write is not None and options.write.exists():
        kept = json.loads(options.write.read_text())["results"]
    results: dict[str, dict[str, Any]] = {}
    engines = options.engines
    for size in sorted(options.sizes):
        found = measure(
            size,
            engines,
            options.threshold,
            threads=options.threads,
            limit_s=options.limit_s,
            earlier=kept | results,
            judged=not options.unjudged,
        )
        results |= {f"{size:,} {name}": result for name, result in found.items()}
        engines = [name for name in engines if "failed" not in found[name]]
    _print(results)
    names = ("sizes", "threshold", "threads", "limit_s", "unjudged")
    write_report(
        options.write,
        "peers",
        "make bench-peers",
        parameters={**{name: getattr(options, name) for name in names}, "tolerance": TOLERANCE},
        environment=before,
        results=results,
        keep=options.keep,
    )
    ours = [result for name, result in results.items() if name.endswith(f" {_OURS}")]
    right = options.unjudged or all(
        result.get("links_wrong") == 0 and result["links_missed"] == 0 for result in ours
    )
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())

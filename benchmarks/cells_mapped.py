"""A space whose codes lie in a mapped file, with memory enough for all of them and for a part.

    python -m benchmarks.cells_mapped --data FOLDER --objects N [--mapped] [--limit BYTES]     (one process)

Memory is limited by a control group (version 1 or 2), which takes rights that not every machine gives: the
result says when it could not be. Codes in memory end in a killed process there, codes in a file are read
again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cells_data import DIM, CodesFile, codes_file
from benchmarks.process import resident_memory_bytes
from benchmarks.streams import Stream, percentiles
from stream_cluster.matching import limit_threads
from stream_cluster.matching.cells import CellMatcher

EVENTS = 10_000
_GROUP = "stream-cluster-benchmark"
# Beside the codes: the interpreter, its libraries, facts of blocks, numbers of rows and slots.
_BESIDE_BYTES = 160 << 20


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The part `mapped` of `benchmarks.cells`."""
    codes_bytes = options.objects * DIM
    limit = _BESIDE_BYTES + codes_bytes // 2
    cases: dict[str, list[str]] = {
        "memory": [],
        "mapped": ["--mapped"],
        "mapped_half_fits": ["--mapped", "--limit", str(limit)],
        "memory_half_fits": ["--limit", str(limit)],
    }
    codes_file(options.data, "faces", options.objects)
    results = {}
    for name, more in cases.items():
        command = [sys.executable, "-m", "benchmarks.cells_mapped", "--data", str(options.data)]
        command += ["--objects", str(options.objects), *more]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            output, _ = process.communicate()
        results[name] = json.loads(output) if process.returncode == 0 else {"killed": process.returncode}
        with contextlib.suppress(OSError):
            _group(process.pid).rmdir()
        if "--limit" in more:
            results[name]["limit_bytes"] = limit
        print(f"  {name}: {results[name]}", flush=True)
    return {"objects": options.objects, "codes_bytes": codes_bytes, **results}


def _group(pid: int) -> Path:
    """The control group of a process."""
    first = Path("/sys/fs/cgroup/memory")
    return (first if first.is_dir() else Path("/sys/fs/cgroup")) / f"{_GROUP}-{pid}"


def _limited(limit: int) -> str | None:
    """Move this process into a group with so much memory; returns why that was not possible."""
    try:
        group = _group(os.getpid())
        group.mkdir()
        is_first_version = (group / "memory.limit_in_bytes").exists()
        (group / ("memory.limit_in_bytes" if is_first_version else "memory.max")).write_text(str(limit))
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        return f"{type(error).__name__}: {error.strerror}"
    return None


def _run(options: argparse.Namespace) -> dict[str, Any]:
    unlimited = _limited(options.limit) if options.limit else None
    if unlimited is not None:
        return {"not_limited": unlimited}
    codes = CodesFile(codes_file(options.data, "faces", options.objects)[0])
    with tempfile.TemporaryDirectory(dir=options.data) as folder:
        matcher = CellMatcher(DIM, folder=Path(folder) if options.mapped else None)
        stream = Stream(matcher, codes)
        resident = options.objects - EVENTS
        # Cells of a tenth, then the rest without a search: it is the events behind that count.
        stream.run(resident // 10, search_every=1000)
        matcher.wait_until_trained()
        stream.run(resident, search_every=1000)
        matcher.wait_until_trained()
        stream.latencies_s.clear()
        seconds = stream.run(options.objects)
        return {
            "events_s": round(EVENTS / seconds),
            **percentiles(stream.latencies_s),
            "file_bytes": matcher.store.packed.file_bytes,
            "resident_memory_bytes": resident_memory_bytes(),
            "recall_measured": matcher.recall().as_dict(),
        }


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cells_mapped",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--objects", type=int, required=True)
    parser.add_argument("--mapped", action="store_true", help="codes in a mapped file")
    parser.add_argument("--limit", type=int, default=0, help="bytes of memory for this process")
    limit_threads(0)
    print(json.dumps(_run(parser.parse_args(arguments))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

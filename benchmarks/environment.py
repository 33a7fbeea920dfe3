"""The machine and the versions that a result was measured with. No host name, no path."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

# CPU features that decide which kernels can run.
_FLAGS = (
    "sse4_2",
    "avx2",
    "fma",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
_LIBRARIES = (
    "numpy",
    "scipy",
    "hnswlib",
    "faiss-cpu",
    "usearch",
    "scikit-learn",
    "msgspec",
    "aiokafka",
    "aiohttp",
    "confluent-kafka",
)


def environment() -> dict[str, Any]:
    """Everything a reader needs to judge a figure, ready for JSON. Call it before the measurement starts."""
    cpu = _cpu_info()
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "cpu_flags": _flags_of(cpu),
        "cores": _usable_cores(),
        "memory_bytes": _memory_bytes(),
        "os": f"{platform.system()} {platform.release()}",
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        "python": platform.python_version(),
        "libraries": _library_versions(),
        "blas": _blas(),
    }


def _cpu_info() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is no such file."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text().split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _flags_of(cpu: dict[str, str]) -> list[str]:
    # x86 calls them flags, ARM features.
    present = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return [flag for flag in _FLAGS if flag in present]


def _usable_cores() -> int:
    """Processors this process may run on, which in a container are fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _commit() -> str | None:
    """The checked-out commit, with `+changes` when files differ from it; None outside a clone."""
    folder = Path(__file__).parent
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+changes" if changed else commit


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _library_versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _blas() -> str | None:
    """Name and version of the BLAS that NumPy was built with."""
    import numpy as np  # noqa: PLC0415 - only this entry needs it

    blas: dict[str, Any] = dict(np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {}))
    return f"{blas['name']} {blas.get('version', '')}".strip() if "name" in blas else None

"""Many small accounts in one partition: memory and time of each, busy and idle.

    python -m benchmarks.accounts [--accounts 100000] [--write benchmarks/results/accounts.json]

`fill` takes the objects in batches of 1024, the accounts one after another. `idle` is a process that opens
this state: how long that takes, and the memory of an account that nobody uses. `mixed` are batches of 1024
new objects of as many accounts, chosen evenly, which is the worst case: hardly one of them is in memory.
`task` clusters one account.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from benchmarks.deletes import make_partition
from benchmarks.environment import environment
from benchmarks.process import peak_memory_bytes, resident_memory_bytes
from benchmarks.report import write_report
from stream_cluster.config import Settings
from stream_cluster.messages import Content, Descriptor, Metadata, ObjectMessage, TaskRequest
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import run_snapshot
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition

OBJECTS = 10
"""Of each account."""
_BATCH = 1024
_MIXED_BATCHES = 20
_TIME_US = 1_777_000_000_000_000


def upserts(accounts: npt.NDArray[np.int64], first: int, dim: int) -> list[ObjectMessage]:
    """An object for each entry; every account has a person of its own, and some strangers."""
    random = np.random.default_rng([first, 1])
    noise = random.standard_normal((len(accounts), dim), dtype=np.float32)
    people = np.random.default_rng(7).standard_normal((257, dim), dtype=np.float32)
    is_stranger = random.random(len(accounts)) < 0.3
    vectors = noise + np.where(is_stranger[:, None], 0, 1.5) * people[accounts % 257]
    return [
        ObjectMessage(
            account_id=f"account-{account:07}",
            object_type="event",
            action="upsert",
            object_ids=(f"object-{number:09}",),
            metadata=Metadata(create_time_us=_TIME_US + number * 1000, source="cam"),
            descriptors=(Descriptor("face", 1, vector.astype(np.float32)),),
        )
        for number, account, vector in zip(
            range(first, first + len(accounts)), accounts.tolist(), vectors, strict=True
        )
    ]


def _apply(partition: Partition, accounts: npt.NDArray[np.int64], dim: int) -> Iterator[float]:
    """Seconds of each batch, without making its messages."""
    for begin in range(0, len(accounts), _BATCH):
        part = accounts[begin : begin + _BATCH]
        messages = upserts(part, partition.next_offset, dim)
        began = time.perf_counter()
        partition.commit(partition.prepare_decoded(messages, partition.next_offset + len(messages)))
        yield time.perf_counter() - began


def fill(folder: Path, accounts: int, dim: int) -> dict[str, Any]:
    """Ingest all accounts."""
    partition = make_partition(folder)
    before = resident_memory_bytes()
    seconds = sum(_apply(partition, np.repeat(np.arange(accounts), OBJECTS), dim))
    grown = resident_memory_bytes() - before
    partition.close()
    return {
        "objects": accounts * OBJECTS,
        "objects_per_s": round(accounts * OBJECTS / seconds),
        "memory_mb": round(grown / 1e6, 1),
        "memory_bytes_per_account": round(grown / accounts),
        "database_bytes_per_account": round(database_path(folder, 0).stat().st_size / accounts),
    }


def use(folder: Path, accounts: int, dim: int) -> dict[str, Any]:
    """What a process that opens the state measures."""
    before = resident_memory_bytes()
    began = time.perf_counter()
    partition = make_partition(folder)
    open_s = time.perf_counter() - began
    idle = resident_memory_bytes() - before
    chosen = np.random.default_rng(3).integers(accounts, size=_MIXED_BATCHES * _BATCH)
    batches = list(_apply(partition, chosen, dim))
    busy = resident_memory_bytes() - before
    began = time.perf_counter()
    objects = _task(partition, folder)
    task_s = time.perf_counter() - began
    partition.close()
    return {
        "idle": {
            "open_s": round(open_s, 3),
            "open_us_per_account": round(open_s * 1e6 / accounts, 1),
            "memory_mb": round(idle / 1e6, 1),
            "memory_bytes_per_account": round(idle / accounts),
        },
        "mixed": {
            "objects_per_s": round(len(chosen) / sum(batches)),
            "batch_ms_p50": round(float(np.median(batches)) * 1000, 1),
            "batch_ms_max": round(max(batches) * 1000, 1),
            "memory_mb": round(busy / 1e6, 1),
            "peak_memory_mb": round(peak_memory_bytes() / 1e6, 1),
        },
        "task": {"objects": objects, "seconds": round(task_s, 3)},
    }


def _task(partition: Partition, folder: Path) -> int:
    task = TaskRequest(
        task_id="task",
        account_id="account-0000000",
        content=Content(objects_type="events", threshold=0.5),
    )
    request = resolve_request(task, Settings(), _TIME_US * 2)
    with partition.view() as view:
        result = run_snapshot(
            view, request, folder / "task.zip", interrupt=Interrupt(), progress=no_progress, as_of=None
        )
    return result.objects


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accounts", description=__doc__)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--use", type=Path, help="only open the state in this folder, and print JSON")
    parser.add_argument("--write", type=Path, help="result as JSON")
    options = parser.parse_args()
    if options.use is not None:
        print(json.dumps(use(options.use, options.accounts, options.dim)))
        return
    measured_on = environment()
    with tempfile.TemporaryDirectory(prefix="stream-cluster-accounts-") as name:
        folder = Path(name)
        results = {"fill": fill(folder, options.accounts, options.dim)}
        Console().print(results)
        command = [sys.executable, "-m", "benchmarks.accounts", "--use", name]
        command += ["--accounts", str(options.accounts), "--dim", str(options.dim)]
        results |= json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    Console().print(results)
    write_report(
        options.write,
        "accounts",
        "make bench-accounts",
        parameters={"accounts": options.accounts, "objects_of_each": OBJECTS, "dim": options.dim},
        environment=measured_on,
        results=results,
    )


if __name__ == "__main__":
    main()

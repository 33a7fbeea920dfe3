"""`make soak`: run for some minutes from a seed, or replay a trace. Exit status 1 when something differs."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.environment import environment
from benchmarks.report import write_report
from stream_cluster.sandbox import start_local_broker
from stream_cluster.sandbox.broker import BrokerOptions
from tests.soak import steps
from tests.soak.drive import Soak


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long new steps are taken up")
    parser.add_argument("--seed", type=int, help="of the steps; chosen and printed when absent")
    parser.add_argument("--trace", type=Path, help="do the steps of this trace, and no others")
    parser.add_argument(
        "--folder", type=Path, default=Path("soak-output"), help="for traces, logs and states"
    )
    parser.add_argument("--write", type=Path, help="result as JSON")
    return parser.parse_args()


def _until(plan: steps.Plan, minutes: float) -> Iterator[steps.Step]:
    deadline = time.monotonic() + minutes * 60
    for step in plan:
        if time.monotonic() > deadline:
            return
        yield step


def main() -> int:
    """Run a soak; the exit status."""
    options = _arguments()
    # Brokers that are away are what it is about: the client library has a line about each attempt.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    if options.trace is not None:
        seed, work = steps.read_trace(options.trace)
    else:
        seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
        work = _until(steps.Plan(seed), options.minutes)
    print(f"seed {seed}", flush=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"run-{seed}-", dir=options.folder))
    trace = folder / "trace.jsonl"
    steps.write_header(trace, seed)
    print(f"trace {trace}; replay it with: make soak TRACE={trace}", flush=True)
    measured_on = environment()
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:7.1f} s  {text}", flush=True)

    def write(soak: Soak, *, finished: bool) -> None:
        results = {
            "minutes": round((time.monotonic() - began) / 60, 2),
            "finished": finished,
            "objects_lost": sum(difference.lost for difference in soak.differences),
            "objects_duplicated": sum(difference.duplicated for difference in soak.differences),
            "differences": len(soak.differences),
            **{name.replace(".", "_"): count for name, count in sorted(soak.counts.items())},
        }
        write_report(
            options.write,
            "soak",
            "make soak",
            parameters={"minutes": options.minutes, "seed": seed},
            environment=measured_on,
            results=results,
        )

    with start_local_broker(BrokerOptions(), tell) as broker:
        # A run that is stopped leaves what it has compared until then.
        soak = Soak(broker, folder.resolve(), tell, lambda: write(soak, finished=False))
        asyncio.run(soak.run(work, lambda step: steps.append_step(trace, step)))
    write(soak, finished=True)
    tell(f"{len(soak.differences)} differences; {dict(sorted(soak.counts.items()))}")
    return int(bool(soak.differences))


if __name__ == "__main__":
    sys.exit(main())

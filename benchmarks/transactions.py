"""What it costs that a partition's outputs are written in transactions: the service with and without them.

    python -m benchmarks.transactions [--events 20000] [--write benchmarks/results/transactions.json]

The whole service on a real broker, one partition, each run on topics of its own, in turns. `backlog` runs
send as fast as the broker takes it, `paced` ones a fixed rate, for the latency from sending an event until it
is durable. In `rejected`, a tenth of the events is bad, so that nearly every batch writes dead letters before
its commit; with `updates`, every batch has cluster updates, which are told beside ingest. In `nothing told`,
nothing is written for others.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import environment
from benchmarks.report import write_report
from benchmarks.service_run import print_runs, run_service, summarise
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker, start_broker

_BAD_EVERY = 10
_FIGURES = ("events_per_s", "latency_ms", "batches", "cpu_s")


def _events(count: int, dim: int, *, with_bad: bool) -> list[tuple[bytes, bytes]]:
    """Key and value of each event, after one to warm up; of bad ones the value is no message."""
    options = GenerateOptions(events=count + 1, people=count // 6, dim=dim, accounts=("bench",))
    return [
        (record.key, b"{" if with_bad and number and number % _BAD_EVERY == 0 else record.value)
        for number, record in enumerate(generate_events(options))
    ]


def measure(broker: Broker, folder: Path, count: int, dim: int, rate: float) -> dict[str, Any]:
    """All runs, by name; each kind with transactions and without."""
    good, mixed = (_events(count, dim, with_bad=with_bad) for with_bad in (False, True))
    paced = mixed[: round(rate * 10) + 1]
    kinds: list[tuple[str, list[tuple[bytes, bytes]], float | None, dict[str, str]]] = [
        ("nothing told, backlog", good, None, {}),
        ("rejected, backlog", mixed, None, {}),
        ("rejected, paced", paced, rate, {}),
        ("updates, backlog", good, None, {"UPDATES__ENABLED": "true"}),
    ]
    results: dict[str, Any] = {}
    for place, (kind, events, pace, settings) in enumerate(kinds):
        for way in ("with", "without") if place % 2 else ("without", "with"):
            name = f"transactions-{place}-{way}"
            chosen = {
                "KAFKA__TRANSACTIONS": str(way == "with").lower(),
                "KAFKA__UPDATES_TOPIC": f"{name}-updates",
                **settings,
            }
            run = run_service(broker, folder, name, events, rate=pace, settings=chosen)
            found = summarise(run)
            results[f"{kind}, {way}"] = {figure: found[figure] for figure in _FIGURES}
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transactions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--rate", type=float, default=500.0, help="events a second of the paced runs")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    chosen = parser.parse_args(arguments)
    before = environment()
    with tempfile.TemporaryDirectory(prefix="stream-cluster-benchmark-") as name, start_broker() as broker:
        results = measure(broker, Path(name), chosen.events, chosen.dim, chosen.rate)
        kind = broker.description
    print_runs("transactions", results)
    write_report(
        chosen.write,
        "transactions",
        "make bench-transactions",
        parameters={"events": chosen.events, "dim": chosen.dim, "rate": chosen.rate},
        broker=kind.split(",")[0],
        environment=before,
        results=results,
    )


if __name__ == "__main__":
    main()

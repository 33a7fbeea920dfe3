"""Ingest through a real broker: events a second, time from produce to durable, memory, time by stage.

    python -m benchmarks.ingest [--events 20000] [--rate 1000] [--write benchmarks/results/ingest.json]

The broker, the producer and the service share the machine, as processes of their own. Two runs, each with an
empty state and topics of its own:

backlog   all events are sent as fast as the broker takes them; the rate is events divided by the time from
          the first send to the last durable commit.
paced     events are sent at --rate a second; the latency is from the call that sends an event to the commit
          that made it durable (fsync included).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.environment import environment
from benchmarks.report import write_report
from benchmarks.service_run import print_runs, run_service, summarise
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import start_broker


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=20_000, help="events of each run")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--rate", type=float, default=1000.0, help="events a second of the paced run")
    parser.add_argument("--write", type=Path, help="write the results as JSON")
    arguments = parser.parse_args()
    before = environment()
    options = GenerateOptions(events=arguments.events + 1, dim=arguments.dim)
    events = [(record.key, record.value) for record in generate_events(options)]
    results = {}
    with start_broker() as broker, tempfile.TemporaryDirectory() as folder:
        for name, rate in (("backlog", None), ("paced", arguments.rate)):
            results[name] = summarise(run_service(broker, Path(folder), name, events, rate=rate))
        kind = broker.description
    print_runs("ingest", results)
    write_report(
        arguments.write,
        "ingest",
        "make bench-ingest",
        parameters={"events": arguments.events, "dim": arguments.dim, "rate": arguments.rate},
        broker=kind.split(",")[0],
        environment=before,
        results=results,
    )


if __name__ == "__main__":
    main()

"""`stream-cluster produce`: files to the events topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from stream_cluster.cli import options
from stream_cluster.cli.display import print_facts, print_json, progress_display
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.cli.signals import stoppable
from stream_cluster.errors import InputError
from stream_cluster.model import Interrupt

if TYPE_CHECKING:
    from stream_cluster.offline.sources import OnBytes, Source
    from stream_cluster.service.produce import Line

EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster produce events.jsonl.gz --bootstrap-servers localhost:9092

stream-cluster generate --events 10000 | stream-cluster produce - --rate 500

Messages are keyed by account_id and acknowledged by all in-sync replicas. TLS and SASL are settings.

{EXIT_CODES_HELP}"""


def produce(
    files: Annotated[
        list[str],
        typer.Argument(help="JSON lines, gzipped or not, `-` for standard input.", metavar="FILE..."),
    ],
    bootstrap_servers: options.BootstrapServers = None,
    topic: Annotated[
        str | None,
        typer.Option(
            "--topic", help="Else kafka.events_topic of the settings.", rich_help_panel="Connection"
        ),
    ] = None,
    config: options.ConfigFile = None,
    rate: Annotated[
        float | None, typer.Option("--rate", help="At most so many messages per second.", metavar="N")
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Send the object messages of files to Kafka, as cameras would."""
    import asyncio

    from stream_cluster.cli.kafka_logs import quiet_logs
    from stream_cluster.offline.sources import find_sources
    from stream_cluster.service.produce import produce_lines

    if rate is not None and not 0 < rate < float("inf"):
        raise InputError(f"--rate: found {rate:g}, expected a number above 0")
    settings = options.settings_of(config, bootstrap_servers=bootstrap_servers, kafka__events_topic=topic)
    sources = find_sources(files)
    for source in sources:
        if source.kind == "vectors":
            raise InputError(f"{source.name}: found an .npz, expected JSON lines")
    quiet_logs()
    sizes = [source.size_bytes for source in sources]
    total = 0 if None in sizes else sum(size or 0 for size in sizes)
    read = 0

    def on_read(count: int) -> None:
        nonlocal read
        read += count

    with stoppable("what was sent is acknowledged") as interrupt, progress_display() as progress:
        lines = _lines(sources, settings.kafka.max_message_bytes, interrupt, on_read)
        summary = asyncio.run(
            produce_lines(
                lines,
                settings.kafka,
                rate=rate,
                interrupt=interrupt,
                on_sent=lambda sent: progress(
                    "sending", min(read / total, 1.0) if total else 0.0, f"{sent:,} messages"
                ),
            )
        )
    facts = {
        "topic": settings.kafka.events_topic,
        "messages": summary.events,
        "value_bytes": summary.value_bytes,
        "seconds": round(summary.seconds, 3),
        "messages_per_second": round(summary.events_per_second, 1),
    }
    if as_json:
        print_json(facts)
    else:
        print_facts({name.replace("_", " "): value for name, value in facts.items()})


def _lines(
    sources: Sequence[Source], max_line_bytes: int, interrupt: Interrupt, on_read: OnBytes
) -> Iterator[Line]:
    from stream_cluster.offline.sources import read_lines
    from stream_cluster.service.produce import Line

    for source in sources:
        for number, data in read_lines(source, max_line_bytes, interrupt, on_read):
            yield Line(f"{source.name}:{number}", data)

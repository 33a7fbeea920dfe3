"""`stream-cluster run`: the service."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_cluster.cli import options
from stream_cluster.cli.failures import EXIT_CODES_HELP

EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster run --config stream-cluster.toml

STREAM_CLUSTER_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 stream-cluster run

`stream-cluster check-config` prints every setting. SIGTERM finishes the batch under way and leaves.

{EXIT_CODES_HELP}"""


def run(
    config: options.ConfigFile = None,
    bootstrap_servers: options.BootstrapServers = None,
    accept_gap: Annotated[
        bool,
        typer.Option(
            "--accept-gap", help="Go on though Kafka no longer has records that the state needs; it is noted."
        ),
    ] = False,
) -> None:
    """Run the service: consume objects, link them, answer tasks, until SIGTERM or Ctrl-C."""
    from stream_cluster.service.app import run_service

    settings = options.settings_of(config, bootstrap_servers=bootstrap_servers)
    raise typer.Exit(run_service(settings, accept_gap=accept_gap))

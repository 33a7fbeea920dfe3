"""The `stream-cluster` command: its subcommands and the options of all of them."""

from __future__ import annotations

from typing import Annotated

import typer

from stream_cluster import __version__
from stream_cluster.cli import (
    backup,
    calibrate,
    cluster,
    clusters,
    config,
    erase,
    evaluate,
    generate,
    inspect,
    produce,
    service,
    tasks,
    thresholds,
)
from stream_cluster.cli.failures import DEBUG_VARIABLE, EXIT_CODES_HELP, Commands

app = typer.Typer(
    name="stream-cluster",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES_HELP,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stream-cluster {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help=f"Show where an error came from; also with {DEBUG_VARIABLE}=1.")
    ] = False,
) -> None:
    """Group faces and bodies by similarity while they arrive on Kafka."""


app.command(epilog=service.EPILOG)(service.run)
app.command(epilog=cluster.EPILOG)(cluster.cluster)
app.command(epilog=produce.EPILOG)(produce.produce)
app.add_typer(tasks.app, name="task")
app.command(epilog=erase.EPILOG)(erase.erase)
app.command(epilog=generate.EPILOG)(generate.generate)
app.command(epilog=inspect.EPILOG)(inspect.inspect)
app.command(epilog=backup.BACKUP_EPILOG)(backup.backup)
app.command(epilog=backup.RESTORE_EPILOG)(backup.restore)
app.command(epilog=backup.VERIFY_EPILOG)(backup.verify)
app.command(epilog=calibrate.EPILOG)(calibrate.calibrate)
app.command(epilog=evaluate.EPILOG)(evaluate.evaluate)
app.command(epilog=thresholds.EPILOG)(thresholds.thresholds)
app.command(epilog=clusters.EPILOG)(clusters.clusters)
app.command(epilog=config.SCHEMA_EPILOG)(config.schema)
app.command(name="check-config", epilog=config.CHECK_EPILOG)(config.check_config)


def main() -> None:
    """Entry point of the installed command; ends the process with the exit code."""
    app(prog_name="stream-cluster")

"""`stream-cluster task list`: what the results topic knows of tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stream_cluster.cli import options
from stream_cluster.cli.display import print_json, print_table
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.cli.signals import run_until_interrupted

if TYPE_CHECKING:
    from rich.table import Table

    from stream_cluster.messages import TaskStatus

State = Literal["pending", "in_progress", "done", "failed", "cancelled"]

EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster task list --account acme --status in_progress

{EXIT_CODES_HELP}"""


def list_tasks(
    account: Annotated[
        str | None, typer.Option("--account", help="Only tasks of this account.", metavar="ID")
    ] = None,
    status: Annotated[State | None, typer.Option("--status", help="Only tasks that stand so.")] = None,
    bootstrap_servers: options.BootstrapServers = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """List tasks as the results topic knows them: the latest status of each. Changes nothing."""
    import msgspec

    from stream_cluster.cli.kafka_logs import quiet_logs
    from stream_cluster.service.task_client import TaskClient

    settings = options.settings_of(config, bootstrap_servers=bootstrap_servers)

    async def read() -> list[TaskStatus]:
        async with TaskClient(settings) as client:
            return await client.latest(account)

    quiet_logs()
    found = [one for one in run_until_interrupted(read()) if status in {None, one.status}]
    if as_json:
        print_json({"tasks": [msgspec.to_builtins(one) for one in found]})
    elif found:
        print_table(_table(found))
    else:
        typer.echo("no tasks", err=True)


def _table(statuses: list[TaskStatus]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("account", "task", "status", "progress", "time", "archive"):
        table.add_column(name, overflow="fold", justify="right" if name == "progress" else "left")
    for one in statuses:
        archive = one.archive_removed or (one.error.code if one.error else None)
        archive = archive or (one.archive.url if one.archive else "")
        share = f"{one.progress:.0%}"
        table.add_row(one.account_id, one.task_id, one.status, share, one.time, archive)
    return table

"""`stream-cluster task`: submit, watch, list, cancel and delete tasks of a running service, by its topics."""

from __future__ import annotations

import uuid
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_cluster.cli import options, task_list
from stream_cluster.cli.display import place_of, print_facts, print_json, warn
from stream_cluster.cli.failures import EXIT_CODES_HELP, FAILED, NO_ANSWER, say_error
from stream_cluster.cli.signals import run_until_interrupted
from stream_cluster.cli.task_progress import TaskProgress, task_progress, warn_of
from stream_cluster.errors import InputError

if TYPE_CHECKING:
    from stream_cluster.config import Settings
    from stream_cluster.messages import CancelRequest, DeleteRequest, TaskStatus

_WAIT_EPILOG = """\
With --wait, the last line of stdout is the archive's location; code 1 means failed or cancelled, 3 that
--timeout-s passed first."""

SUBMIT_EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster task submit --account acme --descriptor-type face --threshold 0.55 --wait

stream-cluster task submit --account acme --filters april.json --columns create_time,source --wait --json

{_WAIT_EPILOG}

{EXIT_CODES_HELP}"""

WATCH_EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster task watch 7d5e0c1a --account acme --timeout-s 60

{_WAIT_EPILOG}

{EXIT_CODES_HELP}"""

CANCEL_EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster task cancel 7d5e0c1a --account acme --wait

With --wait, code 0 means that the task was cancelled.

{EXIT_CODES_HELP}"""

DELETE_EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster task delete 7d5e0c1a --account acme --wait

With --wait, code 0 means that there is no archive any more.

{EXIT_CODES_HELP}"""

app = typer.Typer(
    help="Submit, watch, list, cancel and delete tasks of a running service.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

app.command(name="list", epilog=task_list.EPILOG)(task_list.list_tasks)

Account = Annotated[str, typer.Option("--account", help="Account of the task.", metavar="ID")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the end and show the progress.")]
Timeout = Annotated[
    float | None, typer.Option("--timeout-s", help="Stop waiting after so many seconds.", metavar="SECONDS")
]
TaskId = Annotated[str, typer.Argument(help="Id of the task.", metavar="TASK_ID")]


@app.command(epilog=SUBMIT_EPILOG)
def submit(
    account: Account,
    descriptor_type: options.DescriptorTypeOption = "face",
    threshold: options.ThresholdOption = None,
    object_type: options.ObjectTypeOption = "event",
    descriptor_version: options.DescriptorVersionOption = None,
    use_track_info: options.UseTrackInfoOption = False,
    filters: options.FiltersOption = None,
    linkage: options.LinkageOption = "components",
    min_quality: options.MinQualityOption = None,
    cannot_link: options.CannotLinkOption = None,
    save_images: options.SaveImagesOption = False,
    columns: options.ColumnsOption = None,
    description: Annotated[
        str | None, typer.Option("--description", help="For people.", rich_help_panel="The result")
    ] = None,
    deadline_s: Annotated[
        float | None,
        typer.Option(
            "--deadline-s",
            help="The task fails when not done so long after it was read.",
            rich_help_panel="The result",
        ),
    ] = None,
    callback_url: Annotated[
        str | None,
        typer.Option(
            "--callback-url",
            help="http(s) URL that the last status is posted to.",
            rich_help_panel="The result",
        ),
    ] = None,
    result_ttl_s: Annotated[
        int | None,
        typer.Option(
            "--result-ttl-s",
            help="How long the archive is to be kept; else results.ttl_s of the settings.",
            rich_help_panel="The result",
        ),
    ] = None,
    task_id: options.TaskIdOption = None,
    wait: Wait = False,
    timeout_s: Timeout = None,
    bootstrap_servers: options.BootstrapServers = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Submit a task; the service clusters what its account has now.

    Without --task-id the task gets a new random id, which is printed. An id that the account used before
    names the same task, so nothing is done again.
    """
    from stream_cluster.service.task_client import TaskClient

    _check_timeout(timeout_s, wait=wait)
    selection = options.Selection(
        descriptor_type,
        threshold,
        object_type,
        descriptor_version,
        use_track_info,
        filters,
        linkage,
        min_quality,
        cannot_link,
        save_images,
        columns,
    )
    more = {
        "description": description,
        "deadline_s": deadline_s,
        "callback_url": callback_url,
        "result_ttl_s": result_ttl_s,
    }
    given = {name: value for name, value in more.items() if value is not None}
    task = options.make_task(selection, task_id or uuid.uuid4().hex, account, **given)
    settings = options.settings_of(config, bootstrap_servers=bootstrap_servers)

    async def send(progress: TaskProgress) -> TaskStatus | None:
        async with TaskClient(settings) as client:
            if not wait:
                await client.send(task)
                return None
            if task_id is None:
                return await client.submit(task, on_status=progress, timeout_s=timeout_s)
            # The id may have been used before; then its statuses lie in the past.
            await client.send(task)
            return await client.watch(account, task_id, on_status=progress, timeout_s=timeout_s)

    with task_progress() as progress:
        status = _run(send(progress), account, task.task_id)
    if wait:
        _end(status, timeout_s, as_json=as_json)
    elif as_json:
        print_json({"task_id": task.task_id, "account_id": account})
    else:
        typer.echo(task.task_id)


@app.command(epilog=WATCH_EPILOG)
def watch(
    task_id: TaskId,
    account: Account,
    timeout_s: Timeout = None,
    bootstrap_servers: options.BootstrapServers = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Show the state of a task and follow it to its end."""
    from stream_cluster.service.task_client import TaskClient

    _check_timeout(timeout_s, wait=True)
    settings = options.settings_of(config, bootstrap_servers=bootstrap_servers)

    async def follow(progress: TaskProgress) -> TaskStatus | None:
        async with TaskClient(settings) as client:
            return await client.watch(account, task_id, on_status=progress, timeout_s=timeout_s)

    with task_progress() as progress:
        status = _run(follow(progress), account, task_id)
    _end(status, timeout_s, as_json=as_json)


@app.command(epilog=CANCEL_EPILOG)
def cancel(
    task_id: TaskId,
    account: Account,
    wait: Wait = False,
    timeout_s: Timeout = None,
    bootstrap_servers: options.BootstrapServers = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Cancel a task. One that has ended stays as it is."""
    _check_timeout(timeout_s, wait=wait)
    request = options.make_request("cancel", task_id, account)
    settings = options.settings_of(config, bootstrap_servers=bootstrap_servers)
    status = _ask(request, settings, timeout_s, wait=wait)
    if not wait:
        print_json({"task_id": task_id, "account_id": account}) if as_json else typer.echo(task_id)
        return
    if status is not None and status.status == "cancelled":
        print_json(_as_dict(status)) if as_json else typer.echo("cancelled")
        return
    _end(status, timeout_s, as_json=as_json)
    say_error("the task had ended before it could be cancelled")
    raise typer.Exit(FAILED)


@app.command(epilog=DELETE_EPILOG)
def delete(
    task_id: TaskId,
    account: Account,
    wait: Wait = False,
    timeout_s: Timeout = None,
    bootstrap_servers: options.BootstrapServers = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete the archive of a task. One that has not ended is cancelled first."""
    _check_timeout(timeout_s, wait=wait)
    request = options.make_request("delete", task_id, account)
    settings = options.settings_of(config, bootstrap_servers=bootstrap_servers)
    status = _ask(request, settings, timeout_s, wait=wait)
    if not wait:
        print_json({"task_id": task_id, "account_id": account}) if as_json else typer.echo(task_id)
    elif status is not None and status.archive_removed is not None:
        print_json(_as_dict(status)) if as_json else typer.echo(status.archive_removed)
    elif status is not None and status.error is not None and status.error.code == "unknown_task":
        _end(status, timeout_s, as_json=as_json)
    else:
        say_error(f"no worker has deleted it within {timeout_s:g} s; does the service run?")
        raise typer.Exit(NO_ANSWER)


def _ask(
    request: CancelRequest | DeleteRequest, settings: Settings, timeout_s: float | None, *, wait: bool
) -> TaskStatus | None:
    """Send a request about a task; with `wait`, follow the task to what the request is after."""
    from stream_cluster.messages import DeleteRequest
    from stream_cluster.service.task_client import TaskClient, has_ended, is_deleted

    is_last = is_deleted if isinstance(request, DeleteRequest) else has_ended

    async def send(progress: TaskProgress) -> TaskStatus | None:
        async with TaskClient(settings) as client:
            await client.send(request)
            if not wait:
                return None
            return await client.watch(
                request.account_id, request.task_id, on_status=progress, timeout_s=timeout_s, is_last=is_last
            )

    with task_progress() as progress:
        return _run(send(progress), request.account_id, request.task_id)


def _check_timeout(timeout_s: float | None, *, wait: bool) -> None:
    if timeout_s is not None and not wait:
        raise InputError("--timeout-s has no effect without --wait")
    if timeout_s is not None and not 0 <= timeout_s < float("inf"):
        raise InputError(f"--timeout-s: found {timeout_s:g}, expected 0 or more")


def _run(work: Coroutine[Any, Any, TaskStatus | None], account: str, task_id: str) -> TaskStatus | None:
    from stream_cluster.cli.kafka_logs import quiet_logs

    quiet_logs()
    try:
        return run_until_interrupted(work)
    except KeyboardInterrupt:
        typer.echo(
            f"the task goes on; stream-cluster task watch {task_id} --account {account} follows it", err=True
        )
        raise


def _end(status: TaskStatus | None, timeout_s: float | None, *, as_json: bool) -> None:
    """Print the final status and leave with its exit code."""
    if status is None:
        say_error(f"no worker has answered within {timeout_s:g} s; does the service run?")
        raise typer.Exit(NO_ANSWER)
    if as_json:
        print_json(_as_dict(status))
    if not status.ended:
        to_go = f", {status.records_to_barrier} records to go" if status.records_to_barrier else ""
        share = f" ({status.stage}, {status.progress:.0%}{to_go})" if status.stage else ""
        say_error(f"the task is {status.status}{share} after {timeout_s:g} s")
        raise typer.Exit(NO_ANSWER)
    if status.status != "done":
        fault = status.error
        say_error(f"{fault.code}: {fault.message}" if fault else f"the task was {status.status}")
        raise typer.Exit(FAILED)
    warn_of(status)
    if not as_json:
        _print_done(status)


def _print_done(status: TaskStatus) -> None:
    facts: dict[str, Any] = {
        "objects": status.objects,
        "clusters": status.clusters,
        "largest cluster": status.largest_cluster,
        "threshold": status.threshold,
        "seconds": status.duration_s,
    }
    if status.as_of is not None:
        facts["as of"] = f"{status.as_of.topic}/{status.as_of.partition} at {status.as_of.next_offset:,}"
    print_facts(facts)
    if status.archive is None:
        warn("the status names no archive")
        return
    typer.echo(place_of(status.archive.url))


def _as_dict(status: TaskStatus) -> Any:
    import msgspec

    return msgspec.to_builtins(status)

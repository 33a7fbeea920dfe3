"""`stream-cluster erase`: delete objects of an account by hand, and find the archives that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stream_cluster.cli import options
from stream_cluster.cli.display import place_of, print_facts, print_json, warn
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.cli.signals import stoppable
from stream_cluster.errors import InputError
from stream_cluster.model import Interrupt, ObjectType

if TYPE_CHECKING:
    from stream_cluster.service.produce import Line
    from stream_cluster.service.result_store import ResultStore
    from stream_cluster.snapshot.holders import Holder

EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster erase --account acme --object e-17 --object e-18 --archives

stream-cluster erase --account acme --yes

Without --object, everything of the account is deleted. The service deletes when it reads the records, so a
task that is under way now may still write an archive with the objects: run the command again afterwards.
Archives are those in results.directory or the bucket of results.s3, as this command sees it.

{EXIT_CODES_HELP}"""

_IDS_PER_RECORD = 1000


def erase(
    account: Annotated[str, typer.Option("--account", help="Account whose objects are deleted.")],
    objects: Annotated[
        list[str] | None,
        typer.Option("--object", help="Id of an object; repeat it for more. Else all.", metavar="ID"),
    ] = None,
    object_type: Annotated[
        ObjectType | None,
        typer.Option("--object-type", help="Else events where ids are given, both types where not."),
    ] = None,
    archives: Annotated[
        bool, typer.Option("--archives", help="Delete the archives that hold an erased object.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    bootstrap_servers: options.BootstrapServers = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete objects from the running service for good, and list the archives that hold them."""
    from stream_cluster.service.result_store import make_store

    settings = options.settings_of(config, bootstrap_servers=bootstrap_servers)
    ids = list(dict.fromkeys(objects or ()))
    if ids and object_type is None:
        object_type = "event"
    lines = _lines(account, ids, object_type)
    _confirm(account, ids, object_type, archives=archives, yes=yes)
    with stoppable("what was sent is acknowledged") as interrupt:
        records = _send(lines, settings.kafka, interrupt)
        store = make_store(settings)
        places = {place_of(store.url(name)): name for name in sorted(store.names(account))}
        holders, unreadable = _search(store, places, object_type, ids, interrupt)
    for holder in unreadable:
        warn(f"archive {holder.name}: cannot be searched: {holder.problem}")
    if archives:
        for holder in holders:
            store.delete(places[holder.name])
    _report(
        {
            "account_id": account,
            "topic": settings.kafka.events_topic,
            "objects": len(ids) if ids else None,
            "records": records,
            "archives": [holder.name for holder in holders],
            "archives_deleted": len(holders) if archives else 0,
            "archives_unreadable": [holder.name for holder in unreadable],
        },
        as_json=as_json,
    )


def _lines(account: str, ids: Sequence[str], object_type: ObjectType | None) -> list[Line]:
    """The delete records, checked as the service checks them. Raises InputError."""
    from stream_cluster.messages import DecodeRules, RawRecord, Rejection, decode_events
    from stream_cluster.service.produce import Line

    values = [
        json.dumps(message, ensure_ascii=False).encode() for message in _messages(account, ids, object_type)
    ]
    records = [RawRecord("", 0, 0, 0, None, value, None) for value in values]
    for decoded in decode_events(records, DecodeRules(None, max(map(len, values)), 0)):
        if isinstance(decoded, Rejection):
            raise InputError(f"--account or --object: {decoded.detail}")
    return [Line(f"record {number}", value) for number, value in enumerate(values, 1)]


def _messages(account: str, ids: Sequence[str], object_type: ObjectType | None) -> Iterator[dict[str, Any]]:
    common: dict[str, Any] = {"action": "delete", "account_id": account}
    if object_type is not None:
        common["object_type"] = object_type
    if not ids:
        yield common | {"everything": True}
    for begin in range(0, len(ids), _IDS_PER_RECORD):
        yield common | {f"{object_type}_ids": ids[begin : begin + _IDS_PER_RECORD]}


def _confirm(
    account: str, ids: Sequence[str], object_type: ObjectType | None, *, archives: bool, yes: bool
) -> None:
    """Ask on the terminal. Raises typer.Abort."""
    if yes:
        return
    kind = f"{object_type}s" if object_type else "objects"
    what = f"{len(ids)} {kind}" if ids else f"ALL {kind}"
    also = " and the archives that hold them" if archives else ""
    typer.confirm(f"Delete {what} of account {account}{also} for good?", abort=True, err=True)


def _send(lines: Sequence[Line], settings: Any, interrupt: Interrupt) -> int:
    import asyncio

    from stream_cluster.cli.kafka_logs import quiet_logs
    from stream_cluster.service.produce import produce_lines

    quiet_logs()
    summary = asyncio.run(produce_lines(lines, settings, interrupt=interrupt, on_sent=lambda _: None))
    return summary.events


def _search(
    store: ResultStore,
    places: Mapping[str, PurePosixPath],
    object_type: ObjectType | None,
    ids: Sequence[str],
    interrupt: Interrupt,
) -> tuple[list[Holder], list[Holder]]:
    """(archives that hold an erased object, archives that cannot be read)."""
    from stream_cluster.snapshot.holders import archives_with

    def opened() -> Iterator[tuple[str, Any]]:
        for place, name in places.items():
            interrupt.check()
            yield place, lambda name=name: store.open(name)

    found = list(archives_with(opened(), object_type, ids or None))
    return [one for one in found if one.problem is None], [one for one in found if one.problem is not None]


def _report(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    names = facts["archives"]
    print_facts(
        {
            "account": facts["account_id"],
            "objects": "all" if facts["objects"] is None else facts["objects"],
            "records acknowledged": f"{facts['records']} to {facts['topic']}",
            "archives that hold them": len(names),
            "archives deleted": facts["archives_deleted"],
        }
    )
    for name in names:
        typer.echo(name)

"""`stream-cluster backup`, `restore` and `verify`: backups by hand, and whether all is whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stream_cluster.cli import options
from stream_cluster.cli.display import print_facts, print_json, print_table, progress_display, warn
from stream_cluster.cli.failures import BAD_STATE, EXIT_CODES_HELP
from stream_cluster.cli.signals import stoppable
from stream_cluster.errors import BackupDamaged, InputError, StateCorrupt, StateError
from stream_cluster.model import Interrupt, Progress

if TYPE_CHECKING:
    from stream_cluster.config import Settings
    from stream_cluster.service.backup_store import BackupStore
    from stream_cluster.service.partition_backups import PartitionBackups
    from stream_cluster.state.backup.manifest import BackupKey, Manifest
    from stream_cluster.state.verify import Verified

BACKUP_EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster backup /var/lib/stream-cluster/state --config stream-cluster.yaml

stream-cluster backup ./state --to /mnt/backups

The service may run meanwhile. A database keeps the epoch that its owner took, so a backup of one that a
worker has lost never counts as newer than those of the worker that has the partition now.

{EXIT_CODES_HELP}"""

RESTORE_EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster restore --list --config stream-cluster.yaml

stream-cluster restore ./state --from /mnt/backups

stream-cluster restore ./state --partition 3 --name 0000000007-0000000000000120000-1777000000000000.json

The service does this by itself when it has no database of a partition. By hand it is for a look at an older
state, or for a disk that is prepared before the service starts.

{EXIT_CODES_HELP}"""

VERIFY_EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster verify ./state

stream-cluster verify --backups --config stream-cluster.yaml

stream-cluster verify --backups --newest --from /mnt/backups --scratch /var/tmp

{EXIT_CODES_HELP}"""

StateDirectory = Annotated[Path, typer.Argument(help="State directory of a service.", metavar="STATE_DIR")]
PartitionOption = Annotated[
    int | None, typer.Option("--partition", min=0, help="This partition alone; else all.")
]
TopicOption = Annotated[
    str | None, typer.Option("--topic", help="Events topic; else kafka.events_topic of the settings.")
]
FromOption = Annotated[
    Path | None,
    typer.Option(
        "--from", help="Directory of the backups; else the place that backup.* names.", metavar="DIR"
    ),
]
ScratchOption = Annotated[
    Path | None,
    typer.Option(
        "--scratch", help="Where backups are unpacked; else the system's place for temporary files."
    ),
]


def backup(
    directory: StateDirectory,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to", help="Directory for the backups; else the place that backup.* names.", metavar="DIR"
        ),
    ] = None,
    partition: PartitionOption = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Back the databases of a state directory up now, whether its service runs or not."""
    from stream_cluster.service.partition_backups import PartitionBackups
    from stream_cluster.state.backup.copy import read_facts
    from stream_cluster.state.backup.place import SCRATCH
    from stream_cluster.state.inspect import partition_paths

    store = _store(options.settings_of(config), to)
    store.check()
    made: list[dict[str, Any]] = []
    with stoppable("nothing is left of the backup under way") as interrupt, progress_display() as progress:
        for path in partition_paths(directory, partition):
            facts = read_facts(path)
            backups = PartitionBackups(store, facts.meta["topic"], int(facts.meta["partition"]))
            done = backups.make(
                path,
                directory / SCRATCH,
                facts.epoch,
                is_owner=lambda: True,
                interrupt=interrupt,
                progress=progress,
                scratch_prefix="by-hand-",
            )
            if done is None:
                warn(f"{path}: nothing was applied yet, so there is nothing to back up")
            else:
                made.append(_as_dict(backups, done.manifest))
    if as_json:
        print_json({"backups": made})
    for one in () if as_json else made:
        print_facts(one)


def restore(
    directory: Annotated[
        Path | None, typer.Argument(help="State directory of a service that is stopped.", metavar="STATE_DIR")
    ] = None,
    list_only: Annotated[bool, typer.Option("--list", help="Show the backups there are.")] = False,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Manifest of the backup, as --list shows it; else the newest that is whole."
        ),
    ] = None,
    partition: PartitionOption = None,
    topic: TopicOption = None,
    source: FromOption = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """List backups, or put the newest ones into a state directory that lacks their partitions."""
    settings = options.settings_of(config)
    store = _store(settings, source)
    all_backups = list(_partitions(store, topic or settings.kafka.events_topic, partition))
    if list_only:
        _list(all_backups, as_json=as_json)
        return
    if directory is None:
        raise InputError("STATE_DIR: found none, expected a directory, or --list")
    if name is not None and len(all_backups) != 1:
        raise InputError(f"--name: found {len(all_backups)} partitions, expected --partition to name one")
    restored = _restore_all(all_backups, directory, name)
    if as_json:
        print_json({"restored": restored})
    for one in () if as_json else restored:
        print_facts(one)


def verify(
    directory: Annotated[
        Path | None, typer.Argument(help="State directory of a service, running or not.", metavar="STATE_DIR")
    ] = None,
    backups: Annotated[
        bool, typer.Option("--backups", help="Check the backups too: unpack each, and check its database.")
    ] = False,
    newest: Annotated[
        bool, typer.Option("--newest", help="Of the backups, only the newest of each partition.")
    ] = False,
    partition: PartitionOption = None,
    topic: TopicOption = None,
    source: FromOption = None,
    scratch: ScratchOption = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Check every byte of a state directory, or of the backups; changes nothing."""
    if directory is None and not backups:
        raise InputError("STATE_DIR: found none, expected a directory, or --backups")
    from stream_cluster.state.inspect import partition_paths
    from stream_cluster.state.verify import verify_database

    with stoppable("nothing was changed") as interrupt, progress_display() as progress:
        results = [
            _checked(str(path), functools.partial(verify_database, path, interrupt, progress))
            for path in (() if directory is None else partition_paths(directory, partition))
        ]
        settings = options.settings_of(config)
        topic = topic or settings.kafka.events_topic
        for one in _partitions(_store(settings, source), topic, partition) if backups else ():
            results += [
                _checked(
                    one.url(key), functools.partial(_verify_backup, one, key, scratch, interrupt, progress)
                )
                for key in one.newest_first()[: 1 if newest else None]
            ]
    _report(results, as_json=as_json)
    if any(result["problems"] for result in results):
        raise typer.Exit(BAD_STATE)


def _store(settings: Settings, directory: Path | None) -> BackupStore:
    from stream_cluster.service.backup_store import DirectoryBackups, make_backup_store

    return make_backup_store(settings) if directory is None else DirectoryBackups(directory)


def _partitions(store: BackupStore, topic: str, partition: int | None) -> Iterator[PartitionBackups]:
    from stream_cluster.service.partition_backups import PartitionBackups

    numbers = [int(folder.name) for folder in store.folders() if folder.parent.name == topic]
    wanted = [number for number in sorted(numbers) if partition in (None, number)]
    if not wanted:
        which = "" if partition is None else f" partition {partition}"
        raise InputError(f"found no backups of topic {topic}{which}")
    for number in wanted:
        yield PartitionBackups(store, topic, number)


def _as_dict(backups: PartitionBackups, manifest: Manifest) -> dict[str, Any]:
    from stream_cluster.messages import format_time

    return {
        "topic": manifest.topic,
        "partition": manifest.partition,
        "name": manifest.key.name,
        "created": format_time(manifest.created_us),
        "epoch": manifest.epoch,
        "next_offset": manifest.next_offset,
        "objects": manifest.objects,
        "size_bytes": manifest.data_bytes,
        "database_bytes": manifest.database_bytes,
        "manifest": backups.url(manifest.key),
    }


def _list(all_backups: list[PartitionBackups], *, as_json: bool) -> None:
    found: list[dict[str, Any]] = []
    for backups in all_backups:
        for key in backups.newest_first():
            try:
                found.append(_as_dict(backups, backups.manifest(key)))
            except BackupDamaged as error:
                warn(str(error))
    if as_json:
        print_json({"backups": found})
        return
    table = Table(box=None, pad_edge=False)
    columns = ("partition", "created", "epoch", "next_offset", "objects", "size_bytes", "name")
    for column in columns:
        table.add_column(
            column.replace("_", " "), justify="left" if column in {"created", "name"} else "right"
        )
    for one in found:
        table.add_row(*(f"{value:,}" if isinstance(value := one[name], int) else value for name in columns))
    print_table(table)


def _restore_all(
    all_backups: list[PartitionBackups], directory: Path, name: str | None
) -> list[dict[str, Any]]:
    from stream_cluster.state.backup.place import place_database, restoring_path
    from stream_cluster.state.database import database_path
    from stream_cluster.state.lock import DirectoryLock

    restored = []
    with (
        DirectoryLock(directory),
        stoppable("partitions that were restored stay") as interrupt,
        progress_display() as progress,
    ):
        for backups in all_backups:
            path = database_path(directory, backups.partition)
            if path.exists():
                raise StateError(f"{path}: there is a database; move it away with its -wal and -shm first")
        for backups in all_backups:
            target = restoring_path(directory, backups.partition)
            for manifest in _whole(backups, name):
                try:
                    backups.restore(manifest, target, interrupt, progress)
                except BackupDamaged as error:
                    if name is not None:
                        raise StateCorrupt(str(error)) from error
                    warn(f"{error}; trying an older one")
                    continue
                place_database(target, directory, backups.partition)
                restored.append(_as_dict(backups, manifest))
                break
            else:
                raise StateCorrupt(f"found no backup of partition {backups.partition} that is whole")
    return restored


def _whole(backups: PartitionBackups, name: str | None) -> Iterator[Manifest]:
    """Manifests to try, the newest first; or the one that is named. Raises InputError."""
    keys = backups.newest_first()
    if name is not None:
        keys = [key for key in keys if key.name == name]
        if not keys:
            raise InputError(f"--name: found no backup {name} of partition {backups.partition}")
    for key in keys:
        try:
            yield backups.manifest(key)
        except BackupDamaged as error:
            warn(str(error))


def _verify_backup(
    backups: PartitionBackups, key: BackupKey, scratch: Path | None, interrupt: Interrupt, progress: Progress
) -> Verified:
    import tempfile

    from stream_cluster.service.partition_backups import scratch_file
    from stream_cluster.state.verify import verify_database

    manifest = backups.manifest(key)
    with scratch_file(scratch or Path(tempfile.gettempdir()), "stream-cluster-") as path:
        backups.restore(manifest, path, interrupt, progress)
        try:
            found = verify_database(path, interrupt, progress)
        finally:
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
    if (found.next_offset, found.objects) != (manifest.next_offset, manifest.objects):
        found.problems.append("next_offset or objects of the manifest are not those of the database")
    return found


def _checked(what: str, check: Callable[[], Verified]) -> dict[str, Any]:
    try:
        found = check()
    except (StateCorrupt, BackupDamaged) as error:
        return {"what": what, "problems": [str(error)]}
    return {
        "what": what,
        "next_offset": found.next_offset,
        "spaces": found.spaces,
        "objects": found.objects,
        "links": found.links,
        "problems": found.problems,
    }


def _report(results: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        print_json({"checked": results})
        return
    for result in results:
        facts = {name: value for name, value in result.items() if name != "problems"}
        print_facts({**facts, "result": "damaged" if result["problems"] else "whole"})
        for problem in result["problems"]:
            warn(problem)

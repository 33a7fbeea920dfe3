"""`stream-cluster clusters`: what is in an archive, and what became of it in another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from stream_cluster.cli import options
from stream_cluster.cli.display import print_facts, print_json, print_table, progress_display, warn
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.cli.signals import stoppable
from stream_cluster.errors import InputError

if TYPE_CHECKING:
    from stream_cluster.evaluation.archive import ArchivedCluster, ArchivedClusters
    from stream_cluster.evaluation.compare import Change, Comparison

EPILOG = f"""\
[bold]Input[/bold]

An archive, as a task or `cluster` wrote it: the zip, or the folder that it was unpacked into.

[bold]Output[/bold]

A cluster's id is that of its oldest object, so it stays while that object does; its number says nothing
beyond its archive. docs/report.md says what the figures mean.

With --compare, the clusters of the archive against those of an older one, by the objects in both: merged
(objects of several), split (objects in several), gone (no object is left), new (no object was there), grown
(other objects came), shrunk (some left, none came), unchanged.

[bold]Examples[/bold]

stream-cluster clusters faces.zip

stream-cluster clusters faces.zip --sort weakest-link --limit 50

stream-cluster clusters faces.zip --show event-17

stream-cluster clusters today.zip --compare yesterday.zip

stream-cluster clusters faces.zip --limit 0 --json | jq '.clusters[] | select(.bridges > 0) | .id'

{EXIT_CODES_HELP}"""

_LIMIT = 20
_SHOWN_IDS = 4
_WARNINGS = 3
_NOTHING_LOST = "nothing was changed"
_GROUPS = {"archive": ("reading the archive", ""), "older": ("reading the older archive", "")}
_ABSENT = "-"

Order = Literal["size", "cohesion", "weakest-link", "bridges", "first", "last"]


def clusters(
    archive: Annotated[Path, typer.Argument(help="An archive, or its folder.", metavar="ARCHIVE")],
    show: Annotated[
        str | None,
        typer.Option(
            "--show",
            help="One cluster with its members: that with this id or this object, or #N for number N.",
            metavar="ID",
        ),
    ] = None,
    older: Annotated[
        Path | None,
        typer.Option("--compare", help="An older archive of the same account.", metavar="ARCHIVE"),
    ] = None,
    sort: Annotated[
        Order | None,
        typer.Option(
            "--sort",
            help="What comes first: the largest; the least cohesion; the weakest link; most bridges; the "
            "earliest first time; the latest last time. Else size.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            min=0,
            help=f"Clusters, changes of each kind, or members to list; else {_LIMIT} (members: all); 0: all.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """List the clusters of an archive with their figures, show one, or compare with an older archive."""
    if show is not None and older is not None:
        raise InputError("--show has no effect with --compare")
    if sort is not None and (show is not None or older is not None):
        raise InputError(f"--sort has no effect with {'--compare' if show is None else '--show'}")
    most = _LIMIT if limit is None else limit or None
    if older is not None:
        _compare(archive, older, most, as_json=as_json)
        return
    found = _read(archive)
    if show is not None:
        # All members are what one asks for, unless a limit is given.
        _show_one(found, _find(archive, found, show), None if limit is None else most, as_json=as_json)
        return
    _list(found, sort or "size", most, as_json=as_json)


def _read(path: Path) -> ArchivedClusters:
    from stream_cluster.evaluation.archive import read_archive

    with stoppable(_NOTHING_LOST) as interrupt, progress_display(_GROUPS) as progress:
        return read_archive(path, interrupt, progress)


# -- a list --------------------------------------------------------------------------------------------


def _list(found: ArchivedClusters, order: Order, most: int | None, *, as_json: bool) -> None:
    # Sorting is stable: among equals the order of the archive stays, the largest first.
    lines = sorted(found.lines, key=_KEYS[order], reverse=order == "last")
    shown = lines[:most]
    if as_json:
        print_json({**_archive_as_dict(found), "clusters": [_as_dict(found, line) for line in shown]})
        return
    sizes = found.sizes
    facts: dict[str, Any] = {"account": found.account_id, "task": found.task_id}
    facts |= {name: found.parameters[name] for name in ("threshold", "linkage") if name in found.parameters}
    facts |= {
        "objects": len(found.ids),
        "clusters": len(found.lines),
        "singletons": int((sizes == 1).sum()),
        "largest share": f"{sizes.max() / len(found.ids):.2%}",
    }
    print_facts({name: value for name, value in facts.items() if value is not None})
    typer.echo()
    table = _table("number", "size", "share", "cohesion", "weakest link", "bridges")
    for name in ("id", "first", "last"):
        table.add_column(name, overflow="fold")
    for line in shown:
        table.add_row(*_cells(found, line))
    print_table(table)
    _tell_rest(len(shown), len(lines), "clusters")
    _warn(found)


_KEYS: dict[Order, Callable[[ArchivedCluster], Any]] = {
    "size": lambda line: -len(line.objects),
    "cohesion": lambda line: math.inf if line.cohesion is None else line.cohesion,
    "weakest-link": lambda line: math.inf if line.weakest_link is None else line.weakest_link,
    "bridges": lambda line: -(line.bridges or 0),
    # RFC 3339 in UTC, so in the order of their text up to fractions of a second.
    "first": lambda line: (line.first_time is None, line.first_time or ""),
    "last": lambda line: line.last_time or "",
}


def _table(*numbers: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _cells(found: ArchivedClusters, line: ArchivedCluster) -> list[str]:
    return [
        f"#{line.cluster}",
        f"{len(line.objects):,}",
        f"{_share(found, line):.2%}",
        _ABSENT if line.cohesion is None else f"{line.cohesion:.3f}",
        _ABSENT if line.weakest_link is None else f"{line.weakest_link:.3f}",
        _ABSENT if line.bridges is None else f"{line.bridges:,}",
        line.id,
        line.first_time or _ABSENT,
        line.last_time or _ABSENT,
    ]


def _share(found: ArchivedClusters, line: ArchivedCluster) -> float:
    """As the archive has it; older ones have none."""
    return len(line.objects) / len(found.ids) if line.share is None else line.share


def _tell_rest(shown: int, there_are: int, what: str) -> None:
    if shown < there_are:
        typer.echo(f"\n{there_are - shown:,} more {what}; --limit 0 lists all")


def _warn(found: ArchivedClusters) -> None:
    for one in found.warnings[:_WARNINGS]:
        warn(str(one.get("message", one)))
    if len(found.warnings) > _WARNINGS:
        warn(f"{len(found.warnings) - _WARNINGS} more in manifest.json")


def _archive_as_dict(found: ArchivedClusters) -> dict[str, Any]:
    sizes = found.sizes
    return {
        "account_id": found.account_id,
        "task_id": found.task_id,
        "as_of": None if found.as_of is None else dict(found.as_of),
        "parameters": dict(found.parameters),
        "objects": len(found.ids),
        "clusters_in_all": len(found.lines),
        "singletons": int((sizes == 1).sum()),
        "largest_share": float(sizes.max() / len(found.ids)),
        "warnings": found.warnings,
    }


def _as_dict(found: ArchivedClusters, line: ArchivedCluster) -> dict[str, Any]:
    return {
        "cluster": line.cluster,
        "id": line.id,
        "size": len(line.objects),
        "share": _share(found, line),
        "cohesion": line.cohesion,
        "weakest_link": line.weakest_link,
        "bridges": line.bridges,
        "first_time": line.first_time,
        "last_time": line.last_time,
    }


# -- one cluster ---------------------------------------------------------------------------------------


def _find(path: Path, found: ArchivedClusters, wanted: str) -> ArchivedCluster:
    """The cluster that is meant. Raises InputError."""
    for line in found.lines:
        if line.id == wanted:
            return line
    for line in found.lines:
        if wanted in line.objects or wanted == f"#{line.cluster}":
            return line
    raise InputError(
        f"--show {wanted}: found no such cluster and no such object in {path}, expected an id, or #N for "
        "number N"
    )


def _show_one(found: ArchivedClusters, line: ArchivedCluster, most: int | None, *, as_json: bool) -> None:
    members = line.objects[:most]
    mine = [one for one in found.warnings if one.get("cluster") == line.cluster]
    if as_json:
        print_json({**_as_dict(found, line), "objects": members, "warnings": mine})
        return
    names = ("number", "size", "share", "cohesion", "weakest link", "bridges", "id", "first", "last")
    print_facts(dict(zip(names, _cells(found, line), strict=True)))
    for one in mine:
        if one.get("objects"):
            print_facts({"ends of bridges": ", ".join(map(str, one["objects"]))})
    typer.echo("\nmembers, the oldest first\n")
    for object_id in members:
        typer.echo(object_id)
    _tell_rest(len(members), len(line.objects), "members")
    for one in mine:
        warn(str(one.get("message", one)))


# -- two archives --------------------------------------------------------------------------------------


def _compare(path: Path, older: Path, most: int | None, *, as_json: bool) -> None:
    from stream_cluster.evaluation.archive import read_archive
    from stream_cluster.evaluation.compare import compare

    with stoppable(_NOTHING_LOST) as interrupt, progress_display(_GROUPS) as progress:
        new = read_archive(path, interrupt, progress)
        old = read_archive(older, interrupt, lambda _, share: progress("older", share))
        progress("comparing", 0.0)
        found = compare(old, new)
    if old.account_id != new.account_id:
        warn(f"the archives are of two accounts: {new.account_id} and, the older, {old.account_id}")
    if not found.common:
        warn("no object is in both archives")
    if as_json:
        print_json(_comparison_as_dict(found, old, new, most))
        return
    _show_comparison(found, old, new, most)


def _comparison_as_dict(
    found: Comparison, old: ArchivedClusters, new: ArchivedClusters, most: int | None
) -> dict[str, Any]:
    return {
        "objects": {"older": found.objects_old, "newer": found.objects_new, "both": found.common},
        "clusters": {"older": len(old.lines), "newer": len(new.lines)},
        "adjusted_rand": found.adjusted_rand,
        "counts": dict(found.counts),
        "changes": [
            {
                "kind": change.kind,
                "older": _named(old, change.old),
                "newer": _named(new, change.new),
                "gained": change.gained,
                "lost": change.lost,
            }
            for change in _first(found, most)
        ],
    }


def _named(archive: ArchivedClusters, positions: list[int]) -> list[dict[str, Any]]:
    lines = [archive.lines[position] for position in positions]
    return [{"cluster": line.cluster, "id": line.id, "size": len(line.objects)} for line in lines]


def _show_comparison(
    found: Comparison, old: ArchivedClusters, new: ArchivedClusters, most: int | None
) -> None:
    rand = _ABSENT if found.adjusted_rand is None else f"{found.adjusted_rand:.4f}"
    print_facts(
        {
            "objects": f"{found.objects_new:,}, before {found.objects_old:,}; {found.common:,} in both",
            "clusters": f"{len(new.lines):,}, before {len(old.lines):,}",
            "adjusted Rand index": rand,
            **{str(kind): count for kind, count in found.counts.items()},
        }
    )
    if not found.changes:
        return
    typer.echo()
    table = Table(box=None, pad_edge=False)
    table.add_column("what")
    for name in ("objects", "gained", "lost"):
        table.add_column(name, justify="right")
    table.add_column("older", overflow="fold")
    table.add_column("newer", overflow="fold")
    shown = _first(found, most)
    for change in shown:
        table.add_row(*_change_cells(change, old, new))
    print_table(table)
    _tell_rest(len(shown), len(found.changes), "changes")


def _first(found: Comparison, most: int | None) -> list[Change]:
    """The first changes of each kind: the many small ones of one kind hide no other."""
    kinds = itertools.groupby(found.changes, key=lambda change: change.kind)
    return [change for _, changes in kinds for change in itertools.islice(changes, most)]


def _change_cells(change: Change, old: ArchivedClusters, new: ArchivedClusters) -> list[str]:
    counts = (change.objects, change.gained, change.lost)
    sides = (_listed(old, change.old), _listed(new, change.new))
    return [change.kind, *(f"{count:,}" for count in counts), *sides]


def _listed(archive: ArchivedClusters, positions: list[int]) -> str:
    lines = [archive.lines[position] for position in positions[:_SHOWN_IDS]]
    more = f", {len(positions) - _SHOWN_IDS:,} more" if len(positions) > _SHOWN_IDS else ""
    return ", ".join(f"{line.id} ({len(line.objects):,})" for line in lines) + more

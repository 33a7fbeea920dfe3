"""`stream-cluster inspect`: what a state directory holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stream_cluster.cli import options
from stream_cluster.cli.display import print_facts, print_json, print_table
from stream_cluster.cli.failures import EXIT_CODES_HELP

if TYPE_CHECKING:
    from stream_cluster.matching.costs import Costs
    from stream_cluster.state.inspect import PartitionReport, SpaceReport

EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster inspect ./state

stream-cluster inspect ./state --json | jq '.partitions[].spaces[].rows'

{EXIT_CODES_HELP}"""


def inspect(
    directory: Annotated[
        Path, typer.Argument(help="State directory of a service, running or not.", metavar="STATE_DIR")
    ],
    as_json: options.AsJson = False,
) -> None:
    """Show offsets, spaces, forests, tasks and sizes of a state directory; changes nothing."""
    from dataclasses import asdict

    from stream_cluster.matching.costs import load
    from stream_cluster.state.inspect import inspect_directory

    reports = inspect_directory(directory)
    costs = load(directory)
    if as_json:
        measured = None if costs is None else asdict(costs)
        print_json({"partitions": [_as_dict(report) for report in reports], "matching_costs": measured})
        return
    for number, report in enumerate(reports):
        if number:
            typer.echo()
        _show(report)
        if costs is not None:
            _explain(report, costs)


def _explain(report: PartitionReport, costs: Costs) -> None:
    """Why `auto` chooses what it does: what an event costs with each engine."""
    from stream_cluster.matching.costs import ENGINES

    facts = {}
    for space in report.spaces:
        record = space.record
        each = ", ".join(
            f"{engine} {costs.event_s(engine, record.next_row, record.dim) * 1e6:,.0f}" for engine in ENGINES
        )
        facts[f"microseconds an event, {record.key.account_id} version {record.key.version}"] = each
    if facts:
        print_facts(facts)


def _as_dict(report: PartitionReport) -> dict[str, Any]:
    return {
        "path": str(report.path),
        **report.meta,
        "partition": int(report.meta["partition"]),
        "partitions": int(report.meta["partitions"]),
        "next_offsets": [
            {"topic": topic, "partition": partition, "next_offset": offset}
            for (topic, partition), offset in report.next_offsets.items()
        ],
        "spaces": [_space_as_dict(space) for space in report.spaces],
        "records": [
            {"result": result, "reason": reason or None, "records": count}
            for (result, reason), count in report.records.items()
        ],
        "tasks": dict(report.tasks),
        "database_bytes": report.database_bytes,
        "wal_bytes": report.wal_bytes,
    }


def _space_as_dict(space: SpaceReport) -> dict[str, Any]:
    record = space.record
    return {
        **record.key._asdict(),
        "dim": record.dim,
        "rows": record.next_row,
        "objects": record.objects,
        "deleted": record.deleted,
        "duplicates": record.duplicates,
        "links_seen": record.links_seen,
        "forest_links": {"merged": space.merged_links, "pending": space.pending_links},
        "floor_cosine": record.floor_cosine,
        "code_bytes": space.code_bytes,
        "matching": dict(space.matching),
    }


def _show(report: PartitionReport) -> None:
    meta = report.meta
    facts: dict[str, Any] = {
        "partition": f"{meta['topic']}/{meta['partition']} of {meta['partitions']}, by {meta['partitioner']}",
        "file": f"{report.path}: {report.database_bytes:,} bytes, write-ahead log {report.wal_bytes:,}",
    }
    for (topic, partition), offset in report.next_offsets.items():
        facts[f"next offset of {topic}/{partition}"] = offset
    for (result, reason), count in report.records.items():
        facts[f"records {result}{f' ({reason})' if reason else ''}"] = count
    for status, count in report.tasks.items():
        facts[f"tasks {status}"] = count
    print_facts(facts)
    if report.spaces:
        print_table(_spaces(report.spaces))


def _spaces(spaces: list[SpaceReport]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in ("account", "objects", "descriptor", "version"):
        table.add_column(name, overflow="fold")
    numbers = (
        "dim",
        "rows",
        "deleted",
        "duplicates",
        "links seen",
        "forest merged",
        "pending",
        "floor cosine",
        "code bytes",
        "engine",
        "recall",
    )
    for name in numbers:
        table.add_column(name, justify="right")
    for space in spaces:
        record = space.record
        key = record.key
        counts = (record.dim, record.next_row, record.deleted, record.duplicates, record.links_seen)
        links = (space.merged_links, space.pending_links)
        table.add_row(
            key.account_id,
            f"{key.object_type}s",
            key.descriptor_type,
            str(key.version),
            *(f"{number:,}" for number in (*counts, *links)),
            f"{record.floor_cosine:g}",
            f"{space.code_bytes:,}",
            str(space.matching["engine"]),
            _recall(space.matching["recall"]),
        )
    return table


def _recall(recall: Mapping[str, Any] | None) -> str:
    """What was measured of the links found; empty when all are."""
    if recall is None or not recall["links_true"]:
        return ""
    return f"{recall['links_found'] / recall['links_true']:.2%}"

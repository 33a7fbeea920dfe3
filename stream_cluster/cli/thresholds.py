"""`stream-cluster thresholds`: what every threshold would do, before a task uses one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stream_cluster.cli import options
from stream_cluster.cli.display import (
    engine_text,
    print_facts,
    print_json,
    print_table,
    progress_display,
    warn,
    warn_rejected,
)
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.cli.signals import stoppable
from stream_cluster.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stream_cluster.config import Settings
    from stream_cluster.messages import TaskRequest
    from stream_cluster.offline.thresholds import FoundThresholds

EPILOG = f"""\
[bold]Input[/bold]

The state directory of a service, running or not, which is read as it stands at this moment; or objects as
`cluster` reads them: JSON lines, gzipped or not, `-` for standard input, or .npz.

A state has the links above its floor already. Where it cannot tell, objects are matched again as for a task:
for files, with --filters, and below the floor.

Clusters are connected components, those of a task with the default linkage.

[bold]Examples[/bold]

stream-cluster thresholds ./state --account acme

stream-cluster thresholds ./state --account acme --at 0.5,0.52,0.54 --plot curve.svg

stream-cluster thresholds events.jsonl.gz --at 0.4:0.7:0.02

stream-cluster thresholds vectors.npz --json | jq .cliff

{EXIT_CODES_HELP}"""

_NOTHING_LOST = "nothing was changed"
_GROUPS = {
    "read": ("reading", ""),
    "select": ("selecting", ""),
    "match": ("matching", ""),
    "curve": ("joining links", ""),
}
_FOUND = {"forest": "of the state", "rematch": "matched again"}
_STEP = 0.05
_JSON_POINTS = 1000
"""Of the curve in JSON; each figure then changes by no more than 0.8% of its range between two of them."""
_DIGITS = 6


def thresholds(
    inputs: Annotated[
        list[str],
        typer.Argument(help="The state directory of a service, or objects.", metavar="STATE_DIR|FILE..."),
    ],
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="Thresholds to show: FIRST:LAST:STEP, both ends included, or a,b,c; else steps of 0.05 from "
            "the floor.",
            metavar="THRESHOLDS",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the curve.", metavar="PICTURE.svg")
    ] = None,
    descriptor_type: options.DescriptorTypeOption = "face",
    threshold: options.ThresholdOption = None,
    account: options.AccountOption = None,
    object_type: options.ObjectTypeOption = "event",
    descriptor_version: options.DescriptorVersionOption = None,
    use_track_info: options.UseTrackInfoOption = False,
    filters: options.FiltersOption = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Show clusters, singletons and the largest share at every threshold, and where clusters chain."""
    from stream_cluster.offline.plot import check_picture

    if plot is not None:
        check_picture(plot)
    named = None if at is None else options.parse_thresholds("--at", at)
    selection = options.Selection(
        descriptor_type,
        threshold,
        object_type,
        descriptor_version,
        use_track_info,
        filters,
        linkage="components",
        min_quality=None,
        cannot_link=None,
        save_images=False,
        columns=None,
        html=None,
    )
    # The account may not be known yet; any legal one lets the rest be checked before anything is read.
    task = options.make_task(selection, "thresholds", account or "thresholds")
    found = _find(inputs, task, options.settings_of(config), named, account)
    rows = _rows(found, named, is_default=threshold is None)
    if plot is not None:
        _draw(found, plot)
    if found.load is not None:
        warn_rejected(found.load)
    _warn_of_chaining(found)
    if as_json:
        print_json(_as_dict(found, rows) | {"plot": None if plot is None else str(plot.resolve())})
        return
    _show(found, rows)
    if plot is not None:
        typer.echo(f"\n{plot.resolve()}")


def _find(
    inputs: list[str],
    task: TaskRequest,
    settings: Settings,
    named: list[float] | None,
    account: str | None,
) -> FoundThresholds:
    from stream_cluster.offline.sources import find_sources
    from stream_cluster.offline.thresholds import thresholds_of_files, thresholds_of_state

    directories = [name for name in inputs if Path(name).is_dir()]
    if directories and len(inputs) > 1:
        raise InputError(f"{directories[0]}: found a directory among {len(inputs)} inputs, expected it alone")
    wanted = named or []
    with stoppable(_NOTHING_LOST) as interrupt, progress_display(_GROUPS) as progress:
        if directories:
            return thresholds_of_state(
                Path(inputs[0]),
                task,
                settings,
                wanted,
                account_id=account,
                interrupt=interrupt,
                progress=progress,
            )
        content = task.content
        return thresholds_of_files(
            find_sources(inputs),
            task,
            settings,
            wanted,
            account_id=account,
            vector_version=options.vector_version(
                content.descriptor_version, settings, content.descriptor_type
            ),
            interrupt=interrupt,
            progress=progress,
        )


@dataclass(slots=True)
class _Row:
    """What is true of one threshold."""

    threshold: float
    cosine: float
    clusters: int
    singletons: int
    largest: int
    marks: list[str] = field(default_factory=list)


def _rows(found: FoundThresholds, named: Sequence[float] | None, *, is_default: bool) -> list[_Row]:
    """The thresholds that are shown, ascending; those with a mark are always among them."""
    measured = found.found
    scale, exact = measured.threshold.scale, measured.exact
    low = float(exact.thresholds[0])
    # Of several names of one cosine the first stays: a threshold as it was typed.
    cosines: dict[float, float] = {one.value: one.cosine for one in measured.wanted}
    marks: dict[float, list[str]] = {}

    def mark(value: float, cosine: float, text: str) -> None:
        value = next((other for other, known in cosines.items() if known == cosine), value)
        cosines.setdefault(value, cosine)
        marks.setdefault(value, []).append(text)

    if named is None:
        first = float(scale.to_scale(low))
        highest = min(scale.highest, float(scale.to_scale(1.0)))
        steps = range(math.floor(first / _STEP) + 1, math.floor(highest / _STEP + 1e-9) + 1)
        values = [round(step * _STEP, 9) for step in steps]
        cosines = {value: float(scale.to_cosine(value)) for value in values if value <= scale.highest}
        mark(first, low, "lowest")
    chosen = measured.threshold
    mark(chosen.value, chosen.cosine, "default" if is_default else "chosen")
    if (cliff := exact.cliff()) is not None:
        mark(float(scale.to_scale(cliff)), cliff, "cliff")
    rows = []
    for value, cosine in sorted(cosines.items()):
        index = exact.index(cosine)
        rows.append(
            _Row(
                value,
                cosine,
                clusters=int(exact.clusters[index]),
                singletons=int(exact.singletons[index]),
                largest=int(exact.largest[index]),
                marks=marks.get(value, []),
            )
        )
    return rows


def _draw(found: FoundThresholds, plot: Path) -> None:
    from stream_cluster.offline.plot import write_curve
    from stream_cluster.snapshot.thresholds import drawn

    measured = found.found
    write_curve(drawn(measured.exact, measured.threshold, len(measured.selection)), plot)


def _as_dict(found: FoundThresholds, rows: list[_Row]) -> dict[str, Any]:
    from stream_cluster.snapshot.thresholds import drawn

    measured = found.found
    key, objects = measured.selection.space.key, len(measured.selection)
    curve = drawn(measured.exact, measured.threshold, objects, _JSON_POINTS)
    return {
        "account_id": found.account_id,
        "object_type": key.object_type,
        "descriptor_type": key.descriptor_type,
        "descriptor_version": key.version,
        "similarity": measured.threshold.scale.parameters,
        "as_of": None if found.as_of is None else dict(found.as_of),
        "method": measured.method,
        "matching": dict(measured.matching),
        "objects": objects,
        "threshold": measured.threshold.value,
        "cliff": None if curve.cliff is None else round(curve.cliff, _DIGITS),
        "at": [
            {
                "threshold": round(row.threshold, _DIGITS),
                "threshold_cosine": round(row.cosine, _DIGITS),
                "clusters": row.clusters,
                "singletons": row.singletons,
                "largest_cluster": row.largest,
                "largest_share": row.largest / objects,
                "marks": row.marks,
            }
            for row in rows
        ],
        "curve": {
            "thresholds": [round(value, _DIGITS) for value in curve.thresholds.tolist()],
            "clusters": curve.clusters.tolist(),
            "singletons": curve.singletons.tolist(),
            "largest": curve.largest.tolist(),
        },
        "rejected": None if found.load is None else dict(found.load.rejected),
    }


def _show(found: FoundThresholds, rows: list[_Row]) -> None:
    measured = found.found
    key, objects = measured.selection.space.key, len(measured.selection)
    facts: dict[str, Any] = {
        "account": found.account_id,
        "objects": f"{objects:,} {key.object_type}s",
        "descriptors": f"{key.descriptor_type} version {key.version}",
        "links": f"{_FOUND[measured.method]}, {engine_text(measured.matching)}",
    }
    if (as_of := found.as_of) is not None:
        facts["as of"] = f"offset {as_of['next_offset']:,} of {as_of['topic']}/{as_of['partition']}"
    print_facts(facts)
    typer.echo()
    is_cosine = measured.threshold.scale.parameters["scale"] == "cosine"
    table = Table(box=None, pad_edge=False)
    names = ("threshold", *(() if is_cosine else ("cosine",)), "clusters", "singletons", "largest", "share")
    for name in names:
        table.add_column(name, justify="right")
    table.add_column("")
    for row in rows:
        cosine = () if is_cosine else (f"{row.cosine:.4f}",)
        counts = (f"{count:,}" for count in (row.clusters, row.singletons, row.largest))
        share = f"{row.largest / objects:.1%}"
        table.add_row(f"{row.threshold:.4g}", *cosine, *counts, share, ", ".join(row.marks))
    print_table(table)
    _tell_cliff(found)


def _tell_cliff(found: FoundThresholds) -> None:
    """Where clusters chain."""
    exact = found.found.exact
    cliff = exact.cliff()
    if cliff is None:
        typer.echo("\nNo threshold shown makes clusters chain.")
        return
    at = exact.index(cliff)
    value = float(found.found.threshold.scale.to_scale(cliff))
    typer.echo(
        f"\nBelow {value:.4g} clusters chain: the largest has {int(exact.largest[at - 1]):,} objects right "
        f"below it, {int(exact.largest[at]):,} at it."
    )


def _warn_of_chaining(found: FoundThresholds) -> None:
    """Whether the threshold is where clusters chain."""
    chosen, cliff = found.found.threshold, found.found.exact.cliff()
    if cliff is not None and chosen.cosine < cliff:
        value = float(chosen.scale.to_scale(cliff))
        warn(f"the threshold {chosen.value:g} is below the cliff at {value:.4g}: people may be merged")

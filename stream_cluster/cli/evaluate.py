"""`stream-cluster evaluate`: clusters against the people they should be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer
from rich.table import Table

from stream_cluster.cli import options
from stream_cluster.cli.display import (
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
from stream_cluster.model import DescriptorType, Linkage, ObjectType

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stream_cluster.config import Settings
    from stream_cluster.evaluation.files import ArchiveEvaluation, SweepEvaluation
    from stream_cluster.evaluation.sweep import Point
    from stream_cluster.offline.sources import Source

EPILOG = f"""\
[bold]Input[/bold]

truth.csv with the header id,label (or event_id, face_id; person): who each object is. Others are passed
over.

An archive, as a task or `cluster` wrote it, or its folder. With --sweep instead the objects themselves: JSON
lines, gzipped or not, or an .npz, as `cluster` reads them. Every threshold and linkage is then tried on them.

Measured are the objects that are in both files. How many are in one only is said.

[bold]Examples[/bold]

stream-cluster evaluate faces.zip truth.csv

stream-cluster evaluate faces.zip truth.csv --json | jq .quality.bcubed.f

stream-cluster evaluate events.jsonl.gz truth.csv --sweep 0.3:0.7:0.02 --plot sweep.svg

{EXIT_CODES_HELP}"""

_WORST = 5
_NOTHING_LOST = "nothing was changed"
_TEXTS = {"", "first ids", "label"}
_SWEEP = "Trying thresholds (with --sweep)"
_GROUPS = {
    "truth": ("reading the truth", ""),
    "archive": ("reading the archive", ""),
    "read": ("reading", ""),
    "match": ("matching", ""),
    "cut": ("evaluating", ""),
}


def evaluate(
    file: Annotated[str, typer.Argument(help="An archive; with --sweep, objects.", metavar="FILE")],
    truth: Annotated[str, typer.Argument(help="Who the objects are; see below.", metavar="TRUTH.csv")],
    worst: Annotated[
        int | None,
        typer.Option("--worst", min=0, help=f"Merges and splits of an archive to list; else {_WORST}."),
    ] = None,
    sweep: Annotated[
        str | None,
        typer.Option(
            "--sweep",
            help="Thresholds to try: FIRST:LAST:STEP, both ends included, or a,b,c.",
            metavar="THRESHOLDS",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    linkage: Annotated[
        str | None,
        typer.Option(
            "--linkage",
            help="Linkages to try, as a,b; else all.",
            metavar="LINKAGES",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Write a picture of quality by threshold, .svg or .png; needs Matplotlib.",
            metavar="PICTURE",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    descriptor_type: Annotated[
        DescriptorType | None,
        typer.Option(
            "--descriptor-type", help="Compare faces or bodies; else faces.", rich_help_panel=_SWEEP
        ),
    ] = None,
    object_type: Annotated[
        ObjectType | None,
        typer.Option("--object-type", help="Cluster events or faces; else events.", rich_help_panel=_SWEEP),
    ] = None,
    descriptor_version: Annotated[
        int | None,
        typer.Option(
            "--descriptor-version",
            min=0,
            help="Version of the descriptors; else that of the settings, else the newest.",
            rich_help_panel=_SWEEP,
        ),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            "--account", help="Needed when the file holds several accounts.", rich_help_panel=_SWEEP
        ),
    ] = None,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare clusters with the people they should be: precision, recall, the worst merges and splits.

    With --sweep, at many thresholds and with both linkages; all pairs are compared once.
    """
    from stream_cluster.offline.sources import find_sources

    only_with_sweep = {
        "--linkage": linkage,
        "--plot": plot,
        "--descriptor-type": descriptor_type,
        "--object-type": object_type,
        "--descriptor-version": descriptor_version,
        "--account": account,
    }
    given = [name for name, value in only_with_sweep.items() if value is not None]
    if sweep is None and given:
        raise InputError(f"{given[0]} has no effect without --sweep")
    if sweep is not None and worst is not None:
        raise InputError("--worst has no effect with --sweep, which lists no merges and splits")
    most = _WORST if worst is None else worst
    if sweep is None and Path(file).is_dir():
        _evaluate_archive(Path(file), find_sources([truth])[0], most, as_json=as_json)
        return
    source, truth_source = find_sources([file, truth])
    if sweep is None:
        _evaluate_archive(_zipped(source), truth_source, most, as_json=as_json)
        return
    selection = options.Selection(
        descriptor_type or "face",
        threshold=None,
        object_type=object_type or "event",
        descriptor_version=descriptor_version,
        use_track_info=False,
        filters=None,
        linkage="components",
        min_quality=None,
        cannot_link=None,
        save_images=False,
        columns=None,
        html=None,
    )
    wanted = _Sweep(
        source, truth_source, options.parse_thresholds("--sweep", sweep), _linkages(linkage), account
    )
    _evaluate_sweep(wanted, selection, options.settings_of(config), plot, as_json=as_json)


# -- an archive ----------------------------------------------------------------------------------------


def _zipped(source: Source) -> Path:
    """The file of an archive. Raises InputError for what is no zip."""
    if source.path is None or source.kind != "vectors":
        raise InputError(
            f"{source.name}: not a zip file, expected the archive of a task; --sweep evaluates objects"
        )
    return source.path


def _evaluate_archive(archive: Path, truth_source: Source, worst: int, *, as_json: bool) -> None:
    from stream_cluster.evaluation.files import evaluate_archive
    from stream_cluster.evaluation.report import archive_as_dict
    from stream_cluster.evaluation.truth import read_truth

    with stoppable(_NOTHING_LOST) as interrupt, progress_display(_GROUPS) as progress:
        truth = read_truth(truth_source, interrupt, progress)
        evaluation = evaluate_archive(archive, truth, worst, interrupt, progress)
    _warn(evaluation.counts)
    if as_json:
        print_json(archive_as_dict(evaluation))
    else:
        _show_archive(evaluation)


def _warn(counts: Mapping[str, int]) -> None:
    if counts["without_label"]:
        warn(
            f"{counts['without_label']:,} of {counts['objects']:,} objects are not in the truth: not measured"
        )
    if counts["not_found"]:
        warn(f"{counts['not_found']:,} objects of the truth were not clustered: not measured")


def _show_archive(evaluation: ArchiveEvaluation) -> None:
    from stream_cluster.evaluation.report import archive_as_dict

    parameters, quality = evaluation.parameters, evaluation.quality
    print_facts(
        {
            **{name: parameters[name] for name in ("threshold", "linkage") if name in parameters},
            "objects measured": f"{evaluation.counts['evaluated']:,} of {evaluation.counts['objects']:,}",
            "clusters": quality.clusters,
            "people": quality.people,
            "largest cluster": quality.largest_cluster,
            "largest impure cluster": quality.largest_impure_cluster,
            "adjusted Rand index": f"{quality.adjusted_rand:.4f}",
        }
    )
    typer.echo()
    table = _table("", "precision", "recall", "F")
    for name, score in (("pairwise", quality.pairwise), ("BCubed", quality.bcubed)):
        table.add_row(name, *(f"{value:.4f}" for value in (score.precision, score.recall, score.f)))
    measured = quality.v_measure
    values = (measured.homogeneity, measured.completeness, measured.v)
    table.add_row("V-measure (homogeneity, completeness)", *(f"{value:.4f}" for value in values))
    print_table(table)
    found = archive_as_dict(evaluation)
    _show_mistakes("Worst merges: clusters of several people", found["worst_merges"], "cluster", "label")
    _show_mistakes("Worst splits: people in several clusters", found["worst_splits"], "label", "cluster")


def _show_mistakes(title: str, mistakes: list[dict[str, Any]], whole: str, part: str) -> None:
    """A line for each of the largest parts of each mistake; `whole`, `part`: what these are called."""
    if not mistakes:
        return
    typer.echo(f"\n{title}\n")
    wrong, parts = ("wrong_pairs", "people") if whole == "cluster" else ("missed_pairs", "clusters")
    table = _table(whole, "objects", wrong.replace("_", " "), parts, part, "objects", "first ids")
    for mistake in mistakes:
        about = [str(mistake[whole]), *(f"{mistake[name]:,}" for name in ("objects", wrong, parts))]
        for place in mistake["largest"]:
            table.add_row(*about, str(place[part]), f"{place['objects']:,}", ", ".join(place["ids"]))
            about = [""] * len(about)
    print_table(table)


# -- thresholds and linkages ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Sweep:
    source: Source
    truth: Source
    thresholds: list[float]
    linkages: list[Linkage]
    account: str | None


def _linkages(text: str | None) -> list[Linkage]:
    names = get_args(Linkage)
    found = list(names) if text is None else list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in found:
        if name not in names:
            raise InputError(f"--linkage: found {name!r}, expected {' or '.join(names)}, or both")
    return cast("list[Linkage]", found)


def _evaluate_sweep(
    wanted: _Sweep, selection: options.Selection, settings: Settings, plot: Path | None, *, as_json: bool
) -> None:
    from stream_cluster.evaluation.files import sweep_file
    from stream_cluster.evaluation.report import sweep_as_dict
    from stream_cluster.evaluation.truth import read_truth
    from stream_cluster.pictures import check_picture

    if plot is not None:
        check_picture(plot)
    # The account may not be known yet; any legal one lets the rest be checked before the file is read.
    task = options.make_task(selection, "evaluate", wanted.account or "evaluate")
    with stoppable(_NOTHING_LOST) as interrupt, progress_display(_GROUPS) as progress:
        evaluation = sweep_file(
            wanted.source,
            read_truth(wanted.truth, interrupt, progress),
            task,
            settings,
            thresholds=wanted.thresholds,
            linkages=wanted.linkages,
            account_id=wanted.account,
            vector_version=options.vector_version(
                selection.descriptor_version, settings, selection.descriptor_type
            ),
            interrupt=interrupt,
            progress=progress,
        )
    if plot is not None:
        _write_plot(evaluation, plot)
    warn_rejected(evaluation.load)
    _warn(evaluation.counts)
    if as_json:
        print_json(sweep_as_dict(evaluation) | {"plot": None if plot is None else str(plot.resolve())})
        return
    _show_sweep(evaluation)
    if plot is not None:
        typer.echo(f"\n{plot.resolve()}")


def _write_plot(evaluation: SweepEvaluation, plot: Path) -> None:
    from stream_cluster.evaluation.plot import Curve, write_curves
    from stream_cluster.evaluation.report import by_linkage

    measured = evaluation.counts["evaluated"]
    curves = [
        Curve(
            linkage,
            [point.threshold for point in points],
            [point.quality.pairwise.f for point in points],
            [point.quality.bcubed.f for point in points],
            [point.quality.largest_cluster / measured for point in points],
        )
        for linkage, points in by_linkage(evaluation.points).items()
    ]
    write_curves({f"{measured:,} objects": curves}, plot)


def _show_sweep(evaluation: SweepEvaluation) -> None:
    from stream_cluster.evaluation.report import by_linkage
    from stream_cluster.evaluation.sweep import GOOD, best, good_range

    measured, objects = evaluation.counts["evaluated"], evaluation.counts["objects"]
    space = evaluation.space
    print_facts(
        {
            "objects measured": f"{measured:,} of {objects:,}",
            "people": evaluation.points[0].quality.people,
            "descriptors": f"{space['descriptor_type']} version {space['descriptor_version']}",
        }
    )
    lines = []
    for linkage, points in by_linkage(evaluation.points).items():
        typer.echo(f"\n{linkage}\n")
        _show_points(points)
        top, good = best(points), good_range(points)
        reach = "at no threshold" if good is None else f"from {good[0]:g} to {good[1]:g}"
        lines.append(
            f"{linkage}: highest pairwise F {top.quality.pairwise.f:.4f} at {top.threshold:g}, with a BCubed "
            f"F of {top.quality.bcubed.f:.4f}; BCubed F at least {GOOD:g} {reach}"
        )
    typer.echo("\n" + "\n".join(lines))


def _show_points(points: list[Point]) -> None:
    table = _table(
        "threshold", "clusters", "largest", "impure", *("precision", "recall", "F") * 2, "ARI", "V"
    )
    table.columns[4].header, table.columns[7].header = "pairwise precision", "BCubed precision"
    for point in points:
        quality = point.quality
        sizes = (quality.clusters, quality.largest_cluster, quality.largest_impure_cluster)
        pairwise, bcubed = quality.pairwise, quality.bcubed
        values = [pairwise.precision, pairwise.recall, pairwise.f, bcubed.precision, bcubed.recall, bcubed.f]
        values += [quality.adjusted_rand, quality.v_measure.v]
        row = [*(f"{size:,}" for size in sizes), *(f"{value:.4f}" for value in values)]
        table.add_row(f"{point.threshold:g}", *row)
    print_table(table)


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="left" if name in _TEXTS else "right")
    return table

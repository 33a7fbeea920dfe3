"""`stream-cluster calibrate`: a similarity scale and error rates from pairs whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from stream_cluster.cli import options
from stream_cluster.cli.display import (
    ProgressDisplay,
    print_facts,
    print_json,
    print_table,
    progress_display,
    warn,
)
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.cli.signals import stoppable
from stream_cluster.errors import InputError

if TYPE_CHECKING:
    from stream_cluster.calibration.rates import OperatingPoint, Rate
    from stream_cluster.calibration.report import Calibration
    from stream_cluster.calibration.scores import Scores
    from stream_cluster.model import Interrupt

EPILOG = f"""\
[bold]Input[/bold]

people.npz: `ids`, strings of shape (n,), `descriptors`, float32 (n, dim), and `labels`, integers or
strings of shape (n,): who each object is. Equal labels are a genuine pair, all others are impostors.
In Python: np.savez("people.npz", ids=np.array(ids), descriptors=vectors, labels=np.array(people))

pairs.csv with the header cosine,same: a cosine and 1 (the same person) or 0 on each line.

pairs.csv with the header a,b,same: two ids and 1 or 0, with --descriptors vectors.npz (`ids`, `descriptors`).

[bold]Examples[/bold]

stream-cluster calibrate people.npz --descriptor-type face --descriptor-version 62 --plot rates.png

stream-cluster calibrate pairs.csv --target-fmr 1e-4 --format yaml

stream-cluster calibrate pairs.csv --descriptors vectors.npz --json | jq .similarity

[bold]Reading the result[/bold]

FMR, the false-match rate, is the share of impostor pairs that a threshold links; FNMR, the false-non-match
rate, the share of genuine pairs that it does not. Among n objects there are about n²/2 pairs, so an FMR
below 2/n keeps false links fewer than objects. A similarity of 0.5 is where genuine and impostor pairs are
equally frequent, were there as many of each. Paste the settings that are printed into the file of --config.

{EXIT_CODES_HELP}"""

_GROUPS = {
    "read": ("reading", ""),
    "pairs": ("pairs", ""),
    "genuine": ("genuine pairs", ""),
    "impostor": ("impostor pairs", ""),
}


def calibrate(
    file: Annotated[
        str, typer.Argument(help="Labelled .npz, or pairs in CSV, gzipped or not; see below.", metavar="FILE")
    ],
    descriptors: Annotated[
        Path | None,
        typer.Option("--descriptors", help="Where the ids of pairs a,b,same are.", metavar="VECTORS.npz"),
    ] = None,
    descriptor_type: options.DescriptorTypeOption = "face",
    descriptor_version: Annotated[
        int | None,
        typer.Option(
            "--descriptor-version",
            min=0,
            max=2**32 - 1,
            help="Version that the settings are for; else all that have no scale of their own.",
        ),
    ] = None,
    target_fmr: Annotated[
        float,
        typer.Option(
            "--target-fmr", help="False-match rate of the default threshold; ten times it gives the floor."
        ),
    ] = 1e-5,
    max_impostor_pairs: Annotated[
        int,
        typer.Option(
            "--max-impostor-pairs",
            min=1,
            help="When an .npz has more impostor pairs, so many are drawn uniformly, with replacement.",
        ),
    ] = 20_000_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the random choice of pairs.")] = 0,
    settings_format: Annotated[
        Literal["toml", "yaml"], typer.Option("--format", help="How the settings are written.")
    ] = "toml",
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot",
            help="Write a picture of the error rates, .png or .svg; needs Matplotlib.",
            metavar="PICTURE",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Fit a similarity scale to pairs whose truth is known, and show error rates per threshold.

    Cosines are computed as matching does, from int8 codes. All genuine pairs are compared, and up to
    --max-impostor-pairs others.
    """
    from stream_cluster.calibration.plot import write_plot
    from stream_cluster.calibration.report import as_dict, settings_text
    from stream_cluster.calibration.report import calibrate as fit
    from stream_cluster.pictures import check_picture

    if not 0 < target_fmr < 1:  # also of NaN
        raise InputError(f"--target-fmr: found {target_fmr:g}, expected a rate above 0 and below 1")
    if plot is not None:
        check_picture(plot)
    with stoppable() as interrupt, progress_display(_GROUPS) as progress:
        scores, impostors = _read(file, descriptors, max_impostor_pairs, seed, interrupt, progress)
        calibration = fit(scores, impostors, target_fmr)
    if plot is not None:
        write_plot(calibration, plot)
    _warn(calibration)
    text = settings_text(calibration, descriptor_type, descriptor_version, settings_format)
    if as_json:
        picture = None if plot is None else str(plot.resolve())
        print_json(as_dict(calibration) | {"settings": text, "plot": picture})
        return
    _show(calibration)
    typer.echo(f"\nSettings with an FMR of {target_fmr:g}:\n\n{text}")
    if plot is not None:
        typer.echo(f"\n{plot.resolve()}")


def _read(
    file: str,
    descriptors: Path | None,
    max_impostor_pairs: int,
    seed: int,
    interrupt: Interrupt,
    progress: ProgressDisplay,
) -> tuple[Scores, int]:
    """The scores, and how many impostor pairs there are in all."""
    from stream_cluster.calibration.pairs import read_descriptors, scores_of_labelled, scores_of_pairs
    from stream_cluster.offline.sources import find_sources

    [source] = find_sources([file])
    if source.kind == "vectors" and source.path is not None:
        if descriptors is not None:
            raise InputError("--descriptors has no effect with a labelled .npz, expected pairs in CSV")
        labelled = scores_of_labelled(
            source.path, max_impostor_pairs, seed, interrupt=interrupt, progress=progress
        )
        return labelled.scores, labelled.impostor_pairs_in_all
    objects = None if descriptors is None else read_descriptors(descriptors, interrupt, progress)
    scores = scores_of_pairs(source, objects, interrupt=interrupt, progress=progress)
    return scores, int(scores.impostor.sum())


def _warn(calibration: Calibration) -> None:
    rates = calibration.rates
    if not rates.overlap():
        warn(
            "no impostor pair is as similar as a genuine one, so the slope only says how many pairs there are"
        )
    if not rates.supports(calibration.target_fmr):
        warn(
            f"{rates.impostor_pairs:,} impostor pairs cannot show an FMR of {calibration.target_fmr:g}: "
            f"at least {3 / calibration.target_fmr:,.0f} are needed"
        )


def _show(calibration: Calibration) -> None:
    from stream_cluster.calibration.plot import text_plot
    from stream_cluster.calibration.report import SIMILARITIES, TARGETS

    rates, scale = calibration.rates, calibration.scale
    equal = rates.equal_error()
    sampled = rates.impostor_pairs < calibration.impostor_pairs_in_all
    chosen = f", drawn from {calibration.impostor_pairs_in_all:,}" if sampled else ""
    print_facts(
        {
            "genuine pairs": rates.genuine_pairs,
            "impostor pairs": f"{rates.impostor_pairs:,}{chosen}",
            "scale": f"1 / (1 + exp(-{scale.slope:g} * (cosine - {scale.midpoint:g})))",
            "equal error rate": f"{(equal.fmr.value + equal.fnmr.value) / 2:.3g} at similarity "
            f"{_similarity(calibration, equal)}, cosine {equal.cosine:.4f}",
        }
    )
    typer.echo()
    table = _table("threshold", "cosine", "FMR", "FNMR")
    for similarity in SIMILARITIES:
        point = rates.at(float(scale.to_cosine(similarity)))
        table.add_row(f"{similarity:g}", f"{point.cosine:.4f}", *map(_value, (point.fmr, point.fnmr)))
    print_table(table)
    typer.echo()
    table = _table("at FMR", "threshold", "cosine", "FMR (95% interval)", "FNMR (95% interval)", "")
    for target in TARGETS:
        point = rates.at_fmr(target)
        note = "" if rates.supports(target) else "too few impostor pairs"
        row = (f"{target:g}", _similarity(calibration, point), f"{point.cosine:.4f}")
        table.add_row(*row, *map(_with_interval, (point.fmr, point.fnmr)), note)
    print_table(table)
    typer.echo(f"\n{text_plot(calibration)}")


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name, justify="right" if name else "left")
    return table


def _similarity(calibration: Calibration, point: OperatingPoint) -> str:
    return f"{calibration.similarity(point):.6f}"


def _value(rate: Rate) -> str:
    return f"{rate.value:.3g}"


def _with_interval(rate: Rate) -> str:
    low, high = rate.interval
    return f"{rate.value:.3g} ({low:.2g} to {high:.2g})"

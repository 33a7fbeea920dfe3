"""Quality against the threshold, drawn with Matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stream_cluster.pictures import new_figure, save

_COLOURS = {"components": "tab:red", "average": "tab:blue"}
_PANELS = (
    ("pairwise F", "pairwise_f"),
    ("BCubed F", "bcubed_f"),
    ("largest cluster, share", "largest_share"),
    ("seconds", "seconds"),
)


@dataclass(frozen=True, slots=True)
class Curve:
    """A linkage at several thresholds, ascending; parallel sequences."""

    linkage: str
    thresholds: Sequence[float]
    pairwise_f: Sequence[float]
    bcubed_f: Sequence[float]
    largest_share: Sequence[float]
    """Objects of the largest cluster by all objects."""
    seconds: Sequence[float] | None = None
    """Where it was measured, of all curves: time of the clustering."""


def write_curves(rows: Mapping[str, Sequence[Curve]], target: Path) -> None:
    """One row of panels for each set of objects, named after it, with a line for each linkage.

    Raises:
        InputError: no Matplotlib, a name that does not end in .png or .svg, or the file cannot be written.
    """
    timed = all(curve.seconds is not None for curves in rows.values() for curve in curves)
    shown = _PANELS if timed else _PANELS[:-1]
    figure = new_figure(4 * len(shown), 1 + 3 * len(rows))
    panels = figure.subplots(len(rows), len(shown), squeeze=False)
    for (name, curves), row in zip(rows.items(), panels, strict=True):
        for (title, values), axes in zip(shown, row, strict=True):
            for curve in curves:
                colour = _COLOURS[curve.linkage]
                axes.plot(curve.thresholds, getattr(curve, values), ".-", color=colour, label=curve.linkage)
            axes.set(xlabel="threshold", title=f"{title}, {name}")
            axes.grid(visible=True, alpha=0.4)
            if values in ("pairwise_f", "bcubed_f"):
                axes.set_ylim(0, 1.02)
            else:
                axes.set_yscale("log")
            if values == "largest_share":
                axes.set_ylim(top=1.2)
        row[0].legend()
    save(figure, target)

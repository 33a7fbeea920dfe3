"""The drawings of the page: the threshold curve as SVG, and the sizes of clusters as a table with bars."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 720, 330
_LEFT, _RIGHT = 64, 704
_LABEL = 90
"""Room that the label of a mark needs."""
_COUNTS = (28, 188)
_SHARES = (226, 296)
_POINTS = 321
_TABLE_ROWS = 21


@dataclass(frozen=True, slots=True)
class Curve:
    """Clusters at every threshold from the lowest to 1: steps, each from its threshold to the next."""

    thresholds: npt.NDArray[np.float64]
    """On the scale of the request, ascending."""
    clusters: npt.NDArray[np.int64]
    singletons: npt.NDArray[np.int64]
    largest: npt.NDArray[np.int64]
    """Objects of the largest cluster."""
    objects: int
    chosen: float
    """The threshold of the request."""
    cliff: float | None
    """The threshold below which clusters chain into one; None when there is no such."""

    def at(self, threshold: float) -> tuple[int, int, int]:
        """(clusters, singletons, largest) at the highest threshold of the curve not above this one."""
        index = max(0, int(np.searchsorted(self.thresholds, threshold + 1e-9, side="right")) - 1)
        return int(self.clusters[index]), int(self.singletons[index]), int(self.largest[index])

    def thinned(self) -> Curve:
        """The same curve at no more thresholds than can be seen."""
        if len(self.thresholds) <= _POINTS:
            return self
        index = np.unique(np.linspace(0, len(self.thresholds) - 1, _POINTS).astype(np.int64))
        return Curve(
            self.thresholds[index],
            self.clusters[index],
            self.singletons[index],
            self.largest[index],
            self.objects,
            self.chosen,
            self.cliff,
        )

    def columns(self) -> dict[str, Any]:
        """For the page's script."""
        return {
            "thresholds": [round(value, 4) for value in self.thresholds.tolist()],
            "clusters": self.clusters.tolist(),
            "singletons": self.singletons.tolist(),
            "largest": self.largest.tolist(),
        }


def curve_svg(curve: Curve, name: str = "clusters") -> str:
    """The curve as SVG; colours come from the style of the page. `name`: what is counted."""
    draw = _Drawing(curve)
    shares = curve.largest / max(1, curve.objects)
    parts = [
        f'<svg id="curve" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="curve-title curve-text" '
        f'data-left="{_LEFT}" data-right="{_RIGHT}">',
        f'<title id="curve-title">{name.capitalize()} at every threshold</title>',
        f'<desc id="curve-text">{_description(curve, name)}</desc>',
        *draw.grid(_COUNTS, draw.most_clusters, _count_label),
        *draw.grid(_SHARES, draw.most_share, lambda share: f"{100 * share:g}%"),
        *draw.threshold_axis(),
        f'<path class="share" d="{draw.area(shares, draw.most_share, _SHARES)}"/>',
        f'<path class="singletons" d="{draw.line(curve.singletons, draw.most_clusters, _COUNTS)}"/>',
        f'<path class="clusters" d="{draw.line(curve.clusters, draw.most_clusters, _COUNTS)}"/>',
        *draw.marks(),
        f'<line id="curve-at" class="at" y1="{_COUNTS[0]}" y2="{_SHARES[1]}" visibility="hidden"/>',
        "</svg>",
    ]
    return "".join(parts)


def _description(curve: Curve, name: str) -> str:
    clusters, singletons, largest = curve.at(curve.chosen)
    text = (
        f"At the chosen threshold of {curve.chosen:g}: {clusters:,} {name}, {singletons:,} of them with a "
        f"single object, the largest with {largest / max(1, curve.objects):.1%} of the objects."
    )
    if curve.cliff is not None:
        text += f" Below {curve.cliff:.3g} they chain into one."
    return text


def curve_table(curve: Curve) -> str:
    """The curve as rows of a table, for those who do not see it."""
    step = max(1, math.ceil((len(curve.thresholds) - 1) / (_TABLE_ROWS - 1)))
    rows = []
    for index in range(0, len(curve.thresholds), step):
        largest = int(curve.largest[index])
        rows.append(
            f"<tr><th scope=row>{curve.thresholds[index]:.3f}<td>{curve.clusters[index]:,}"
            f"<td>{curve.singletons[index]:,}<td>{largest:,}<td>{largest / max(1, curve.objects):.1%}"
        )
    return "".join(rows)


class _Drawing:
    def __init__(self, curve: Curve) -> None:
        self._curve = curve
        self._low = float(curve.thresholds[0])
        self._high = max(float(curve.thresholds[-1]), self._low + 1e-6)
        most_share = float(curve.largest.max(initial=1)) / max(1, curve.objects)
        self.most_share = min(1.0, _nice_ceiling(100 * max(most_share, 0.001)) / 100)
        self.most_clusters = _nice_ceiling(max(1, int(curve.clusters.max())))

    def _x(self, threshold: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * (threshold - self._low) / (self._high - self._low)

    def line(self, values: npt.NDArray[Any], most: float, panel: tuple[int, int]) -> str:
        """A path of steps: a value holds from its threshold to the next."""
        top, bottom = panel
        path = ""
        for threshold, value in zip(self._curve.thresholds.tolist(), values.tolist(), strict=True):
            x, y = self._x(threshold), bottom - (bottom - top) * value / most
            path += f"M{x:.1f} {y:.1f}" if not path else f"H{x:.1f}V{y:.1f}"
        return path

    def area(self, values: npt.NDArray[Any], most: float, panel: tuple[int, int]) -> str:
        """The same, closed down to the axis."""
        return f"{self.line(values, most, panel)}V{panel[1]}H{_LEFT}Z"

    def grid(self, panel: tuple[int, int], most: float, label: Any) -> list[str]:
        """Horizontal lines at none, half and all, with labels."""
        top, bottom = panel
        parts = []
        for share in (0.0, 0.5, 1.0):
            y = bottom - (bottom - top) * share
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="y" x="{_LEFT - 8}" y="{y + 4:.1f}">{label(most * share)}</text>')
        return parts

    def threshold_axis(self) -> list[str]:
        """Labels of thresholds."""
        step = next(
            step
            for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
            if (self._high - self._low) / step <= 12 or step == 0.5
        )
        parts = []
        for number in range(math.ceil(self._low / step - 1e-9), math.floor(self._high / step + 1e-9) + 1):
            x = self._x(number * step)
            parts.append(f'<text class="x" x="{x:.1f}" y="{_SHARES[1] + 18}">{number * step:.2f}</text>')
        parts.append(f'<text class="x name" x="{(_LEFT + _RIGHT) / 2}" y="{HEIGHT - 2}">threshold</text>')
        return parts

    def marks(self) -> list[str]:
        """The chosen threshold, and the cliff where there is one."""
        curve = self._curve
        parts = []
        chosen, cliff = self._x(min(max(curve.chosen, self._low), self._high)), None
        if curve.cliff is not None and self._low <= curve.cliff <= self._high:
            cliff = self._x(curve.cliff)
            parts.append(
                f'<rect class="cliff" x="{_LEFT}" y="{_COUNTS[0]}" width="{cliff - _LEFT:.1f}" '
                f'height="{_SHARES[1] - _COUNTS[0]}"/>'
            )
            parts.append(self._mark("cliff", cliff, f"cliff {curve.cliff:.3g}", left=chosen > cliff))
        label = f"chosen {curve.chosen:g}"
        is_left = cliff is not None and chosen <= cliff
        # Where the other mark is close and at the edge, both labels are on one side: then one is lower.
        is_lower = (
            cliff is not None
            and abs(chosen - cliff) < _LABEL
            and (min(chosen, cliff) < _LEFT + _LABEL or max(chosen, cliff) > _RIGHT - _LABEL)
        )
        parts.append(self._mark("chosen", chosen, label, left=is_left, lower=is_lower))
        return parts

    def _mark(self, kind: str, x: float, text: str, *, left: bool, lower: bool = False) -> str:
        # A label goes to the side that the other mark is not on, unless it would leave the drawing there.
        if x < _LEFT + _LABEL:
            left = False
        elif x > _RIGHT - _LABEL:
            left = True
        anchor, at = ("end", x - 6) if left else ("start", x + 6)
        y = _COUNTS[0] + (10 if lower else -6)
        return (
            f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_COUNTS[0] - 12}" y2="{_SHARES[1]}"/>'
            f'<text class="mark {kind}" x="{at:.1f}" y="{y}" text-anchor="{anchor}">'
            f"{text}</text>"
        )


def _nice_ceiling(value: float) -> float:
    """The least of 1, 2, 5 times a power of ten, or twice that, that is not below."""
    power: float = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 5, 6, 8, 10) if step * power >= value)


def _count_label(count: float) -> str:
    return f"{count:,.0f}" if count == int(count) else f"{count:,.1f}"


def size_rows(sizes: npt.NDArray[np.int64]) -> str:
    """Rows of a table: how many clusters have how many objects, in classes that double, with bars."""
    if not len(sizes):
        return ""
    classes = np.ceil(np.log2(sizes)).astype(np.int64)  # 1 | 2 | 3-4 | 5-8 | 9-16 …
    clusters = np.bincount(classes)
    objects = np.bincount(classes, weights=sizes).astype(np.int64)
    most = max(1, int(objects.max()))
    rows = []
    for number, (count, held) in enumerate(zip(clusters.tolist(), objects.tolist(), strict=True)):
        low, high = 2 ** (number - 1) + 1 if number else 1, 2**number
        name = f"{low:,}" if low >= high else f"{low:,}\u2013{high:,}"
        width = 100 * held / most
        rows.append(
            f"<tr><th scope=row>{name}<td>{count:,}<td>{held:,}<td class=held>"
            f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect width="{width:.1f}" height="10"/></svg>'
        )
    return "".join(rows)

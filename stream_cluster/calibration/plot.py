"""Error rates drawn: as characters for a terminal, and as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stream_cluster.calibration.rates import Rates
from stream_cluster.pictures import new_figure, save

if TYPE_CHECKING:
    from stream_cluster.calibration.report import Calibration

WIDTH, HEIGHT = 66, 15
FALSE_MATCH, FALSE_NON_MATCH, BOTH = "m", "n", "x"

_LABEL_WIDTH = 7
_MAX_DECADES = 7


def text_plot(calibration: Calibration) -> str:
    """FMR and FNMR against the threshold, on a logarithmic axis of rates, `WIDTH` by `HEIGHT` characters."""
    rates = calibration.rates
    first, last = _shown(rates)
    decades = _decades(rates)
    columns = np.linspace(first, last, WIDTH).round().astype(np.intp)
    canvas = [[" "] * WIDTH for _ in range(HEIGHT)]
    for character, curve in ((FALSE_MATCH, rates.fmr), (FALSE_NON_MATCH, rates.fnmr)):
        for column, value in enumerate(curve[columns]):
            if value >= 10.0**-decades:
                row = round(-math.log10(value) / decades * (HEIGHT - 1))
                canvas[row][column] = character if canvas[row][column] == " " else BOTH
    labels = {round(decade / decades * (HEIGHT - 1)): f"1e-{decade}" for decade in range(decades + 1)}
    labels[0] = "1"
    lines = [f"{labels.get(row, ''):>{_LABEL_WIDTH}} |{''.join(line)}" for row, line in enumerate(canvas)]
    lines.append(f"{'':>{_LABEL_WIDTH}} +{'-' * WIDTH}")
    ticks = np.linspace(0, WIDTH - 1, 6).round().astype(np.intp)
    cosines = rates.cosines[columns[ticks]]
    for name, values in (("cosine", cosines), ("scale", calibration.scale.to_scale(cosines))):
        lines.append(f"{name:>{_LABEL_WIDTH}}  {_tick_line(ticks, values)}".rstrip())
    lines.append(f"{FALSE_MATCH} false-match rate, {FALSE_NON_MATCH} false-non-match rate, {BOTH} both")
    return "\n".join(lines)


def _tick_line(ticks: npt.NDArray[np.intp], values: npt.NDArray[np.float64]) -> str:
    line = [" "] * (WIDTH + _LABEL_WIDTH)
    for tick, value in zip(ticks, values, strict=True):
        text = f"{value:.3f}"
        begin = max(int(tick) - len(text) // 2, 0)
        line[begin : begin + len(text)] = text
    return "".join(line)


def _shown(rates: Rates) -> tuple[int, int]:
    """Indices of the thresholds between which the curves are worth looking at."""
    first = int(np.argmax(rates.fmr <= 0.9))
    last = int(np.argmax(rates.fnmr >= 0.9))
    # Classes that lie apart, or the wrong way round, are shown with their gap.
    first, last = min(first, last), max(first, last)
    margin = max((last - first) // 20, WIDTH)
    return max(first - margin, 0), min(last + margin, len(rates.cosines) - 1)


def _decades(rates: Rates) -> int:
    """Powers of ten that the axis of rates covers: down to about one error."""
    return min(max(math.ceil(math.log10(rates.impostor_pairs)), 2), _MAX_DECADES)


def write_plot(calibration: Calibration, target: Path) -> None:
    """FMR and FNMR against the threshold, and the detection error trade-off, beside each other.

    Raises:
        InputError: no Matplotlib, a name that does not end in .png or .svg, or the file cannot be written.
    """
    rates = calibration.rates
    first, last = _shown(rates)
    shown = slice(first, last + 1)
    lowest = 10.0 ** -_decades(rates)
    figure = new_figure(12, 5)
    errors, trade_off = figure.subplots(1, 2)
    errors.semilogy(rates.cosines[shown], _positive(rates.fmr[shown]), label="false-match rate")
    errors.semilogy(rates.cosines[shown], _positive(rates.fnmr[shown]), label="false-non-match rate")
    threshold = float(calibration.scale.to_cosine(calibration.default_threshold))
    errors.axvline(threshold, color="grey", linestyle="--", label="suggested default threshold")
    errors.set(xlabel="threshold, cosine", ylabel="rate", ylim=(lowest, 1.5))
    above = errors.twiny()
    above.set_xlim(errors.get_xlim())
    ticks = [tick for tick in errors.get_xticks() if errors.get_xlim()[0] <= tick <= errors.get_xlim()[1]]
    above.set_xticks(ticks, [f"{value:.4g}" for value in calibration.scale.to_scale(ticks)])
    above.set_xlabel("threshold on the scale")
    errors.legend()
    trade_off.loglog(_positive(rates.fmr), _positive(rates.fnmr))
    trade_off.set(xlabel="false-match rate", ylabel="false-non-match rate", title="Detection error trade-off")
    for axes in (errors, trade_off):
        axes.grid(visible=True, which="major", alpha=0.4)
    save(figure, target)


def _positive(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A logarithmic axis has no place for zero."""
    return np.where(values > 0, values, np.nan)

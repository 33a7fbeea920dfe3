"""Error rates of thresholds, by the definitions of ISO/IEC 19795-1.

    FMR(t)  = share of impostor pairs with cosine > t          false-match rate
    FNMR(t) = share of genuine pairs with cosine <= t          false-non-match rate

Known exactly at the bounds of the bins; a threshold between two is moved to the nearer one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from stream_cluster.calibration.scores import BINS, BINS_PER_UNIT, Counts, Scores, bounds

_OUTSIDE = 0.025
"""On each side of a 95% confidence interval."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A rate that was measured, with its 95% confidence interval."""

    errors: int
    trials: int

    @property
    def value(self) -> float:
        """The share of errors."""
        return self.errors / self.trials

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's interval; without any error (or success), by the rule of three: up to 3 / n.

        It supposes independent trials. Pairs that share an object are not, so the truth is a little wider.
        """
        errors, trials = self.errors, self.trials
        if errors == 0:
            return 0.0, min(1.0, 3 / trials)
        if errors == trials:
            return max(0.0, 1 - 3 / trials), 1.0
        low = betaincinv(errors, trials - errors + 1, _OUTSIDE)
        high = betaincinv(errors + 1, trials - errors, 1 - _OUTSIDE)
        return float(low), float(high)


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a threshold gives."""

    cosine: float
    fmr: Rate
    fnmr: Rate


class Rates:
    """Error rates at every bound of the bins."""

    def __init__(self, scores: Scores) -> None:
        """Of at least one genuine and one impostor pair."""
        self.cosines = bounds()
        self.genuine_pairs = int(scores.genuine.sum())
        self.impostor_pairs = int(scores.impostor.sum())
        self._false_matches = _above(scores.impostor)
        self._false_non_matches = self.genuine_pairs - _above(scores.genuine)

    @property
    def fmr(self) -> npt.NDArray[np.float64]:
        """FMR at `cosines`; never increases."""
        return self._false_matches / self.impostor_pairs

    @property
    def fnmr(self) -> npt.NDArray[np.float64]:
        """FNMR at `cosines`; never decreases."""
        return self._false_non_matches / self.genuine_pairs

    def at(self, cosine: float) -> OperatingPoint:
        """At the bound nearest to a cosine."""
        return self._point(int(np.clip(round((cosine + 1) * BINS_PER_UNIT), 0, BINS)))

    def at_fmr(self, target: float) -> OperatingPoint:
        """At the lowest threshold whose FMR is at most `target`; there is one, for above 1 lies nothing."""
        return self._point(int(np.argmax(self._false_matches <= target * self.impostor_pairs)))

    def supports(self, target: float) -> bool:
        """Whether there are enough impostor pairs to claim such an FMR: with none above, 3 / n <= target."""
        return self.impostor_pairs * target >= 3

    def equal_error(self) -> OperatingPoint:
        """Where FMR and FNMR are nearest to each other."""
        return self._point(int(np.argmin(np.abs(self.fmr - self.fnmr))))

    def overlap(self) -> bool:
        """Whether any impostor pair is as similar as some genuine pair."""
        return not bool(((self._false_matches == 0) & (self._false_non_matches == 0)).any())

    def _point(self, index: int) -> OperatingPoint:
        return OperatingPoint(
            float(self.cosines[index]),
            Rate(int(self._false_matches[index]), self.impostor_pairs),
            Rate(int(self._false_non_matches[index]), self.genuine_pairs),
        )


def _above(counts: Counts) -> Counts:
    """How many pairs lie above each bound, shape (BINS + 1,)."""
    return np.concatenate([np.cumsum(counts[::-1])[::-1], [0]])

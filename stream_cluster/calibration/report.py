"""What a calibration found: the scale, error rates at thresholds, and the settings to paste."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

from stream_cluster.calibration.fit import fit_logistic
from stream_cluster.calibration.rates import OperatingPoint, Rate, Rates
from stream_cluster.calibration.scores import Scores
from stream_cluster.matching.scale import LogisticScale
from stream_cluster.model import DescriptorType

SettingsFormat = Literal["toml", "yaml"]

SIMILARITIES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
"""Thresholds of the table of error rates."""
TARGETS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""False-match rates that thresholds are given for."""
FLOOR_RATIO = 10.0
"""The floor is where this many times the target of false matches is: lower thresholds remain in reach of the
forest, and few links are kept in vain."""

_STEP = 1e-6
"""Thresholds of the settings are rounded up to it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A fitted scale and the rates that it was measured with."""

    scale: LogisticScale
    """With parameters rounded as the settings have them."""
    rates: Rates
    impostor_pairs_in_all: int
    """More than `rates.impostor_pairs` when they were sampled."""
    target_fmr: float

    @property
    def default_threshold(self) -> float:
        """On the scale: the lowest threshold with at most the target's false matches, rounded up."""
        return self._similarity_at(self.target_fmr)

    @property
    def floor(self) -> float:
        """On the scale, see `FLOOR_RATIO`."""
        return self._similarity_at(min(FLOOR_RATIO * self.target_fmr, 1.0))

    def similarity(self, point: OperatingPoint) -> float:
        """The threshold of a point on the scale."""
        return float(self.scale.to_scale(point.cosine))

    def _similarity_at(self, fmr: float) -> float:
        similarity = self.similarity(self.rates.at_fmr(fmr))
        return min(round(math.ceil(similarity / _STEP) * _STEP, 6), 1 - _STEP)


def calibrate(scores: Scores, impostor_pairs_in_all: int, target_fmr: float) -> Calibration:
    """Fit and measure. Raises InputError, see `fit_logistic`."""
    fitted = fit_logistic(scores)
    scale = LogisticScale(round(fitted.midpoint, 6), float(f"{fitted.slope:.6g}"))
    return Calibration(scale, Rates(scores), impostor_pairs_in_all, target_fmr)


def settings_text(
    calibration: Calibration,
    descriptor_type: DescriptorType,
    version: int | None,
    form: SettingsFormat,
) -> str:
    """The part of a settings file that puts the scale in force, for a version or all without their own."""
    values = {
        "scale": json.dumps("logistic"),
        "midpoint": json.dumps(calibration.scale.midpoint),
        "slope": json.dumps(calibration.scale.slope),
        "default_threshold": json.dumps(calibration.default_threshold),
        "floor": json.dumps(calibration.floor),
    }
    path = ["similarity", descriptor_type]
    if form == "toml":
        path += [] if version is None else ["versions", str(version)]
        return "\n".join([f"[{'.'.join(path)}]", *(f"{name} = {value}" for name, value in values.items())])
    # In YAML a bare 62 is a number, and keys of settings are text.
    path += [] if version is None else ["versions", json.dumps(str(version))]
    lines = [f"{'  ' * depth}{name}:" for depth, name in enumerate(path)]
    return "\n".join([*lines, *(f"{'  ' * len(path)}{name}: {value}" for name, value in values.items())])


def as_dict(calibration: Calibration) -> dict[str, Any]:
    """All figures, for scripts."""
    rates = calibration.rates
    points = [(None, rates.at(float(calibration.scale.to_cosine(one)))) for one in SIMILARITIES]
    at_fmr = [(target, rates.at_fmr(target)) for target in TARGETS]
    equal = rates.equal_error()
    return {
        "similarity": {
            **calibration.scale.parameters,
            "default_threshold": calibration.default_threshold,
            "floor": calibration.floor,
        },
        "target_fmr": calibration.target_fmr,
        "genuine_pairs": rates.genuine_pairs,
        "impostor_pairs": rates.impostor_pairs,
        "impostor_pairs_in_all": calibration.impostor_pairs_in_all,
        "classes_overlap": rates.overlap(),
        "equal_error": {
            **_point(calibration, equal),
            "rate": (equal.fmr.value + equal.fnmr.value) / 2,
        },
        "rates": [_point(calibration, point) for _, point in points],
        "at_fmr": [
            {"target": target, "enough_pairs": rates.supports(target), **_point(calibration, point)}
            for target, point in at_fmr
        ],
    }


def _point(calibration: Calibration, point: OperatingPoint) -> dict[str, Any]:
    return {
        "similarity": calibration.similarity(point),
        "cosine": point.cosine,
        "fmr": _rate(point.fmr),
        "fnmr": _rate(point.fnmr),
    }


def _rate(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"value": rate.value, "errors": rate.errors, "low_95": low, "high_95": high}

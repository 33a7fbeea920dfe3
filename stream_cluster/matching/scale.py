"""Similarity scales: strictly monotonic functions between the cosine of two codes and what people see.

    cosine      similarity = cosine
    logistic    similarity = 1 / (1 + exp(-slope * (cosine - midpoint)))
    table       straight lines between points [cosine, similarity], flat before the first and after the last

A link is a pair whose similarity is strictly greater than the threshold. Because a scale is monotonic, that
is cosine > to_cosine(threshold), so matching and the state know cosines only. Ties: matching compares
with float32(to_cosine(threshold)), strictly. Both steps are monotonic, so a higher threshold never links a
pair that a lower one does not; two thresholds that round to the same float32 cosine give the same links,
and a pair whose cosine is that very number is no link.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_cluster.config.similarity import ScaleSettings, SimilaritySettings
from stream_cluster.model import SpaceKey

EVERY_PAIR = -2.0
"""A threshold below every cosine, which may round to a little under -1."""
NO_PAIR = 1.0
"""A threshold that no cosine is above."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CosineScale:
    """The identity."""

    lowest: float = -1.0
    highest: float = 1.0

    @property
    def parameters(self) -> dict[str, Any]:
        """What determines the scale, for people and the manifest."""
        return {"scale": "cosine"}

    def to_scale(self, cosine: npt.ArrayLike) -> Floats:
        """Similarity of cosines, float64 of their shape."""
        return np.asarray(cosine, np.float64)

    def to_cosine(self, threshold: npt.ArrayLike) -> Floats:
        """The cosines above which similarity is above a threshold. Raises ValueError outside the range."""
        return _in_range(threshold, self.lowest, self.highest)


@dataclass(frozen=True, slots=True)
class LogisticScale:
    """Similarities from 0 to 1; of a fitted scale, the probability of the same person at even odds."""

    midpoint: float
    slope: float
    lowest: float = 0.0
    highest: float = 1.0

    @property
    def parameters(self) -> dict[str, Any]:
        """See `CosineScale.parameters`."""
        return {"scale": "logistic", "midpoint": self.midpoint, "slope": self.slope}

    def to_scale(self, cosine: npt.ArrayLike) -> Floats:
        """See `CosineScale.to_scale`."""
        z = self.slope * (np.asarray(cosine, np.float64) - self.midpoint)
        small = np.exp(-np.abs(z))  # never overflows
        return np.where(z >= 0, 1.0, small) / (1.0 + small)

    def to_cosine(self, threshold: npt.ArrayLike) -> Floats:
        """See `CosineScale.to_cosine`. From `EVERY_PAIR`, also for 0, to `NO_PAIR`, also for 1."""
        similarity = _in_range(threshold, self.lowest, self.highest)
        with np.errstate(divide="ignore"):
            log_odds = np.log(similarity) - np.log1p(-similarity)
        return np.clip(self.midpoint + log_odds / self.slope, EVERY_PAIR, NO_PAIR)


@dataclass(frozen=True, slots=True)
class TableScale:
    """Straight lines between at least two points, strictly increasing in both."""

    points: tuple[tuple[float, float], ...]

    @property
    def lowest(self) -> float:
        """Similarity of the first point and of every cosine below it."""
        return self.points[0][1]

    @property
    def highest(self) -> float:
        """Similarity of the last point and of every cosine above it."""
        return self.points[-1][1]

    @property
    def parameters(self) -> dict[str, Any]:
        """See `CosineScale.parameters`."""
        return {"scale": "table", "points": [list(point) for point in self.points]}

    def to_scale(self, cosine: npt.ArrayLike) -> Floats:
        """See `CosineScale.to_scale`."""
        cosines, similarities = np.array(self.points).T
        return _interpolate(np.asarray(cosine, np.float64), cosines, similarities)

    def to_cosine(self, threshold: npt.ArrayLike) -> Floats:
        """See `CosineScale.to_cosine`.

        For `lowest`, the first point's cosine: what lies below it has just this similarity, no greater one.
        For `highest`, `NO_PAIR`, because nothing is above it.
        """
        similarity = _in_range(threshold, self.lowest, self.highest)
        cosines, similarities = np.array(self.points).T
        inside = _interpolate(similarity, similarities, cosines)
        return np.where(similarity >= self.highest, NO_PAIR, inside)


Scale = CosineScale | LogisticScale | TableScale


def make_scale(settings: ScaleSettings) -> Scale:
    """The scale that checked settings describe."""
    if settings.midpoint is not None and settings.slope is not None:
        return LogisticScale(settings.midpoint, settings.slope)
    return CosineScale() if settings.points is None else TableScale(settings.points)


def floor_cosine(similarity: SimilaritySettings, key: SpaceKey) -> float:
    """The cosine at or below which links of a new space are not kept."""
    settings = similarity.of_version(key.descriptor_type, key.version)
    return float(make_scale(settings).to_cosine(settings.floor))


def default_cosine(similarity: SimilaritySettings, key: SpaceKey) -> float:
    """The cosine of the threshold of a task that names none."""
    settings = similarity.of_version(key.descriptor_type, key.version)
    return float(make_scale(settings).to_cosine(settings.default_threshold))


def _in_range(threshold: npt.ArrayLike, lowest: float, highest: float) -> Floats:
    values = np.asarray(threshold, np.float64)
    outside = ~((lowest <= values) & (values <= highest))  # also of NaN
    if bool(outside.any()):
        raise ValueError(f"threshold: found {values[outside].flat[0]:g}, expected {lowest:g} to {highest:g}")
    return values


def _interpolate(x: Floats, xs: Floats, ys: Floats) -> Floats:
    """Straight lines through (xs, ys), flat beyond them.

    Not `numpy.interp`: the end of one of its lines may round to above the start of the next.
    """
    part = np.clip(np.searchsorted(xs, x, side="right") - 1, 0, len(xs) - 2)
    share = np.clip((x - xs[part]) / (xs[part + 1] - xs[part]), 0.0, 1.0)
    return np.minimum(ys[part] + share * (ys[part + 1] - ys[part]), ys[part + 1])

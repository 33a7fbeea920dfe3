"""Similarity scales: what a threshold means, by descriptor type and version. `matching/scale.py` computes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta, Struct

from stream_cluster.model import DescriptorType

ScaleName = Literal["cosine", "logistic", "table"]

_PARAMETERS: dict[ScaleName, tuple[str, ...]] = {
    "cosine": (),
    "logistic": ("midpoint", "slope"),
    "table": ("points",),
}
_LEAST_POINTS = 2
MAX_SLOPE = 10_000.0


class ScaleSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scale, and the thresholds that are given on it."""

    scale: Annotated[
        ScaleName,
        Meta(
            description="What thresholds are: the cosine itself, or a logistic or tabulated function of it."
        ),
    ] = "cosine"
    midpoint: Annotated[
        Annotated[float, Meta(ge=-1, le=1)] | None,
        Meta(description="Of a logistic scale: the cosine whose similarity is 0.5."),
    ] = None
    slope: Annotated[
        Annotated[float, Meta(gt=0, le=MAX_SLOPE)] | None,
        Meta(
            description="Of a logistic scale: how steep it is; similarity = 1 / (1 + exp(-slope * "
            "(cosine - midpoint)))."
        ),
    ] = None
    points: Annotated[
        tuple[tuple[float, float], ...] | None,
        Meta(
            description="Of a table: [cosine, similarity] points, both strictly increasing, straight lines "
            "between them and flat beyond."
        ),
    ] = None
    default_threshold: Annotated[
        float, Meta(ge=-1, le=1, description="Threshold of a task that names none, on this scale.")
    ] = 0.55
    floor: Annotated[
        float,
        Meta(
            ge=-1,
            lt=1,
            description="On this scale; links at or below it are not kept. Lower thresholds are matched "
            "again.",
        ),
    ] = 0.45

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest similarity of the scale, and therefore of thresholds."""
        if self.scale == "logistic":
            return 0.0, 1.0
        if self.scale == "table" and self.points:
            return self.points[0][1], self.points[-1][1]
        return -1.0, 1.0


class DescriptorSimilarity(ScaleSettings, frozen=True, kw_only=True):
    """The scale of the versions of a descriptor type that have none of their own."""

    versions: Annotated[
        dict[Annotated[int, Meta(ge=0, le=2**32 - 1)], ScaleSettings],
        Meta(
            description="Scales of single descriptor versions, each complete in itself: what an entry leaves "
            "out has the default of this table."
        ),
    ] = {}


class SimilaritySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What similarity and thresholds mean."""

    face: DescriptorSimilarity = DescriptorSimilarity()
    body: DescriptorSimilarity = DescriptorSimilarity()

    def of_type(self, descriptor_type: DescriptorType) -> DescriptorSimilarity:
        """The settings of a descriptor type."""
        return self.face if descriptor_type == "face" else self.body

    def of_version(self, descriptor_type: DescriptorType, version: int) -> ScaleSettings:
        """The scale of one version of a descriptor."""
        of_type = self.of_type(descriptor_type)
        return of_type.versions.get(version, of_type)


def scale_problems(scale: ScaleSettings) -> Iterator[tuple[str, str]]:
    """What is wrong with a scale: (name of the setting, found …, expected …)."""
    for name in ("midpoint", "slope", "points"):
        value = getattr(scale, name)
        if name in _PARAMETERS[scale.scale]:
            if value is None:
                yield name, f"found none, expected one because of scale {scale.scale}"
        elif value is not None:
            yield name, f"found one that a {scale.scale} scale does not have"
    if scale.scale == "table" and scale.points is not None:
        problem = _table_problem(scale.points)
        if problem is not None:
            yield "points", problem
            return
    lowest, highest = scale.range
    words = f"the range of this {scale.scale} scale"
    if not lowest <= scale.default_threshold <= highest:
        found = f"found {scale.default_threshold:g}, expected {lowest:g} to {highest:g}, {words}"
        yield "default_threshold", found
    if not lowest <= scale.floor < highest:
        yield "floor", f"found {scale.floor:g}, expected at least {lowest:g} and below {highest:g}, {words}"


def _table_problem(points: tuple[tuple[float, float], ...]) -> str | None:
    if len(points) < _LEAST_POINTS:
        return f"found {len(points)}, expected at least {_LEAST_POINTS}"
    for point in points:
        if not all(-1 <= number <= 1 for number in point):  # also of NaN
            return f"found {list(point)}, expected numbers from -1 to 1"
    for before, after in pairwise(points):
        if not (before[0] < after[0] and before[1] < after[1]):
            return f"found {list(after)} after {list(before)}, expected a higher cosine and similarity"
    return None

"""The threshold of a task on the similarity scale of the version that it clusters, and as a cosine."""

from __future__ import annotations

from dataclasses import dataclass

from stream_cluster.config import SimilaritySettings
from stream_cluster.errors import TaskError
from stream_cluster.matching.scale import Scale, make_scale
from stream_cluster.model import DescriptorType


@dataclass(frozen=True, slots=True)
class Threshold:
    """What links of a task are strictly more similar than."""

    value: float
    """On the scale: what requests, statuses and people name."""
    scale: Scale

    @property
    def cosine(self) -> float:
        """What matching and the forest compare with, as float32."""
        return float(self.scale.to_cosine(self.value))


def threshold_on(
    similarity: SimilaritySettings, descriptor_type: DescriptorType, version: int, value: float | None
) -> Threshold:
    """The threshold of a task over a descriptor version; `value` None takes the version's default.

    Raises:
        TaskError: `bad_request` when the value is not on the scale.
    """
    settings = similarity.of_version(descriptor_type, version)
    lowest, highest = settings.range
    if value is None:
        value = settings.default_threshold
    elif not lowest <= value <= highest:
        raise TaskError(
            "bad_request",
            f"content.threshold: found {value:g}, expected {lowest:g} to {highest:g}, the range of the "
            f"{settings.scale} scale of {descriptor_type} version {version}",
        )
    return Threshold(value, make_scale(settings))

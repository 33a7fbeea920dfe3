"""Mean vectors of groups as codes, among which the kernel searches for pairs that may be similar enough."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stream_cluster.graph.groups import Groups
from stream_cluster.matching import quantise
from stream_cluster.model import Codes, Interrupt

_ROUNDING_ANGLE = 1e-3
"""More than float32 can be wrong about the angle between two directions."""

Ids = npt.NDArray[np.int64]


def directions(groups: Groups, names: Ids, interrupt: Interrupt) -> tuple[Codes, float]:
    """The mean of each group as a code, shape (k, dim), and the largest angle between a mean and its code.

    A group of one has its own code.
    """
    codes = np.empty((len(names), groups.dim), np.int8)
    angle = 0.0
    for first in range(0, len(names), 4096):
        some = names[first : first + 4096]
        part = codes[first : first + 4096]
        part[:] = groups.codes[some]
        several = np.flatnonzero(groups.sizes[some] > 1)
        if len(several):
            means, _ = groups.vectors(some[several])
            rounded = quantise(means)
            part[several] = rounded
            angle = max(angle, _largest_angle(means, rounded))
        interrupt.check()
    return codes, angle


def _largest_angle(means: npt.NDArray[np.float32], codes: Codes) -> float:
    dots = np.einsum("ij,ij->i", means, codes, dtype=np.float64)
    squares = np.einsum("ij,ij->i", means, means, dtype=np.float64) * np.einsum(
        "ij,ij->i", codes, codes, dtype=np.float64
    )
    # A mean of zero has no direction, and an average of 0 with everything.
    cosines = dots[squares > 0] / np.sqrt(squares[squares > 0])
    return math.acos(min(1.0, float(cosines.min(initial=1.0)))) + _ROUNDING_ANGLE


def lowered(threshold_cosine: float, angle: float) -> float:
    """A cosine that the codes of two groups exceed when their average similarity is above the threshold.

    The average is the cosine of the means times their lengths, which are at most 1; directions that are
    rounded by an angle in all are at most that angle further apart. A negative average says nothing.
    """
    if threshold_cosine < 0:
        return -2.0
    return math.cos(min(math.pi, math.acos(min(1.0, threshold_cosine)) + angle))

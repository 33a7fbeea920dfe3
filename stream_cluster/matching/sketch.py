"""The rotation by which sketches are made, learned from a sample. What sketches are: `native/sketch.h`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stream_cluster.matching.kernel import Sketch
from stream_cluster.model import Codes

SAMPLE_ROWS = 8192
"""Rows that a rotation is learned from: sixteen for each of 512 dimensions."""

_PART = 32
_WIDEST = 128
_LARGEST_REST = 0.8
_WITHIN_STEPS = 0.999
# Rounding of what is just large enough must not make it too small.
_SMALLEST_STEP = 1.0001 / 253


def sample_rows(count: int) -> npt.NDArray[np.int64]:
    """Up to `SAMPLE_ROWS` of the row numbers 0..count - 1, evenly spread."""
    return np.linspace(0, count - 1, min(count, SAMPLE_ROWS)).astype(np.int64)


def learn_sketch(sample: Codes, threshold_cosine: float) -> Sketch | None:
    """A sketch for codes like these, or None when it would hardly exclude a pair at such a threshold.

    The rotation consists of the leading eigenvectors of the second moment of the unit vectors (principal
    directions, not centred: what counts is the cosine, not the distance to a mean). Within each part of 32
    they are mixed at random, so that all values of a part are about equally large and one step suits them.

    Args:
        sample: codes of shape (n, dim), some rows of the space.
        threshold_cosine: the lowest at which the sketch is going to be used.
    """
    width = min(sample.shape[1] // (2 * _PART) * _PART, _WIDEST)
    vectors = sample.astype(np.float32)
    norms = np.linalg.norm(vectors, axis=1)
    vectors = vectors[norms > 0] / norms[norms > 0, None]
    if width == 0 or len(vectors) < width:
        return None
    moment = (vectors.T @ vectors).astype(np.float64)
    eigenvalues, directions = np.linalg.eigh(moment)
    # The rest p of two vectors adds p² to the bound: near the threshold, that excludes hardly anything.
    rest = 1.0 - float(eigenvalues[-width:].sum() / eigenvalues.sum())
    if rest > _LARGEST_REST * threshold_cosine:
        return None
    random = np.random.default_rng(0)
    leading = directions[:, ::-1][:, :width]
    for first in range(0, width, _PART):
        part = slice(first, first + _PART)
        leading[:, part] = leading[:, part] @ np.linalg.qr(random.standard_normal((_PART, _PART)))[0]
    rotation = np.ascontiguousarray(leading, np.float32)
    # A value beyond 127 steps is cut off, and its row is compared more often: let that be few.
    largest = float(np.quantile(np.abs(vectors @ rotation).max(axis=1), _WITHIN_STEPS))
    return Sketch(rotation, max(largest / 127, _SMALLEST_STEP))

"""Codes for the matching tests: random people, and the shapes that break matchers."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from stream_cluster.matching.codes import quantise

DIMENSIONS = [1, 2, 3, 65, 512, 1025, 4096]
THRESHOLDS = [-1.0, -0.25, 0.0, 0.1, 0.5, 0.9, 0.99999, 1.0]


def people(count, dim, *, per_person=5, noise=0.5, seed=0):
    """Codes of `count` objects, `per_person` of each person, in random order."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((-(-count // per_person), dim)).astype(np.float32)
    vectors = np.repeat(centres, per_person, axis=0)[:count]
    vectors = vectors + noise * random.standard_normal(vectors.shape).astype(np.float32)
    return quantise(vectors[random.permutation(count)].astype(np.float32))


def palette(dim, seed):
    """Rows to compose a set from: zeros, extremes, opposites, one-hot, random, and near copies of it."""
    random = np.random.default_rng(seed)
    some = random.integers(-127, 128, dim)
    near = some.copy()
    near[random.integers(dim)] *= -1
    one = np.zeros(dim, int)
    one[random.integers(dim)] = 1
    most = np.full(dim, 127)
    other = random.integers(-127, 128, dim)
    return np.array([np.zeros(dim), most, -most, some, -some, near, one, other], np.int8)


@st.composite
def code_sets(draw, dimensions=tuple(DIMENSIONS), max_rows=12):
    """Small sets of codes, rich in identical, opposite and zero rows."""
    rows = palette(draw(st.sampled_from(dimensions)), draw(st.integers(0, 999)))
    picks = draw(st.lists(st.integers(0, len(rows) - 1), max_size=max_rows))
    return rows[np.array(picks, int)]


thresholds = st.one_of(
    st.sampled_from(THRESHOLDS), st.floats(-1, 1, width=32, allow_nan=False, allow_subnormal=False)
)

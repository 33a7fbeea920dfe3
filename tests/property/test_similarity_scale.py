"""Scales are monotonic, invertible, and a link on the scale is a link above the matching cosine."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.matching import all_pairs
from stream_cluster.matching.scale import CosineScale, LogisticScale, TableScale
from tests.support.descriptors import code_sets

cosines = st.floats(-1, 1)
logistic = st.builds(LogisticScale, st.floats(-0.9, 0.9), st.floats(0.1, 200))


@st.composite
def tables(draw):
    """Tables whose points differ enough for float64 to tell them apart."""
    count = draw(st.integers(2, 6))
    columns = [
        sorted(draw(st.sets(st.integers(-1000, 1000), min_size=count, max_size=count))) for _ in range(2)
    ]
    return TableScale(tuple((a / 1000, b / 1000) for a, b in zip(*columns, strict=True)))


scales = st.one_of(st.just(CosineScale()), logistic, tables())


@st.composite
def thresholds_on(draw, scale, count=1):
    """Thresholds within the range of a scale, its ends included."""
    one = st.one_of(st.floats(scale.lowest, scale.highest), st.sampled_from([scale.lowest, scale.highest]))
    return [draw(one) for _ in range(count)]


@given(scales, st.lists(cosines, min_size=2, max_size=20))
def test_more_alike_is_never_less_similar(scale, values):
    similarities = scale.to_scale(np.sort(values))
    assert similarities.dtype == np.float64
    assert (np.diff(similarities) >= 0).all()
    assert (similarities >= scale.lowest).all()
    assert (similarities <= scale.highest).all()


@given(st.data(), scales)
def test_a_higher_threshold_never_has_a_lower_float32_cosine(data, scale):
    thresholds = np.sort(data.draw(thresholds_on(scale, count=10)))
    assert (np.diff(scale.to_cosine(thresholds).astype(np.float32)) >= 0).all()


@given(st.data(), scales)
def test_the_similarity_of_a_thresholds_cosine_is_the_threshold(data, scale):
    [threshold] = data.draw(thresholds_on(scale))
    cosine = scale.to_cosine(threshold)
    if -1 <= cosine < 1:
        assert abs(scale.to_scale(cosine) - threshold) <= 1e-9


@given(scales, cosines)
def test_the_cosine_of_a_similarity_is_the_cosine_where_the_scale_is_not_flat(scale, cosine):
    similarity = scale.to_scale(cosine)
    steep = scale.to_scale(cosine + 1e-6) - scale.to_scale(cosine - 1e-6) > 1e-9
    if steep and similarity < scale.highest:
        assert abs(scale.to_cosine(similarity) - cosine) <= 2e-6


@settings(deadline=None)
@given(st.data(), scales, code_sets(dimensions=(3, 65)))
def test_links_are_the_pairs_whose_similarity_on_the_scale_is_above_the_threshold(data, scale, codes):
    [threshold] = data.draw(thresholds_on(scale))

    def pairs(above):
        found = {}
        for links in all_pairs(codes, above):
            triples = zip(links.a.tolist(), links.b.tolist(), links.similarity.tolist(), strict=True)
            found |= {(a, b): similarity for a, b, similarity in triples}
        return found

    every = pairs(-2.0)
    assert len(every) == len(codes) * (len(codes) - 1) // 2
    linked = set(pairs(float(scale.to_cosine(threshold))))
    for pair, cosine in every.items():
        similarity = float(scale.to_scale(cosine))
        # At the threshold itself, what float32 makes of its cosine decides.
        if abs(similarity - threshold) > 1e-3 or similarity in {scale.lowest, scale.highest}:
            assert (pair in linked) == (similarity > threshold)

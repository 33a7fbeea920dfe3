"""Similarity scales: their values, their ends, and the settings that describe them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from stream_cluster.config import load_settings
from stream_cluster.errors import ConfigError
from stream_cluster.matching import all_pairs, quantise
from stream_cluster.matching.scale import (
    EVERY_PAIR,
    NO_PAIR,
    CosineScale,
    LogisticScale,
    TableScale,
    floor_cosine,
    make_scale,
)
from stream_cluster.model import SpaceKey

P = "STREAM_CLUSTER_SIMILARITY__"
LOGISTIC = LogisticScale(midpoint=0.4, slope=20.0)
TABLE = TableScale(((0.0, 0.1), (0.5, 0.6), (0.9, 0.8)))


def test_the_cosine_scale_changes_nothing():
    assert CosineScale().to_scale([-1, 0.3, 1]).tolist() == [-1, 0.3, 1]
    assert CosineScale().to_cosine(0.3) == 0.3


def test_the_logistic_scale_has_the_values_of_its_formula():
    assert LOGISTIC.to_scale(0.4) == 0.5
    assert LOGISTIC.to_scale(0.45) == pytest.approx(1 / (1 + math.exp(-1)))
    assert LOGISTIC.to_cosine(1 / (1 + math.exp(1))) == pytest.approx(0.35)


def test_a_steep_logistic_scale_overflows_nowhere():
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert LogisticScale(0.0, 10_000.0).to_scale([-1, 0, 1]).tolist() == pytest.approx([0, 0.5, 1])


def test_a_table_has_straight_lines_between_its_points_and_is_flat_beyond_them():
    found = TABLE.to_scale([-1, 0, 0.25, 0.5, 0.7, 0.9, 1])
    assert found == pytest.approx(np.array([0.1, 0.1, 0.35, 0.6, 0.7, 0.8, 0.8]))
    assert TABLE.to_cosine([0.35, 0.6, 0.7]) == pytest.approx(np.array([0.25, 0.5, 0.7]))


def test_at_the_lowest_threshold_of_a_table_only_what_is_above_its_first_point_links():
    assert TABLE.to_cosine(0.1) == 0.0


@pytest.mark.parametrize("scale", [CosineScale(), LOGISTIC, TABLE])
def test_at_the_highest_threshold_nothing_links(scale):
    assert scale.to_cosine(scale.highest) == NO_PAIR
    same = np.ones((2, 3), np.int8)
    assert list(all_pairs(same, float(scale.to_cosine(scale.highest)))) == []


def test_at_the_lowest_threshold_of_a_logistic_scale_every_pair_links_even_opposites():
    assert LOGISTIC.to_cosine(0.0) == EVERY_PAIR
    vectors = np.random.default_rng(3).standard_normal((20, 8)).astype(np.float32)
    codes = quantise(np.concatenate([vectors, -vectors]))
    assert sum(map(len, all_pairs(codes, float(LOGISTIC.to_cosine(0.0))))) == 40 * 39 // 2


@pytest.mark.parametrize(
    ("scale", "threshold", "expected"),
    [
        (CosineScale(), -1.5, "found -1.5, expected -1 to 1"),
        (LOGISTIC, [0.5, 1.25], "found 1.25, expected 0 to 1"),
        (TABLE, 0.05, "found 0.05, expected 0.1 to 0.8"),
        (TABLE, math.nan, "found nan, expected 0.1 to 0.8"),
    ],
)
def test_a_threshold_outside_the_scale_is_an_error_that_names_the_range(scale, threshold, expected):
    with pytest.raises(ValueError, match=expected):
        scale.to_cosine(threshold)


FILES = {
    "c.toml": """
[similarity.face]
scale = "logistic"
midpoint = 0.4
slope = 20
default_threshold = 0.8
floor = 0.5
[similarity.face.versions.62]
scale = "table"
points = [[0, 0.1], [0.5, 0.6], [0.9, 0.8]]
default_threshold = 0.7
floor = 0.35
[similarity.face.versions.63]
default_threshold = 0.6
""",
    "c.yaml": """
similarity:
  face:
    scale: logistic
    midpoint: 0.4
    slope: 20
    default_threshold: 0.8
    floor: 0.5
    versions:
      "62": {scale: table, points: [[0, 0.1], [0.5, 0.6], [0.9, 0.8]], default_threshold: 0.7, floor: 0.35}
      "63": {default_threshold: 0.6}
""",
}


def of_file(tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    return load_settings(tmp_path / name, {}).similarity


@pytest.mark.parametrize("name", FILES)
def test_a_version_has_its_own_scale_or_that_of_its_descriptor_type(tmp_path, name):
    similarity = of_file(tmp_path, name)
    assert make_scale(similarity.of_version("face", 1)) == LOGISTIC
    assert make_scale(similarity.of_version("face", 62)) == TABLE
    assert make_scale(similarity.of_version("body", 62)) == CosineScale()
    assert [similarity.of_version("face", one).default_threshold for one in (1, 62, 63)] == [0.8, 0.7, 0.6]


def test_the_entry_of_a_version_inherits_nothing_from_its_descriptor_type(tmp_path):
    of_version = of_file(tmp_path, "c.toml").of_version("face", 63)
    assert make_scale(of_version) == CosineScale()
    assert of_version.floor == 0.45


def test_floors_are_given_on_the_scale_and_kept_as_cosines(tmp_path):
    similarity = of_file(tmp_path, "c.toml")
    floors = [floor_cosine(similarity, SpaceKey("a", "event", "face", version)) for version in (1, 62, 63)]
    assert floors == pytest.approx([0.4, 0.25, 0.45])


def test_scales_can_be_set_from_the_environment_lists_and_tables_as_json(tmp_path):
    versions = {"62": {"scale": "logistic", "midpoint": 0.4, "slope": 20}}
    environ = {
        P + "BODY__SCALE": "table",
        P + "BODY__POINTS": "[[0, 0.1], [0.5, 0.6], [0.9, 0.8]]",
        P + "FACE__VERSIONS": json.dumps(versions),
    }
    similarity = load_settings(None, environ).similarity
    assert make_scale(similarity.of_version("body", 1)) == TABLE
    assert make_scale(similarity.of_version("face", 62)) == LOGISTIC
    assert make_scale(similarity.of_version("face", 1)) == CosineScale()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            {"SCALE": "logistic"},
            "similarity.face.midpoint (default; STREAM_CLUSTER_SIMILARITY__FACE__MIDPOINT)",
        ),
        (
            {"SCALE": "logistic", "MIDPOINT": "0.1"},
            "SLOPE): found none, expected one because of scale logistic",
        ),
        ({"SLOPE": "3"}, "__SLOPE: found one that a cosine scale does not have"),
        ({"SCALE": "table"}, "POINTS): found none, expected one because of scale table"),
        (
            {"SCALE": "logistic", "MIDPOINT": "0", "SLOPE": "0"},
            "__SLOPE: found '0', expected number, above 0",
        ),
        ({"SCALE": "logistic", "MIDPOINT": "2", "SLOPE": "1"}, "__MIDPOINT: found '2', expected number"),
        ({"SCALE": "table", "POINTS": "[[0, 0]]"}, "__POINTS: found 1, expected at least 2"),
        (
            {"SCALE": "table", "POINTS": "[[0, 0], [0.5, 0.5], [0.5, 1]]"},
            "__POINTS: found [0.5, 1.0] after [0.5, 0.5], expected a higher cosine and similarity",
        ),
        ({"SCALE": "table", "POINTS": "[[0, 0.2], [1, 0.2]]"}, "found [1.0, 0.2] after [0.0, 0.2]"),
        (
            {"SCALE": "table", "POINTS": "[[-2, 0], [1, 1]]"},
            "found [-2.0, 0.0], expected numbers from -1 to 1",
        ),
        (
            {"SCALE": "table", "POINTS": "[[0, 0"},
            "expected list of [number, number] in JSON (Input data was truncated)",
        ),
        ({"SCALE": "table", "POINTS": "[[0, 0, 0]]"}, "length 2, got 3"),
        (
            {"SCALE": "table", "POINTS": "[[0, 0.5], [1, 1]]"},
            "FLOOR): found 0.45, expected at least 0.5 and below 1, the range of this table scale",
        ),
        (
            {"SCALE": "table", "POINTS": "[[0, 0], [1, 0.5]]"},
            "DEFAULT_THRESHOLD): found 0.55, expected 0 to 0.5, the range of this table scale",
        ),
        ({"VERSIONS": '{"x": {}}'}, "__VERSIONS: found {'x': {}}, expected table from integer"),
        ({"VERSIONS": '{"62": {"slop": 1}}'}, "unknown field `slop`"),
        (
            {"VERSIONS": '{"62": {"slope": 1}}'},
            "__VERSIONS: version 62: slope: found one that a cosine scale",
        ),
    ],
)
def test_a_wrong_scale_is_an_error_that_says_what_and_where(given, expected):
    with pytest.raises(ConfigError) as caught:
        load_settings(None, {f"{P}FACE__{name}": value for name, value in given.items()})
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[similarity.face.versions.62]\nscale = "logistic"\nmidpoint = nan\nslope = 3', "midpoint"),
        ('[similarity.face.versions.62]\nscale = "logistic"\nmidpoint = 0\nslope = inf', "slope"),
        ('[similarity.face]\nscale = "table"\npoints = [[0, 0], [nan, 1]]', "numbers from -1 to 1"),
    ],
)
def test_a_number_that_is_not_finite_inside_a_list_or_table_is_refused(tmp_path, text, expected):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        load_settings(path, {})


def test_a_yaml_version_without_quotes_is_told_to_be_text(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("similarity:\n  face:\n    versions:\n      62: {}\n")
    with pytest.raises(ConfigError, match="key 62 that is not text"):
        load_settings(path, {})

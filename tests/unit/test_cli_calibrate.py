"""`stream-cluster calibrate` as a person and as a script use it."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from stream_cluster.config import load_settings
from tests.support.cli import invoke
from tests.support.files import clusters_of, manifest_of


@pytest.fixture
def people(tmp_path):
    """300 objects of 60 people."""
    random = np.random.default_rng(7)
    labels = np.repeat(np.arange(60), 5)
    vectors = random.standard_normal((60, 64))[labels] + 0.6 * random.standard_normal((300, 64))
    path = tmp_path / "people.npz"
    ids = np.array([f"o{number:03}" for number in range(300)])
    np.savez(path, ids=ids, descriptors=vectors.astype(np.float32), labels=labels)
    return path


@pytest.fixture
def pairs(tmp_path):
    """Cosines of two normal distributions, of which the truth is known: midpoint 0.4, slope 12."""
    random = np.random.default_rng(1)
    rows = ["cosine,same"]
    for mean, same, count in ((0.52, 1, 20_000), (0.28, 0, 60_000)):
        cosines = random.normal(mean, np.sqrt(0.24 / 12), count).clip(-1, 1)
        rows += [f"{cosine:.6f},{same}" for cosine in cosines]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows))
    return path


def test_the_scale_of_known_distributions_is_found_from_pairs(pairs):
    result = invoke("calibrate", pairs, "--target-fmr", "1e-3", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["similarity"]["midpoint"] == pytest.approx(0.4, abs=0.01)
    assert found["similarity"]["slope"] == pytest.approx(12, rel=0.05)
    assert found["genuine_pairs"] == 20_000
    assert found["plot"] is None
    assert result.stderr == ""


def test_a_person_sees_tables_a_plot_and_settings_to_paste(pairs, tmp_path):
    result = invoke("calibrate", pairs, "--target-fmr", "1e-3", "--descriptor-version", "62")
    assert result.exit_code == 0, result.stderr
    for words in ("genuine pairs", "equal error rate", "FNMR (95% interval)", "m false-match rate"):
        assert words in result.stdout
    assert "too few impostor pairs" in result.stdout  # to show an FMR of 1e-6
    text = result.stdout[result.stdout.index("[similarity.face.versions.62]") :]
    (tmp_path / "settings.toml").write_text(text)
    similarity = load_settings(tmp_path / "settings.toml", {}).similarity
    assert similarity.of_version("face", 62).scale == "logistic"
    assert similarity.of_version("face", 1).scale == "cosine"


def test_what_is_calibrated_and_pasted_clusters_at_the_suggested_false_match_rate(people, tmp_path):
    result = invoke("calibrate", people, "--target-fmr", "1e-4", "--format", "yaml", "--json")
    found = json.loads(result.stdout)
    config = tmp_path / "settings.yaml"
    config.write_text(found["settings"])
    scaled, plain = tmp_path / "scaled.zip", tmp_path / "plain.zip"
    result = invoke("cluster", people, "--config", config, "-o", scaled, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["threshold"] == found["similarity"]["default_threshold"]
    parameters = manifest_of(scaled)["parameters"]
    assert parameters["similarity"]["slope"] == found["similarity"]["slope"]
    cosine = parameters["threshold_cosine"]
    assert invoke("cluster", people, "--threshold", repr(cosine), "-o", plain).exit_code == 0
    assert clusters_of(scaled) == clusters_of(plain)
    assert 50 < len(clusters_of(scaled)) < 70


def test_a_threshold_outside_the_scale_is_a_mistake_on_the_command_line(people, tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text('[similarity.face]\nscale = "logistic"\nmidpoint = 0.4\nslope = 12\n')
    for version in ([], ["--descriptor-version", "7"]):
        result = invoke(
            "cluster", people, "--config", config, "--threshold", "-0.5", "-o", tmp_path / "o.zip", *version
        )
        assert result.exit_code == 2
        assert (
            "content.threshold: found -0.5, expected 0 to 1, the range of the logistic scale" in result.stderr
        )


def test_the_picture_is_a_png(people, tmp_path):
    picture = tmp_path / "rates.png"
    result = invoke("calibrate", people, "--target-fmr", "1e-3", "--plot", picture)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(picture.resolve())
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(data[begin : begin + 4], "big") for begin in (16, 20))
    assert (width, height) == (1440, 600)


def test_without_matplotlib_the_picture_is_refused_before_any_work(tmp_path, people, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = invoke("calibrate", people, "--plot", tmp_path / "rates.png")
    assert result.exit_code == 2
    assert "pip install 'stream-cluster[plot]'" in result.stderr
    assert result.stdout == ""


def test_a_picture_that_cannot_be_written_is_an_error(tmp_path, people):
    result = invoke("calibrate", people, "--plot", tmp_path / "none" / "rates.png")
    assert result.exit_code == 2
    assert "rates.png: cannot be written" in result.stderr


def test_too_few_impostor_pairs_for_the_target_and_classes_apart_are_warnings(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("cosine,same\n0.9,1\n0.1,0\n0.8,1\n0.2,0\n")
    result = invoke("calibrate", path)
    assert result.exit_code == 0, result.stderr
    assert "2 impostor pairs cannot show an FMR of 1e-05: at least 300,000 are needed" in result.stderr
    assert "no impostor pair is as similar as a genuine one" in result.stderr


def test_sampled_impostor_pairs_are_said_to_be_sampled(people):
    result = invoke("calibrate", people, "--max-impostor-pairs", "5000", "--target-fmr", "1e-3")
    assert result.exit_code == 0, result.stderr
    assert "5,000, drawn from 44,250" in result.stdout


def test_pairs_of_ids_take_their_descriptors_from_the_npz(people, tmp_path):
    with np.load(people) as arrays:
        ids, labels = arrays["ids"], arrays["labels"]
    path = tmp_path / "pairs.csv"
    lines = [
        f"{ids[a]},{ids[b]},{int(labels[a] == labels[b])}"
        for a in range(0, 300, 3)
        for b in range(a + 1, 300)
    ]
    path.write_text("\n".join(["a,b,same", *lines]))
    result = invoke("calibrate", path, "--descriptors", people, "--target-fmr", "1e-3", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["genuine_pairs"] == sum(line.endswith("1") for line in lines)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--target-fmr", "0"], "--target-fmr: found 0, expected a rate above 0 and below 1"),
        (["--target-fmr", "nan"], "--target-fmr: found nan"),
    ],
)
def test_options_out_of_range_are_refused(people, options, expected):
    result = invoke("calibrate", people, *options)
    assert result.exit_code == 2
    assert expected in result.stderr


def test_descriptors_beside_a_labelled_file_are_refused(people):
    result = invoke("calibrate", people, "--descriptors", people)
    assert result.exit_code == 2
    assert "--descriptors has no effect" in result.stderr


def test_a_file_that_is_not_there_is_named(tmp_path):
    result = invoke("calibrate", tmp_path / "none.npz")
    assert result.exit_code == 2
    assert "none.npz: cannot be read" in result.stderr

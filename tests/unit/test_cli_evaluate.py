"""`stream-cluster evaluate` as a person and as a script use it."""

from __future__ import annotations

import json
import sys
import zipfile

import numpy as np
import pytest

from stream_cluster.cli.options import parse_thresholds
from stream_cluster.errors import InputError
from stream_cluster.evaluation.measures import measure
from tests.support.cli import invoke
from tests.support.files import clusters_of


@pytest.fixture
def people(tmp_path):
    """200 objects of 40 people in people.npz and truth.csv, and their archive at 0.5."""
    random = np.random.default_rng(7)
    person = np.repeat(np.arange(40), 5)
    vectors = random.standard_normal((40, 32))[person] + 0.75 * random.standard_normal((200, 32))
    ids = np.array([f"o{number:03}" for number in range(200)])
    np.savez(tmp_path / "people.npz", ids=ids, descriptors=vectors.astype(np.float32))
    write_truth(tmp_path, ids, person)
    result = invoke("cluster", tmp_path / "people.npz", "--threshold", "0.5", "-o", tmp_path / "a.zip")
    assert result.exit_code == 0, result.stderr
    return tmp_path


def write_truth(folder, ids, person):
    rows = [f"{one},p{number}" for one, number in zip(ids, person, strict=True)]
    (folder / "truth.csv").write_text("\n".join(["id,label", *rows]))


def evaluated(*arguments):
    result = invoke("evaluate", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout), result.stderr


def expected_quality(archive):
    clusters = clusters_of(archive)
    number = {one: at for at, cluster in enumerate(clusters) for one in cluster}
    ids = sorted(number)
    return measure([number[one] for one in ids], [int(one[1:]) // 5 for one in ids])


def flat(quality):
    """Scores by one name each; their last bits depend on the numbers of the clusters."""
    pairs = {
        f"{name}.{part}": quality[name][part] for name in ("pairwise", "bcubed") for part in quality[name]
    }
    return pairs | {name: value for name, value in quality.items() if not isinstance(value, dict)}


def test_an_archive_is_compared_with_the_truth(people):
    found, warnings = evaluated(people / "a.zip", people / "truth.csv")
    assert flat(found["quality"]) == pytest.approx(flat(expected_quality(people / "a.zip").as_dict()))
    assert found["counts"] == {"objects": 200, "evaluated": 200, "without_label": 0, "not_found": 0}
    assert (found["parameters"]["threshold"], found["parameters"]["linkage"]) == (0.5, "components")
    assert warnings == ""


def test_an_unpacked_archive_is_compared_as_the_zip_is(people):
    with zipfile.ZipFile(people / "a.zip") as zipped:
        zipped.extractall(people / "a")
    assert evaluated(people / "a", people / "truth.csv") == evaluated(people / "a.zip", people / "truth.csv")


def test_the_worst_merges_and_splits_are_listed_with_their_ids(people):
    archive = people / "b.zip"
    assert invoke("cluster", people / "people.npz", "--threshold", "0.57", "-o", archive).exit_code == 0
    found, _ = evaluated(archive, people / "truth.csv")
    worst = found["worst_merges"][0]
    members = next(cluster for cluster in clusters_of(archive) if worst["largest"][0]["ids"][0] in cluster)
    assert len(members) == worst["objects"]
    for part in worst["largest"]:
        assert all(f"p{int(one[1:]) // 5}" == part["label"] and one in members for one in part["ids"])
    assert found["worst_splits"]
    for split in found["worst_splits"]:
        assert split["clusters"] == len(split["largest"]) > 1
    result = invoke("evaluate", archive, people / "truth.csv", "--worst", "1")
    assert result.exit_code == 0, result.stderr
    for words in (
        "Worst merges",
        "Worst splits",
        "BCubed",
        "largest impure cluster",
        worst["largest"][0]["ids"][0],
    ):
        assert words in result.stdout
    result = invoke("evaluate", archive, people / "truth.csv", "--worst", "0")
    assert "Worst" not in result.stdout


def test_objects_of_one_side_only_are_counted_and_said(people):
    ids = [f"o{number:03}" for number in range(150)] + ["gone"]
    write_truth(people, ids, [*np.repeat(np.arange(30), 5), 30])
    found, warnings = evaluated(people / "a.zip", people / "truth.csv")
    assert found["counts"] == {"objects": 200, "evaluated": 150, "without_label": 50, "not_found": 1}
    assert found["quality"]["people"] == 30
    assert "50 of 200 objects are not in the truth: not measured" in warnings
    assert "1 objects of the truth were not clustered: not measured" in warnings
    swept, warnings = evaluated(people / "people.npz", people / "truth.csv", "--sweep", "0.5")
    assert swept["counts"] == found["counts"]
    assert "50 of 200 objects" in warnings
    # Objects without a label still take part in the clustering.
    assert swept["linkages"]["components"]["points"][0]["pairwise"] == found["quality"]["pairwise"]


def test_a_sweep_measures_what_a_task_makes_at_every_threshold_and_linkage(people):
    found, warnings = evaluated(people / "people.npz", people / "truth.csv", "--sweep", "0.4:0.6:0.1")
    assert warnings == ""
    assert list(found["linkages"]) == ["components", "average"]
    for linkage, swept in found["linkages"].items():
        assert [point["threshold"] for point in swept["points"]] == [0.4, 0.5, 0.6]
        for point in swept["points"]:
            archive = people / "one.zip"
            invoke(
                *("cluster", people / "people.npz", "--threshold", point["threshold"]),
                *("--linkage", linkage, "-o", archive),
            )
            single, _ = evaluated(archive, people / "truth.csv")
            measured = {name: point[name] for name in single["quality"]}
            assert flat(measured) == pytest.approx(flat(single["quality"]))
        assert swept["best"]["pairwise"]["f"] == max(point["pairwise"]["f"] for point in swept["points"])


def test_a_sweep_is_on_the_scale_of_the_settings(people):
    config = people / "settings.toml"
    config.write_text('[similarity.face]\nscale = "logistic"\nmidpoint = 0.4\nslope = 12\n')
    truth = people / "truth.csv"
    found, _ = evaluated(people / "people.npz", truth, "--sweep", "0.5,0.9", "--config", config)
    points = found["linkages"]["average"]["points"]
    assert [point["cosine"] for point in points] == pytest.approx([0.4, 0.4 + np.log(9) / 12])
    assert found["space"]["similarity"]["slope"] == 12
    result = invoke("evaluate", people / "people.npz", truth, "--sweep", "-0.5", "--config", config)
    assert result.exit_code == 2
    assert "found -0.5, expected 0 to 1, the range of the logistic scale" in result.stderr


def test_a_person_sees_a_table_for_each_linkage_and_what_is_best(people):
    picture = people / "sweep.svg"
    arguments = [people / "people.npz", people / "truth.csv", "--sweep", "0.3:0.7:0.1", "--plot", picture]
    result = invoke("evaluate", *arguments)
    assert result.exit_code == 0, result.stderr
    for words in ("components", "average: highest pairwise F", "BCubed precision", "BCubed F at least 0.95"):
        assert words in result.stdout
    assert result.stdout.splitlines()[-1] == str(picture.resolve())
    first = picture.read_bytes()
    assert b"<svg" in first
    assert b"BCubed F, 200 objects" in first
    assert invoke("evaluate", *arguments).exit_code == 0
    assert picture.read_bytes() == first
    png = people / "sweep.png"
    assert invoke("evaluate", *arguments[:-1], png).exit_code == 0
    assert png.read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_picture_is_refused_before_any_work(people, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    arguments = [people / "people.npz", people / "truth.csv", "--sweep", "0.5", "--plot", people / "s.svg"]
    result = invoke("evaluate", *arguments)
    assert result.exit_code == 2
    assert "pip install 'stream-cluster[plot]'" in result.stderr


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("a.zip", ["--plot", "x.svg"], "--plot has no effect without --sweep"),
        ("a.zip", ["--linkage", "average"], "--linkage has no effect without --sweep"),
        ("people.npz", ["--sweep", "0.5", "--worst", "3"], "--worst has no effect with --sweep"),
        ("people.npz", ["--sweep", "0.5", "--linkage", "single"], "--linkage: found 'single', expected"),
        (
            "people.npz",
            ["--sweep", "0.5", "--plot", "x.jpg"],
            "found the ending '.jpg', expected .png or",
        ),
        ("people.npz", [], "expected the archive of a task, with clusters.jsonl"),
        ("truth.csv", [], "truth.csv: not a zip file, expected the archive of a task; --sweep evaluates"),
        (
            "a.zip",
            ["--sweep", "0.5"],
            "found clusters.jsonl, manifest.json, report.csv, report.html, expected the arrays",
        ),
        ("none.zip", [], "none.zip: cannot be read"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(people, file, options, message):
    result = invoke("evaluate", people / file, people / "truth.csv", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_truth_that_is_no_csv_is_refused(people):
    result = invoke("evaluate", people / "a.zip", people / "people.npz")
    assert result.exit_code == 2
    assert "found a zip file, expected CSV with the header id,label" in result.stderr


def test_thresholds_are_a_range_with_both_ends_or_a_list():
    assert parse_thresholds("--sweep", "0.3:0.7:0.2") == [0.3, 0.5, 0.7]
    assert parse_thresholds("--sweep", "0.3:0.72:0.2") == [0.3, 0.5, 0.7]
    assert parse_thresholds("--sweep", "-0.5:0.4:0.001")[-1] == 0.4
    assert parse_thresholds("--sweep", "0.6,0.5, 0.6") == [0.5, 0.6]


@pytest.mark.parametrize(
    "text", ["", "a", "0.5:0.3:0.1", "0.3:0.5:0", "0.3:0.5", "nan", "0:inf:1", "0:1:-0.1"]
)
def test_thresholds_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="--sweep: found"):
        parse_thresholds("--sweep", text)


def test_too_many_thresholds_are_refused():
    with pytest.raises(InputError, match=r"found 10,001 thresholds, expected at most 1,000"):
        parse_thresholds("--sweep", "0:1:0.0001")

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.environment import environment
from benchmarks.faces import main, read_clusters, read_faces, run_cluster, table
from benchmarks.reference import (
    code_links,
    compare_links,
    cosine_links,
    reference_components,
    within_tolerance,
)
from stream_cluster.generate import GenerateOptions, write_events
from stream_cluster.model import Links


def links(*triples):
    a, b, similarity = zip(*triples, strict=True) if triples else ((), (), ())
    return Links(np.array(a, np.uint32), np.array(b, np.uint32), np.array(similarity, np.float32))


@pytest.fixture(scope="module")
def vectors():
    return np.random.default_rng(5).normal(size=(600, 24)).astype(np.float32)


def test_cosine_links_are_all_pairs_above_the_floor(vectors):
    found = cosine_links(vectors, 0.4)
    units = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines = np.triu(units @ units.T, 1)
    assert {*zip(found.a.tolist(), found.b.tolist(), strict=True)} == {
        *map(tuple, np.argwhere(cosines > 0.4).tolist())
    }
    assert np.allclose(found.similarity, cosines[found.a, found.b], atol=1e-6)


def test_code_links_differ_from_cosines_by_little(vectors):
    by_cosine, by_code = cosine_links(vectors, 0.3), code_links(vectors, 0.3)
    difference = compare_links(by_cosine, by_code, 0.5, len(vectors))
    assert difference.by_cosine > 500
    assert abs(difference.by_cosine - difference.by_code) <= difference.differing < 30
    assert 0 < difference.farthest < 0.01


def test_differing_links_are_counted_on_both_sides_with_the_farthest_distance():
    by_cosine = links((0, 1, 0.53), (0, 2, 0.519), (1, 2, 0.5215), (2, 3, 0.3))
    by_code = links((0, 1, 0.53), (0, 2, 0.521), (1, 2, 0.519), (2, 3, 0.3))
    difference = compare_links(by_cosine, by_code, 0.52, 4)
    assert (difference.by_cosine, difference.by_code, difference.differing) == (2, 2, 2)
    assert difference.farthest == pytest.approx(0.0015, abs=1e-6)


def test_a_differing_link_below_the_floor_is_not_measured_as_near():
    with pytest.raises(ValueError, match="below the floor"):
        compare_links(links((0, 1, 0.6)), links((1, 2, 0.6)), 0.52, 3)


def test_equal_links_do_not_differ():
    same = links((0, 1, 0.6))
    assert compare_links(same, same, 0.5, 2).farthest == 0


def test_components_take_only_links_strictly_above_the_threshold():
    graph = links((0, 1, 0.75), (1, 2, 0.5), (3, 4, 0.9))
    labels = reference_components(6, graph, 0.5)
    assert [list(labels).index(label) for label in labels] == [0, 0, 2, 3, 3, 5]


BORDER = links((0, 1, 0.9), (1, 2, 0.5215), (2, 3, 0.9), (3, 4, 0.5185), (5, 6, 0.4))


@pytest.mark.parametrize(
    ("labels", "accepted", "identical"),
    [
        ([0, 0, 0, 0, 1, 2, 3], True, True),
        ([0, 0, 1, 1, 4, 2, 3], True, False),  # a link just above the threshold was missed
        ([0, 0, 0, 0, 0, 2, 3], True, False),  # a link just below the threshold was taken
        ([0, 1, 1, 1, 4, 2, 3], False, False),  # a certain link was missed
        ([0, 0, 0, 0, 1, 2, 2], False, False),  # two objects together that nothing links
        ([0, 0, 0, 0, 2, 2, 3], False, False),
        ([9, 9, 9, 9, -5, 70, 1], True, True),  # names do not matter
    ],
)
def test_only_links_near_the_threshold_may_matter(labels, accepted, identical):
    agreement = within_tolerance(np.array(labels), BORDER, 0.52)
    assert (agreement.accepted, agreement.identical) == (accepted, identical)


def test_misses_and_unfounded_clusters_are_counted():
    apart = within_tolerance(np.arange(7), BORDER, 0.52)
    assert (apart.missed, apart.unfounded) == (2, 0)
    together = within_tolerance(np.zeros(7, int), BORDER, 0.52)
    assert (together.missed, together.unfounded) == (0, 1)


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 0.9))
def test_components_at_any_threshold_within_the_tolerance_are_accepted(seed, threshold):
    random = np.random.default_rng(seed)
    a, b = np.triu_indices(12, 1)
    graph = Links(a.astype(np.uint32), b.astype(np.uint32), random.random(len(a)).astype(np.float32))
    moved = threshold + random.uniform(-0.0019, 0.0019)
    agreement = within_tolerance(reference_components(12, graph, moved), graph, threshold)
    assert agreement.accepted


def write_archive(path, clusters):
    lines = [
        json.dumps({"cluster": number, "id": members[0], "size": len(members), "objects": members})
        for number, members in enumerate(clusters)
    ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clusters.jsonl", "".join(f"{line}\n" for line in lines))
        archive.writestr("manifest.json", '{"parameters": {}}')
    return path


def test_clusters_are_read_from_the_archive_in_order_of_the_ids(tmp_path):
    archive = write_archive(tmp_path / "a.zip", [["x", "z"], ["y"]])
    assert read_clusters(archive, ["x", "y", "z"]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        ([["x"], ["y", "x"]], "found 'x' in cluster 0 and in cluster 1, expected each object once"),
        ([["x", "y", "w"]], "1 are unknown, 0 of 2 missing"),
        ([["x"]], "0 are unknown, 1 of 2 missing"),
    ],
)
def test_an_archive_of_other_objects_is_refused(tmp_path, clusters, message):
    archive = write_archive(tmp_path / "a.zip", clusters)
    with pytest.raises(ValueError, match=message):
        read_clusters(archive, ["x", "y"])


@pytest.fixture
def data(tmp_path):
    options = GenerateOptions(events=40, dim=64, people=8, metadata=False)
    write_events(options, tmp_path / "events.jsonl.gz", truth=tmp_path / "people.csv")
    return tmp_path


def test_faces_are_read_with_their_people(data):
    faces = read_faces(data)
    assert faces.vectors.shape == (40, 64)
    assert len(set(faces.ids)) == len(faces.ids) == len(faces.people) == 40
    labels = reference_components(40, cosine_links(faces.vectors, 0.4), 0.5)
    assert within_tolerance(faces.people, cosine_links(faces.vectors, 0.4), 0.5).missed == 0
    assert len(set(labels)) == len(set(faces.people.tolist()))


def test_an_object_without_a_person_is_refused(data):
    header, first, *_ = (data / "people.csv").read_text().splitlines()
    (data / "people.csv").write_text(f"{header}\n{first}\n")
    with pytest.raises(ValueError, match="lacks 39 of 40"):
        read_faces(data)
    (data / "people.csv").write_text(f"{header}\n")
    with pytest.raises(ValueError, match="found no objects below the header"):
        read_faces(data)


PROGRAM = """#!{python}
import gzip, json, sys, zipfile
arguments = sys.argv[1:]
assert arguments[0] == "cluster" and arguments[2:5] == ["--descriptor-type", "face", "--threshold"], arguments
if arguments[5] == "0.9":
    sys.exit("no such threshold")
ids = [json.loads(line)["event_id"] for line in gzip.open(arguments[1])]
lines = [json.dumps(dict(cluster=0, id=ids[0], size=len(ids), objects=ids))]
with zipfile.ZipFile(arguments[7], "w") as archive:
    archive.writestr("clusters.jsonl", "\\n".join(lines))
    archive.writestr("manifest.json", json.dumps(dict(parameters=dict())))
"""


@pytest.fixture
def everything_is_one_cluster(tmp_path, monkeypatch):
    """A stand-in for the program, that puts all objects into one cluster."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "stream-cluster"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr("benchmarks.faces.sys.executable", str(folder / "python"))


@pytest.mark.usefixtures("everything_is_one_cluster")
def test_a_wrong_partition_is_shown_and_is_the_exit_status(data, capsys):
    assert main(["--data", str(data), "--thresholds", "0.5", "--write", str(data / "out" / "r.json")]) == 1
    assert "WRONG" in capsys.readouterr().out
    report = json.loads((data / "out" / "r.json").read_text())
    (result,) = report["results"]
    assert result["agreement"]["unfounded"] == 1
    assert result["quality"]["bcubed"]["recall"] == 1.0
    assert result["peak_memory_bytes"] > 1_000_000
    assert table([result]).count("\n") == 1
    assert report["environment"]["cores"] >= 1


@pytest.mark.usefixtures("everything_is_one_cluster")
def test_a_failing_program_is_reported_with_its_error_output(data, capsys):
    with pytest.raises(RuntimeError, match="status 1:\nno such threshold"):
        run_cluster(data / "events.jsonl.gz", 0.9, data / "out.zip")
    assert main(["--data", str(data), "--thresholds", "0.9"]) == 2
    assert "no such threshold" in capsys.readouterr().err


def test_the_environment_names_versions_but_no_place():
    found = environment()
    text = json.dumps(found)
    assert found["libraries"]["numpy"] == np.__version__
    assert found["memory_bytes"] > 2**28
    assert str(Path.cwd()) not in text

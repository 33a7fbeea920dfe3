"""Truth, archives and mistakes: what is read, what is refused, what is listed."""

from __future__ import annotations

import gzip
import json
import zipfile

import numpy as np
import pytest

from stream_cluster.errors import Cancelled, InputError
from stream_cluster.evaluation.archive import read_archive
from stream_cluster.evaluation.mistakes import worst_merges, worst_splits
from stream_cluster.evaluation.truth import match, read_truth
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.offline.sources import find_sources


def truth_of(path, text):
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    [source] = find_sources([str(path)])
    return read_truth(source, Interrupt(), no_progress)


@pytest.mark.parametrize(
    "text",
    [
        "id,label\nx,ann\ny,bob\nz,ann\n",
        "event_id,person\r\nx,ann\r\n\r\ny,bob\r\nz,ann",
        'seen,label,face_id\n1,ann,x\n2,"bob",y\n3, ann ,z\n',
    ],
)
def test_labels_are_read_under_every_name_of_the_columns(tmp_path, text):
    truth = truth_of(tmp_path / "truth.csv", text)
    assert truth.labels == ["ann", "bob"]
    assert truth.label_of == {"x": 0, "y": 1, "z": 0}


def test_a_gzipped_truth_is_read(tmp_path):
    assert truth_of(tmp_path / "truth.csv.gz", "id,label\nx,7\n").label_of == {"x": 0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,1\ny,2\n", "truth.csv:1: found the columns x, 1, expected one named id or event_id or face_id"),
        ("id,name\nx,1\n", "truth.csv:1: found the columns id, name, expected one named label or person"),
        ("id,label,person\nx,1,2\n", "expected one named label or person"),
        ("", "truth.csv:1: found the columns nothing"),
        ("id,label\n", "truth.csv: found no objects below the header"),
        ("id,label\nx,1\ny\n", "truth.csv:3: found 1 fields, expected 2"),
        ("id,label\nx,1\ny,\n", "truth.csv:3: label: found nothing"),
        ("id,label\nx,1\n,2\n", "truth.csv:3: id: found nothing"),
        ("id,label\nx,1\ny,1\nx,2\n", "truth.csv:4: found 'x' a second time"),
        ('id,label\n"x,1\n', "truth.csv:2: not CSV in UTF-8"),
    ],
)
def test_a_broken_truth_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        truth_of(tmp_path / "truth.csv", text)
    assert message in str(caught.value)


def test_objects_of_one_side_only_are_counted_and_the_others_matched(tmp_path):
    truth = truth_of(tmp_path / "truth.csv", "id,label\nx,ann\ny,bob\nw,bob\n")
    found = match(truth, ["q", "y", "x", "r"], "here")
    assert found.positions.tolist() == [1, 2]
    assert found.people.tolist() == [1, 0]
    assert found.counts == {"evaluated": 2, "without_label": 2, "not_found": 1}


def test_a_truth_of_other_objects_is_refused(tmp_path):
    truth = truth_of(tmp_path / "truth.csv", "id,label\nx,ann\n")
    with pytest.raises(InputError, match=r"found none of the 2 objects of here among its 1 ids"):
        match(truth, ["q", "r"], "here")


def write_archive(path, *lines, manifest='{"parameters": {"linkage": "average"}}'):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("clusters.jsonl", "".join(f"{line}\n" for line in lines))
        if manifest is not None:
            archive.writestr("manifest.json", manifest)
    return path


def cluster_line(number, *ids):
    return json.dumps({"cluster": number, "id": ids[0], "size": len(ids), "objects": ids})


def test_clusters_are_read_back_with_the_parameters_of_the_manifest(tmp_path):
    path = write_archive(tmp_path / "a.zip", cluster_line(0, "x", "z"), cluster_line(1, "y"))
    found = read_archive(path, Interrupt(), no_progress)
    assert found.ids == ["x", "z", "y"]
    assert found.clusters.tolist() == [0, 0, 1]
    assert found.parameters == {"linkage": "average"}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"cluster": 0}'], "a.zip: clusters.jsonl:1: Object missing required field `objects`"),
        ([cluster_line(0, "x"), "{"], "a.zip: clusters.jsonl:2: Input data was truncated"),
        ([cluster_line(0, "x", "y"), cluster_line(1, "x")], "found 'x' in cluster 0 and in cluster 1"),
        ([cluster_line(0, "x"), cluster_line(0, "y")], "found a cluster number twice"),
        ([], "a.zip: clusters.jsonl: found no objects"),
    ],
)
def test_a_broken_archive_is_refused_with_its_line(tmp_path, lines, message):
    path = write_archive(tmp_path / "a.zip", *lines)
    with pytest.raises(InputError) as caught:
        read_archive(path, Interrupt(), no_progress)
    assert message in str(caught.value)


def test_what_is_no_archive_is_refused(tmp_path):
    vectors = tmp_path / "v.npz"
    np.savez(vectors, ids=np.array(["x"]), descriptors=np.ones((1, 4), np.float32))
    with pytest.raises(InputError, match=r"found descriptors.npy, ids.npy, expected the archive of a task"):
        read_archive(vectors, Interrupt(), no_progress)
    without = write_archive(tmp_path / "a.zip", cluster_line(0, "x"), manifest=None)
    with pytest.raises(InputError, match=r"with manifest.json"):
        read_archive(without, Interrupt(), no_progress)
    broken = write_archive(tmp_path / "b.zip", cluster_line(0, "x"), manifest="[]")
    with pytest.raises(InputError, match=r"b.zip: manifest.json: Expected `object`"):
        read_archive(broken, Interrupt(), no_progress)
    cut = tmp_path / "c.zip"
    cut.write_bytes(without.read_bytes()[:-30])
    with pytest.raises(InputError, match="not a readable archive"):
        read_archive(cut, Interrupt(), no_progress)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_archive(tmp_path / "none.zip", Interrupt(), no_progress)


def test_reading_an_archive_stops_when_asked(tmp_path):
    path = write_archive(tmp_path / "a.zip", cluster_line(0, "x"))
    interrupt = Interrupt()
    interrupt.cancel()
    with pytest.raises(Cancelled):
        read_archive(path, interrupt, no_progress)


CLUSTERS = np.array([5, 5, 5, 5, 7, 7, 9, 9, 9])
PEOPLE = np.array([1, 1, 1, 2, 2, 3, 4, 4, 4])


def test_worst_merges_are_the_clusters_with_the_most_wrong_pairs():
    first, second = worst_merges(CLUSTERS, PEOPLE, 5)
    assert (first.label, first.objects, first.wrong_pairs, first.parts_in_all) == (5, 4, 3, 2)
    assert [(part.label, part.objects, part.examples) for part in first.parts] == [
        (1, 3, [0, 1, 2]),
        (2, 1, [3]),
    ]
    assert (second.label, second.wrong_pairs) == (7, 1)
    assert [mistake.label for mistake in worst_merges(CLUSTERS, PEOPLE, 1)] == [5]
    assert worst_merges(CLUSTERS, PEOPLE, 0) == []


def test_worst_splits_are_the_people_with_the_most_missed_pairs():
    (split,) = worst_splits(CLUSTERS, PEOPLE, 5)
    assert (split.label, split.objects, split.wrong_pairs, split.parts_in_all) == (2, 2, 1, 2)
    assert [(part.label, part.examples) for part in split.parts] == [(5, [3]), (7, [4])]


def test_a_mistake_lists_its_largest_parts_and_few_ids():
    people = np.repeat(np.arange(8), np.arange(1, 9))
    (merge,) = worst_merges(np.zeros(len(people), int), people, 3)
    assert merge.parts_in_all == 8
    assert [(part.label, part.objects) for part in merge.parts] == [(7, 8), (6, 7), (5, 6), (4, 5), (3, 4)]
    assert all(len(part.examples) == 3 for part in merge.parts)

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from benchmarks.seed_data import SeedData
from benchmarks.seed_table import main, read_records, same_clusters, stream, write_records
from stream_cluster.messages import DecodeRules, decode_events


@pytest.fixture
def folder(tmp_path):
    SeedData(1300).write(tmp_path / "objects.npz")
    write_records(tmp_path / "objects.npz", tmp_path / "records")
    return tmp_path


def test_records_carry_the_objects_in_order(folder):
    batches = list(read_records(folder / "records"))
    assert [len(batch) for batch in batches] == [1024, 276]
    records = [record for batch in batches for record in batch]
    assert [record.offset for record in records] == list(range(1300))
    messages = decode_events(records, DecodeRules(None, 1 << 20, 128))
    vectors = np.stack([message.descriptors[0].vector for message in messages])
    np.testing.assert_array_equal(vectors, SeedData(1300).vectors())
    assert [message.object_id for message in messages][:2] == ["0000", "0001"]


def test_streaming_applies_every_object_and_cuts_its_forest(folder):
    result = stream(folder, [0.5, 0.9], 1)
    assert result["objects"] == 1300
    assert result["peak_memory_bytes"] > 1_000_000
    assert {name: cut["method"] for name, cut in result["snapshots"].items()} == {
        "0.5": "forest",
        "0.9": "forest",
    }
    assert result["snapshots"]["0.5"]["clusters"] < result["snapshots"]["0.9"]["clusters"]
    assert not same_clusters(folder / "stream-0.5.zip", folder / "stream-0.9.zip")


def test_archives_with_equal_clusters_are_the_same(tmp_path):
    for name, other in (("a", "1"), ("b", "2")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("manifest.json", other)
            archive.writestr("clusters.jsonl", '{"cluster":0}\n')
    assert same_clusters(tmp_path / "a", tmp_path / "b")


def test_batch_and_streaming_give_the_same_clusters(tmp_path, capsys):
    report = tmp_path / "report.json"
    assert main(["--sizes", "500", "--thresholds", "0.5", "--threads", "1", "--write", str(report)]) == 0
    (cell,) = json.loads(report.read_text())["results"].values()
    assert cell["same_clusters"]
    assert cell["nonzero"] == 500 + 2 * cell["streaming"]["links_above_floor"]
    assert cell["batch"]["peak_memory_bytes"] > 1_000_000
    assert "yes" in capsys.readouterr().out


def test_a_threshold_below_the_floor_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--thresholds", "0.4"])
    assert "expected thresholds from 0.5" in capsys.readouterr().err

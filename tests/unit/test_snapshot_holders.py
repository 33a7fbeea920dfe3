"""Which archives hold given objects."""

from __future__ import annotations

import io
import json
import zipfile

import msgspec
import pytest

from stream_cluster.service.result_store import DirectoryStore
from stream_cluster.snapshot import holders
from stream_cluster.snapshot.holders import archives_with
from stream_cluster.snapshot.paths import archive_path
from tests.support.partitions import message, open_partition, records, snapshot, vectors


def archive(clusters, object_type="event"):
    """An opener of an archive with these clusters."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as members:
        members.writestr("manifest.json", json.dumps({"parameters": {"object_type": object_type}}))
        lines = [
            msgspec.json.encode({"cluster": n, "id": ids[0], "size": len(ids), "objects": ids})
            for n, ids in enumerate(clusters)
        ]
        members.writestr("clusters.jsonl", b"".join(line + b"\n" for line in lines))
    return lambda: io.BytesIO(file.getvalue())


def names(archives, object_type, ids):
    return [holder.name for holder in archives_with(archives, object_type, ids) if holder.problem is None]


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 1 << 20])
def test_archives_with_one_of_the_objects_are_found_wherever_a_block_ends(monkeypatch, block_bytes):
    monkeypatch.setattr(holders, "_BLOCK_BYTES", block_bytes)
    odd = ['say "e-9"', "e-9 ", "é", "x,y", "id", "size"]
    archives = [
        ("first", archive([["e-1", "e-2", "e-3"], ["e-10"]])),
        ("second", archive([["e-3"], odd])),
        ("none", archive([])),
    ]
    assert names(archives, "event", {"e-3"}) == ["first", "second"]
    assert names(archives, "event", {"e-10", "gone"}) == ["first"]
    for object_id in odd:
        assert names(archives, "event", {object_id}) == ["second"]
    for object_id in ("e-9", "e", "cluster", "objects", "0", "say"):
        assert names(archives, "event", {object_id}) == []
    assert names(archives, "event", None) == ["first", "second", "none"]


def test_an_event_and_a_face_of_the_same_id_are_told_apart():
    archives = [("events", archive([["x"]])), ("faces", archive([["x"]], "face"))]
    assert names(archives, "face", {"x"}) == ["faces"]
    assert names(archives, None, {"x"}) == ["events", "faces"]
    assert names(archives, "event", None) == ["events"]


def test_an_archive_that_cannot_be_read_is_reported_and_the_others_are_searched():
    whole = archive([["x"] * 50])().getvalue()
    damaged = whole.replace(b"clusters.jsonl", b"clusters.jsonX")

    def gone():
        raise FileNotFoundError("no such file")

    archives = [
        ("cut", lambda: io.BytesIO(whole[:100])),
        ("damaged", lambda: io.BytesIO(damaged)),
        ("gone", gone),
        ("good", archive([["x"]])),
    ]
    found = list(archives_with(archives, "event", {"x"}))
    assert [(one.name, one.problem is None) for one in found] == [
        ("cut", False),
        ("damaged", False),
        ("gone", False),
        ("good", True),
    ]
    assert found[2].problem == "FileNotFoundError: no such file"


def test_archives_of_an_account_as_snapshots_write_them(tmp_path):
    partition = open_partition(tmp_path)
    strange = "a é+b"
    both = [message(n, vector, account=a) for a in (strange, "other") for n, vector in enumerate(vectors(5))]
    partition.apply(records(both))
    paths = [archive_path(tmp_path / "results", strange, name) for name in ("t1", "t2")]
    for path in (*paths, archive_path(tmp_path / "results", "other", "t1")):
        account = strange if path in paths else "other"
        snapshot(partition, path, account=account, threshold=0.5)
    partition.close()
    store = DirectoryStore(tmp_path / "results")
    found = sorted(store.names(strange))
    assert [tmp_path / "results" / name for name in found] == paths
    opened = [(name.name, lambda name=name: store.open(name)) for name in found]
    assert names(opened, "event", {f"{strange}-00003"}) == ["t1.zip", "t2.zip"]
    assert names(opened, "event", {"other-00003"}) == []
    assert list(DirectoryStore(tmp_path / "nowhere").names(strange)) == []

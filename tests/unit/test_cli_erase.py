"""`stream-cluster erase` without a broker: what it would send, what it refuses, which archives it finds."""

from __future__ import annotations

import json
import os

import pytest

from stream_cluster.cli import erase
from stream_cluster.messages import DecodeRules, RawRecord, decode_events
from stream_cluster.snapshot.paths import archive_path
from tests.support.cli import invoke
from tests.support.partitions import message, open_partition, records, snapshot, vectors
from tests.support.s3 import BUCKET, s3_server


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith("STREAM_CLUSTER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def sent(monkeypatch):
    """The messages that would have been acknowledged."""
    messages = []

    def send(lines, settings, interrupt):
        values = [RawRecord("events", 0, 0, 0, None, line.data, None) for line in lines]
        messages.extend(decode_events(values, DecodeRules(None, 1 << 20, 0)))
        return len(lines)

    monkeypatch.setattr(erase, "_send", send)
    return messages


def results_folder(folder):
    """Three archives of acme, of events, and one of another account; returns the folder of results."""
    for account in ("acme", "other"):
        (folder / account).mkdir()
        partition = open_partition(folder / account)
        partition.apply(records([message(n, v, account=account) for n, v in enumerate(vectors(6))]))
        for name in ("t1", "t2"):
            target = archive_path(folder / "results", account, name)
            snapshot(partition, target, account=account, threshold=0.5)
        partition.close()
    return folder / "results"


def command(folder, *arguments, **more):
    env = {"STREAM_CLUSTER_RESULTS__DIRECTORY": str(folder / "results")}
    return invoke("erase", *arguments, env=env, **more)


def test_objects_are_named_in_records_of_bounded_size(tmp_path, sent):
    names = [f"e-{number}" for number in range(2500)]
    options = [part for name in [*names, "e-1"] for part in ("--object", name)]
    result = command(tmp_path, "--account", "acme", *options, "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    assert [len(one.object_ids) for one in sent] == [1000, 1000, 500]
    assert [name for one in sent for name in one.object_ids] == names
    assert {(one.account_id, one.action, one.object_type, one.everything) for one in sent} == {
        ("acme", "delete", "event", ())
    }
    printed = json.loads(result.stdout)
    assert (printed["objects"], printed["records"], printed["archives"]) == (2500, 3, [])


@pytest.mark.parametrize(
    ("options", "types"), [((), ("event", "face")), (("--object-type", "face"), ("face",))]
)
def test_without_objects_everything_of_the_account_is_meant(tmp_path, sent, options, types):
    result = command(tmp_path, "--account", "acme", *options, "--yes")
    assert result.exit_code == 0, result.stderr
    assert [one.everything for one in sent] == [types]
    assert "all" in result.stdout


def test_it_asks_before_it_sends_and_no_means_nothing_is_sent(tmp_path, sent):
    result = command(tmp_path, "--account", "acme", "--object", "e-1", input="n\n")
    assert result.exit_code != 0
    assert "Delete 1 events of account acme for good?" in result.stderr
    assert sent == []
    result = command(tmp_path, "--account", "acme", "--archives", input="y\n")
    assert result.exit_code == 0
    assert "Delete ALL objects of account acme and the archives that hold them for good?" in result.stderr
    assert len(sent) == 1


@pytest.mark.parametrize("options", [("--account", "a/b"), ("--account", "acme", "--object", "x\\y")])
def test_ids_that_no_object_can_have_are_refused_before_anything_is_sent(tmp_path, sent, options):
    result = command(tmp_path, *options, "--yes")
    assert result.exit_code == 2
    assert "found an illegal" in result.stderr
    assert sent == []


def test_archives_that_hold_an_erased_object_are_listed_and_stay(tmp_path, sent):
    folder = results_folder(tmp_path)
    result = command(tmp_path, "--account", "acme", "--object", "acme-00002", "--yes", "--json")
    printed = json.loads(result.stdout)
    assert printed["archives"] == [str(folder / "acme" / name) for name in ("t1.zip", "t2.zip")]
    assert printed["archives_deleted"] == 0
    assert len(list(folder.rglob("*.zip"))) == 4
    result = command(tmp_path, "--account", "acme", "--object", "other-00002", "--yes", "--json")
    assert json.loads(result.stdout)["archives"] == []


def test_with_archives_they_are_deleted_but_for_those_that_cannot_be_read(tmp_path, sent):
    folder = results_folder(tmp_path)
    broken = folder / "acme" / "t2.zip"
    broken.write_bytes(b"not a zip")
    result = command(tmp_path, "--account", "acme", "--object", "acme-00002", "--archives", "--yes")
    assert result.exit_code == 0
    assert f"warning: archive {broken}: cannot be searched" in result.stderr
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.zip")) == [
        "acme/t2.zip",
        "other/t1.zip",
        "other/t2.zip",
    ]
    assert str(folder / "acme" / "t1.zip") in result.stdout


def test_archives_in_a_bucket_are_found_and_deleted_there(tmp_path, sent):
    folder = results_folder(tmp_path)
    with s3_server() as server:
        for path in sorted(folder.rglob("*.zip")):
            key = f"faces/archives/{path.relative_to(folder)}"
            server.client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        env = {f"STREAM_CLUSTER_RESULTS__S3__{name.upper()}": str(v) for name, v in server.fields().items()}
        arguments = ("--account", "acme", "--object", "acme-00002", "--archives", "--yes", "--json")
        result = invoke("erase", *arguments, env=env)
        assert result.exit_code == 0, result.stderr
        printed = json.loads(result.stdout)
        assert printed["archives"] == [f"s3://{BUCKET}/faces/archives/acme/t{n}.zip" for n in (1, 2)]
        assert printed["archives_deleted"] == 2
        left = ["faces/archives/other/t1.zip", "faces/archives/other/t2.zip"]
        assert server.object_names() == left

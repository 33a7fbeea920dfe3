"""`stream-cluster clusters` as a person and as a script use it."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from tests.support.cli import invoke
from tests.support.partitions import message, partition_of, records, snapshot, time_text, vectors

AXES = np.eye(8)


@pytest.fixture
def archives(tmp_path):
    """Two archives of one account: 30 objects, then 50; the older also as a folder."""
    state = tmp_path / "state"
    state.mkdir()
    made = vectors(50, people=7)
    partition = partition_of(state, [message(n, vector) for n, vector in enumerate(made[:30])])
    snapshot(partition, tmp_path / "older.zip", threshold=0.85, task_id="older")
    partition.apply(records([message(n, vector) for n, vector in enumerate(made)])[30:])
    snapshot(partition, tmp_path / "newer.zip", threshold=0.85, task_id="newer")
    partition.close()
    with zipfile.ZipFile(tmp_path / "older.zip") as zipped:
        zipped.extractall(tmp_path / "older")
    return tmp_path


def lines_of(archive):
    with zipfile.ZipFile(archive) as zipped:
        return [json.loads(line) for line in zipped.read("clusters.jsonl").splitlines()]


def listed(*arguments):
    result = invoke("clusters", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize("form", ["older.zip", "older"])
def test_clusters_are_listed_with_the_figures_of_the_archive(archives, form):
    found = listed(archives / form, "--limit", "0")
    lines = lines_of(archives / "older.zip")
    assert found["clusters"] == [
        {name: value for name, value in line.items() if name != "objects"} for line in lines
    ]
    assert (found["account_id"], found["task_id"], found["objects"]) == ("acme", "older", 30)
    assert found["clusters_in_all"] == len(lines)
    assert found["singletons"] == sum(line["size"] == 1 for line in lines)
    assert found["largest_share"] == lines[0]["size"] / 30
    text = invoke("clusters", archives / form, "--limit", "2").stdout
    first = lines[0]
    row = next(line for line in text.splitlines() if line.lstrip().startswith("#0"))
    for cell in ("#0", first["id"], f"{first['cohesion']:.3f}", first["first_time"], first["last_time"]):
        assert cell in row
    assert f"{len(lines) - 2} more clusters; --limit 0 lists all" in text


def test_the_time_span_is_that_of_the_members_with_a_time(tmp_path):
    times = [4, 2, None, 9, None, 7]
    axis = [0, 0, 0, 1, 2, 2]
    made = [
        message(
            n,
            AXES[at],
            create_time_us=None if time is None else message(time, AXES[0]).metadata.create_time_us,
        )
        for n, (time, at) in enumerate(zip(times, axis, strict=True))
    ]
    partition = partition_of(tmp_path, made)
    snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    partition.close()
    spans = {
        line["size"]: (line["first_time"], line["last_time"])
        for line in listed(tmp_path / "a.zip")["clusters"]
    }
    assert spans == {
        3: (time_text(2), time_text(4)),
        2: (time_text(7), time_text(7)),
        1: (time_text(9), time_text(9)),
    }
    alone = tmp_path / "alone"
    alone.mkdir()
    partition = partition_of(alone, [message(0, AXES[0], create_time_us=None)])
    snapshot(partition, tmp_path / "b.zip", threshold=0.6)
    partition.close()
    (line,) = listed(tmp_path / "b.zip")["clusters"]
    assert (line["first_time"], line["last_time"]) == (None, None)


@pytest.mark.parametrize(
    ("order", "key"),
    [
        ("size", lambda line: -line["size"]),
        ("cohesion", lambda line: line["cohesion"]),
        ("weakest-link", lambda line: 2 if line["weakest_link"] is None else line["weakest_link"]),
        ("bridges", lambda line: -line["bridges"]),
        ("first", lambda line: line["first_time"]),
        ("last", lambda line: [-ord(letter) for letter in line["last_time"]]),
    ],
)
def test_what_is_asked_for_comes_first(archives, order, key):
    found = listed(archives / "newer.zip", "--sort", order, "--limit", "0")["clusters"]
    assert len(found) > 4
    assert [key(line) for line in found] == sorted(key(line) for line in found)
    assert listed(archives / "newer.zip", "--sort", order, "--limit", "3")["clusters"] == found[:3]


def test_one_cluster_is_shown_by_its_id_by_a_member_and_by_its_number(archives):
    line = lines_of(archives / "newer.zip")[1]
    for wanted in (line["id"], line["objects"][-1], "#1"):
        found = listed(archives / "newer.zip", "--show", wanted)
        assert found["objects"] == line["objects"]
        assert (found["cluster"], found["cohesion"]) == (1, line["cohesion"])
    text = invoke("clusters", archives / "newer.zip", "--show", "#1").stdout
    assert text.splitlines()[-len(line["objects"]) :] == line["objects"]
    few = invoke("clusters", archives / "newer.zip", "--show", "#1", "--limit", "1").stdout
    assert f"{len(line['objects']) - 1} more members" in few


def test_warnings_of_chaining_are_told_with_the_cluster(tmp_path):
    made = [AXES[0] + 0.05 * AXES[2 + n % 4] for n in range(12)]
    made += [AXES[1] + 0.05 * AXES[2 + n % 4] for n in range(12)] + [AXES[0] + AXES[1]]
    partition = partition_of(
        tmp_path, [message(n, vector / np.linalg.norm(vector)) for n, vector in enumerate(made)]
    )
    snapshot(partition, tmp_path / "a.zip", threshold=0.68)
    partition.close()
    result = invoke("clusters", tmp_path / "a.zip")
    assert "warning: cluster 0 holds 25 objects" in result.stderr
    assert listed(tmp_path / "a.zip")["warnings"][0]["cluster"] == 0
    shown = invoke("clusters", tmp_path / "a.zip", "--show", "acme-00003")
    assert "warning: cluster 0 holds 25 objects" in shown.stderr
    assert "acme-00024" in shown.stdout.split("members")[0]


def test_two_archives_are_compared_by_their_objects(archives):
    newer, older = archives / "newer.zip", archives / "older"
    found = listed(newer, "--compare", older, "--limit", "0")
    assert found["objects"] == {"older": 30, "newer": 50, "both": 30}
    assert found["clusters"] == {
        "older": len(lines_of(archives / "older.zip")),
        "newer": len(lines_of(newer)),
    }
    assert 0 < found["adjusted_rand"] <= 1
    counts = found["counts"]
    # Every cluster of either archive is told of; here none was both merged and split.
    told = {
        side: [one["id"] for change in found["changes"] for one in change[side]]
        for side in ("older", "newer")
    }
    for side, ids in told.items():
        assert len(set(ids)) == len(ids)
        assert len(ids) + counts["unchanged"] == found["clusters"][side]
    assert counts["new"] + counts["grown"] > 0
    assert sum(counts.values()) == len(found["changes"]) + counts["unchanged"]
    result = invoke("clusters", newer, "--compare", older, "--limit", "1")
    assert result.exit_code == 0, result.stderr
    assert f"adjusted Rand index  {found['adjusted_rand']:.4f}" in result.stdout
    first = found["changes"][0]
    assert f"{first['newer'][0]['id']} ({first['newer'][0]['size']})" in result.stdout
    kinds = {change["kind"] for change in found["changes"]}
    more = len(found["changes"]) - len(kinds)
    assert (f"{more} more changes" in result.stdout) == (more > 0)


def test_an_archive_compared_with_itself_is_unchanged(archives):
    found = listed(archives / "older.zip", "--compare", archives / "older")
    assert (found["adjusted_rand"], found["changes"]) == (1, [])
    assert found["counts"]["unchanged"] == found["clusters"]["older"]


def test_archives_of_two_accounts_or_without_common_objects_are_warned_of(archives, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    partition = partition_of(other, [message(n, AXES[n], account="globex") for n in range(3)])
    snapshot(partition, tmp_path / "other.zip", account="globex", threshold=0.6)
    partition.close()
    result = invoke("clusters", tmp_path / "other.zip", "--compare", archives / "older.zip")
    assert result.exit_code == 0
    assert "the archives are of two accounts: globex and, the older, acme" in result.stderr
    assert "no object is in both archives" in result.stderr
    assert "adjusted Rand index  -" in result.stdout


def test_an_archive_without_figures_is_listed_without_them(tmp_path):
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as archive:
        archive.writestr("clusters.jsonl", '{"cluster": 0, "id": "a", "size": 2, "objects": ["a", "b"]}\n')
        archive.writestr("manifest.json", '{"parameters": {}}')
    (line,) = listed(tmp_path / "old.zip")["clusters"]
    assert (line["share"], line["cohesion"], line["bridges"], line["first_time"]) == (1, None, None, None)
    assert "-" in invoke("clusters", tmp_path / "old.zip").stdout
    assert listed(tmp_path / "old.zip", "--sort", "weakest-link")["clusters"] == [line]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.zip"], "absent.zip: cannot be read: No such file"),
        (["broken.zip"], "broken.zip: not a readable archive"),
        (["."], "found broken.zip, cut.zip, expected the archive of a task, with clusters.jsonl"),
        (["cut.zip"], "cut.zip: clusters.jsonl:2: Input data was truncated"),
        (["wrong.zip"], "wrong.zip: clusters.jsonl:1: found 1 objects, expected the size 2"),
        (["older.zip", "--show", "nobody"], "--show nobody: found no such cluster and no such object"),
        (["older.zip", "--show", "#9999"], "--show #9999: found no such cluster"),
        (["older.zip", "--show", "x", "--compare", "older"], "--show has no effect with --compare"),
        (["older.zip", "--sort", "size", "--compare", "older"], "--sort has no effect with --compare"),
        (["older.zip", "--sort", "size", "--show", "x"], "--sort has no effect with --show"),
        (["older.zip", "--compare", "broken.zip"], "broken.zip: not a readable archive"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(archives, tmp_path, monkeypatch, arguments, message):
    folder = tmp_path / "bad"
    folder.mkdir()
    whole = (archives / "older.zip").read_bytes()
    (folder / "broken.zip").write_bytes(whole[: len(whole) // 2])
    monkeypatch.chdir(folder)
    for name, lines in (
        ("cut.zip", '{"cluster": 0, "objects": ["a"]}\n{"clus'),
        ("wrong.zip", '{"cluster": 0, "size": 2, "objects": ["a"]}\n'),
    ):
        if name == "cut.zip" or "wrong.zip" in arguments:
            with zipfile.ZipFile(folder / name, "w") as archive:
                archive.writestr("clusters.jsonl", lines)
                archive.writestr("manifest.json", '{"parameters": {}}')
    paths = [archives / one if one.startswith("older") else one for one in arguments]
    result = invoke("clusters", *paths)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr

"""`stream-cluster thresholds` as a person and as a script use it."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from stream_cluster.messages import parse_filters
from stream_cluster.state.database import database_path
from stream_cluster.state.lock import DirectoryLock
from stream_cluster.state.partition import PartitionIdentity
from tests.support.cli import invoke
from tests.support.files import clusters_of, event_lines, manifest_of, write_lines
from tests.support.partitions import message, open_partition, partition_of, records, snapshot, vectors

FIGURES = ("clusters", "singletons", "largest_cluster")


def chain(groups=6, of=20, dim=64):
    """Vectors of six people, and one object between each and the next."""
    random = np.random.default_rng(3)
    made = []
    for group in range(groups):
        centre = np.zeros(dim)
        centre[group] = 1
        made += [centre, *(centre + 0.08 * random.standard_normal(dim) for _ in range(of - 1))]
        if group:
            between = np.zeros(dim)
            between[[group - 1, group]] = 1
            made.append(between)
    return np.array(made) / np.linalg.norm(made, axis=1, keepdims=True)


@pytest.fixture
def state(tmp_path):
    """A state directory whose service runs, with the objects of two accounts in two partitions."""
    first = open_partition(tmp_path, identity=PartitionIdentity("events", 0, 2, "murmur2"))
    made = vectors(80, people=9)
    first.apply(
        records(
            [message(n, vector, track_id=f"t{n // 2}", source=f"cam{n % 2}") for n, vector in enumerate(made)]
        )
    )
    second = open_partition(tmp_path, identity=PartitionIdentity("events", 1, 2, "murmur2"))
    second.apply(records([message(n, v, account="globex") for n, v in enumerate(vectors(5))]))
    with DirectoryLock(tmp_path):
        yield tmp_path, first
    first.close()
    second.close()


def shown(*arguments):
    result = invoke("thresholds", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def figures_of(archive):
    counts = manifest_of(archive)["counts"]
    return [counts[name] for name in FIGURES]


@pytest.mark.parametrize("tracks", [False, True])
def test_every_threshold_has_the_figures_of_a_task_and_no_archive_is_made(state, tmp_path, tracks):
    folder, partition = state
    before = sorted(path.name for path in folder.iterdir())
    options = ["--account", "acme", *(["--use-track-info"] if tracks else [])]
    found = shown(folder, *options)
    assert sorted(path.name for path in folder.iterdir()) == before
    assert (found["method"], found["objects"], found["account_id"]) == ("forest", 80, "acme")
    assert found["matching"] == {"engine": "exact", "recall": None}
    assert found["as_of"] == {"topic": "events", "partition": 0, "next_offset": 80}
    assert found["at"][0]["marks"] == ["lowest"]
    assert found["at"][0]["threshold"] == found["curve"]["thresholds"][0] == 0.45
    assert [row["threshold"] for row in found["at"] if not row["marks"]][-1] == 1
    for row in found["at"]:
        if row["marks"] in ([], ["default"], ["lowest"]):
            archive, _ = snapshot(
                partition, tmp_path / "one.zip", threshold=row["threshold"], use_track_info=tracks
            )
            assert figures_of(archive) == [row[name] for name in FIGURES], row
            assert row["largest_share"] == row["largest_cluster"] / 80


def test_below_the_floor_and_with_filters_the_objects_are_matched_again(state, tmp_path):
    folder, partition = state
    found = shown(folder, "--account", "acme", "--at", "0.2,0.45,0.6")
    assert found["method"] == "rematch"
    assert found["curve"]["thresholds"][0] == pytest.approx(0.1)
    filters = tmp_path / "filters.json"
    filters.write_text('{"sources": ["cam1"]}')
    filtered = shown(folder, "--account", "acme", "--at", "0.5:0.7:0.1", "--filters", filters)
    assert (filtered["method"], filtered["objects"]) == ("rematch", 40)
    chosen = parse_filters(filters.read_bytes(), "event")
    for said, content in ((found, {}), (filtered, {"filters": chosen})):
        for row in said["at"]:
            if "cliff" not in row["marks"]:
                archive, _ = snapshot(partition, tmp_path / "one.zip", threshold=row["threshold"], **content)
                assert figures_of(archive) == [row[name] for name in FIGURES], row


def test_files_are_compared_and_their_rejected_records_said(tmp_path):
    lines = event_lines(events=90, same_person_cosine=0.75)
    path = write_lines(tmp_path / "events.jsonl.gz", [*lines, b"broken"])
    result = invoke("thresholds", path, "--at", "0.4:0.8:0.1", "--json")
    assert result.exit_code == 0, result.stderr
    assert "1 of 91 records were rejected (undecodable 1)" in result.stderr
    found = json.loads(result.stdout)
    assert (found["method"], found["as_of"], found["rejected"]) == ("rematch", None, {"undecodable": 1})
    for row in found["at"]:
        if "cliff" in row["marks"]:
            continue
        archive = tmp_path / "one.zip"
        assert invoke("cluster", path, "--threshold", row["threshold"], "-o", archive).exit_code == 0
        sizes = [len(cluster) for cluster in clusters_of(archive)]
        assert [len(sizes), sizes.count(1), max(sizes)] == [row[name] for name in FIGURES]


def test_vectors_and_a_scale_of_their_version_are_shown_with_their_cosines(tmp_path):
    made = vectors(60).astype(np.float32)
    np.savez(tmp_path / "v.npz", ids=np.array([f"o{n}" for n in range(60)]), descriptors=made)
    config = tmp_path / "settings.toml"
    config.write_text(
        "[similarity.face]\nscale = 'logistic'\nmidpoint = 0.5\nslope = 10.0\nfloor = 0.3\n"
        "default_threshold = 0.6\n"
    )
    found = shown(tmp_path / "v.npz", "--config", config)
    assert found["similarity"] == {"scale": "logistic", "midpoint": 0.5, "slope": 10.0}
    (default,) = (row for row in found["at"] if "default" in row["marks"])
    assert default["threshold"] == found["threshold"] == 0.6
    assert default["threshold_cosine"] == pytest.approx(0.5 + np.log(0.6 / 0.4) / 10, abs=1e-6)
    # The curve begins a cosine of 0.1 below the floor.
    below = np.log(0.3 / 0.7) - 10 * 0.1
    assert found["at"][0]["threshold"] == pytest.approx(1 / (1 + np.exp(-below)), abs=1e-6)
    text = invoke("thresholds", tmp_path / "v.npz", "--config", config).stdout
    assert re.search(r"threshold +cosine +clusters +singletons +largest +share", text)
    assert re.search(r"0.6 +0.5405 .*default", text)


def test_the_cliff_is_marked_and_a_threshold_below_it_is_warned_of(tmp_path):
    partition = partition_of(tmp_path, [message(n, vector) for n, vector in enumerate(chain())])
    result = invoke("thresholds", tmp_path, "--threshold", "0.5", "--at", "0.5,0.75,0.9")
    assert result.exit_code == 0, result.stderr
    (cliff,) = re.findall(
        r"Below (0\.\d+) clusters chain: the largest has (\d+) objects right below it", result.stdout
    )
    assert 0.6 < float(cliff[0]) < 0.8
    assert int(cliff[1]) > 30
    assert re.search(r"0.5 +1 +0 +125 +100.0% +chosen", result.stdout)
    assert re.search(rf"{cliff[0]} .* cliff", result.stdout)
    assert f"warning: the threshold 0.5 is below the cliff at {cliff[0]}" in result.stderr
    above = invoke("thresholds", tmp_path, "--threshold", "0.85", "--json")
    assert "warning" not in above.stderr
    found = json.loads(above.stdout)
    assert [row["threshold"] for row in found["at"] if "chosen" in row["marks"]] == [0.85]
    marked = next(row for row in found["at"] if "cliff" in row["marks"])
    assert marked["threshold"] == found["cliff"] == pytest.approx(float(cliff[0]), abs=1e-4)
    partition.close()


def test_objects_that_do_not_chain_have_no_cliff(tmp_path):
    partition = partition_of(tmp_path, [message(n, np.eye(8)[n]) for n in range(5)])
    assert "No threshold shown makes clusters chain" in invoke("thresholds", tmp_path).stdout
    assert shown(tmp_path)["cliff"] is None
    partition.close()


def test_the_curve_is_drawn_as_a_picture_that_stands_alone(tmp_path):
    partition = partition_of(tmp_path, [message(n, vector) for n, vector in enumerate(chain())])
    picture = tmp_path / "curve.svg"
    found = shown(tmp_path, "--plot", picture)
    assert found["plot"] == str(picture)
    root = ElementTree.parse(picture).getroot()
    svg = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{svg}svg"
    paths = {element.get("class") for element in root.iter(f"{svg}path")}
    assert paths == {"clusters", "singletons", "share"}
    texts = [element.text for element in root.iter(f"{svg}text")]
    assert any(text.startswith("cliff 0.") for text in texts)
    assert "chosen 0.55" in texts
    assert "share of the largest" in texts
    first = picture.read_bytes()
    assert invoke("thresholds", tmp_path, "--plot", picture).stdout.endswith(f"{picture}\n")
    assert picture.read_bytes() == first
    partition.close()


def test_the_curve_in_json_agrees_with_the_rows(state):
    folder, _ = state
    found = shown(folder, "--account", "acme", "--at", "0.5:0.9:0.05")
    curve = found["curve"]
    for row in found["at"]:
        at = np.searchsorted(np.array(curve["thresholds"]), row["threshold"] + 1e-6, side="right") - 1
        assert [curve[name][at] for name in ("clusters", "singletons", "largest")] == [
            row[name] for name in FIGURES
        ]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["absent"], 2, "absent: cannot be read"),
        (["."], 2, "found no partition-*.sqlite, expected the state directory of a service"),
        ([".", "x.npz"], 2, ".: found a directory among 2 inputs, expected it alone"),
        (["state"], 2, "found the accounts acme, globex; choose one with --account"),
        (["state", "--account", "nobody"], 1, "account nobody has no objects; the state holds acme, globex"),
        (
            ["state", "--account", "acme", "--descriptor-type", "body"],
            1,
            "the account has no event with a body",
        ),
        (["state", "--account", "acme", "--at", "0.4:x"], 2, "--at: found '0.4:x'"),
        (["state", "--account", "acme", "--at", "2"], 2, "found 2, expected -1 to 1"),
        (["state", "--account", "acme", "--threshold", "nan"], 2, "--threshold: found nan"),
        (["state", "--account", "a/b"], 2, "account_id"),
        (["state", "--account", "acme", "--plot", "curve.png"], 2, "found the ending '.png', expected .svg"),
        (["state", "--account", "acme", "--plot", "none/curve.svg"], 2, "curve.svg: cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused_with_its_reason(
    state, tmp_path, monkeypatch, arguments, code, message
):
    folder, _ = state
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    result = invoke("thresholds", *(folder if one == "state" else one for one in arguments))
    assert (result.exit_code, result.stdout) == (code, "") or message.endswith("cannot be written")
    assert result.exit_code == code
    assert message in result.stderr


def test_a_damaged_state_is_code_4_and_named(tmp_path):
    path = database_path(tmp_path, 0)
    path.write_bytes(b"not a database at all" * 100)
    result = invoke("thresholds", tmp_path)
    assert result.exit_code == 4
    assert str(path) in result.stderr


def test_a_state_without_objects_is_an_empty_selection(tmp_path):
    open_partition(tmp_path).close()
    result = invoke("thresholds", tmp_path)
    assert result.exit_code == 1
    assert "the state holds no objects" in result.stderr


def test_what_is_matched_again_in_cells_says_so(tmp_path):
    np.savez(tmp_path / "v.npz", ids=np.array([f"o{n}" for n in range(80)]), descriptors=vectors(80))
    config = tmp_path / "settings.toml"
    config.write_text("[matching]\nrematch_engine = 'cells'\n")
    text = invoke("thresholds", tmp_path / "v.npz", "--config", config).stdout
    found = shown(tmp_path / "v.npz", "--config", config)
    assert f"matched again, {found['matching']['engine']}" in text

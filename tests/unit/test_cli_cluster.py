from __future__ import annotations

import json
import re
import signal
import subprocess
import tempfile
import time
import zipfile

import numpy as np
import pytest

from tests.support.cli import COMMAND, invoke
from tests.support.files import (
    clusters_of,
    event_lines,
    expected_clusters,
    manifest_of,
    write_lines,
    write_npz,
)
from tests.support.images import picture


@pytest.fixture
def lines():
    return event_lines()


@pytest.fixture
def events(tmp_path, lines):
    return write_lines(tmp_path / "events.jsonl", lines)


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out" / "faces.zip"


def cluster(*arguments, **more):
    return invoke("cluster", *arguments, "--threshold", "0.75", **more)


def test_the_last_line_is_the_archive_and_the_table_tells_its_counts(events, output, lines):
    result = cluster(events, "--output", output)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[-1] == str(output.resolve())
    expected = expected_clusters(lines, 0.75)
    assert clusters_of(output) == expected
    shown = {
        line.rsplit(None, 1)[0].strip(): line.rsplit(None, 1)[1] for line in result.stdout.splitlines()[:8]
    }
    assert shown["objects"] == "60"
    assert shown["clusters"] == str(len(expected))
    assert shown["singletons"] == str(sum(len(group) == 1 for group in expected))
    assert shown["largest cluster"] == str(max(map(len, expected)))
    assert result.stderr == ""


def test_plain_gzipped_and_standard_input_give_the_same_bytes(tmp_path, events, lines):
    packed = write_lines(tmp_path / "events.jsonl.gz", lines)
    unnamed = tmp_path / "events"
    unnamed.write_bytes(packed.read_bytes())
    archives = []
    for number, (name, data) in enumerate(
        [
            (events, None),
            (packed, None),
            (unnamed, None),
            ("-", events.read_bytes()),
            ("-", packed.read_bytes()),
        ]
    ):
        archive = tmp_path / f"{number}.zip"
        result = cluster(name, "-o", archive, input=data)
        assert result.exit_code == 0, result.stderr
        archives.append(archive.read_bytes())
    assert len(set(archives)) == 1


@pytest.mark.parametrize(("options", "expected"), [([], 62), (["--descriptor-version", "7"], 7)])
def test_an_npz_is_of_the_version_asked_for_else_of_the_configured_one(
    tmp_path, lines, output, monkeypatch, options, expected
):
    monkeypatch.setenv("STREAM_CLUSTER_MATCHING__DESCRIPTOR_VERSION__FACE", "62")
    result = cluster(write_npz(tmp_path / "vectors.npz", lines), "-o", output, *options)
    assert result.exit_code == 0, result.stderr
    assert manifest_of(output)["parameters"]["descriptor_version"] == expected


def test_an_npz_gives_the_same_clusters(tmp_path, lines, output):
    vectors = write_npz(tmp_path / "vectors.npz", lines)
    result = cluster(
        vectors, "-o", output, "--account", "acme", "--descriptor-version", "7", "--object-type", "face"
    )
    assert result.exit_code == 0, result.stderr
    assert clusters_of(output) == expected_clusters(lines, 0.75)
    manifest = manifest_of(output)
    assert manifest["account_id"] == "acme"
    assert manifest["parameters"]["descriptor_version"] == 7
    assert manifest["parameters"]["object_type"] == "face"


def test_json_is_one_object_that_agrees_with_the_manifest(events, output):
    result = cluster(events, "-o", output, "--json")
    printed = json.loads(result.stdout)
    assert printed["archive"]["path"] == str(output.resolve())
    assert printed["archive"]["size_bytes"] == output.stat().st_size
    assert printed["counts"] == manifest_of(output)["counts"]
    assert printed["records"] == {
        "read": 60,
        "accepted": 60,
        "duplicates": 0,
        "changes": 0,
        "of_other_accounts": 0,
        "rejected": {},
    }
    assert set(printed["timings_s"]) == {"read", "select", "cluster", "quality", "write"}


def test_every_option_reaches_the_request(tmp_path, events, output):
    filters = tmp_path / "filters.json"
    filters.write_text('{"sources": ["cam0", "cam1", "cam2"]}')
    options = [
        "--filters",
        filters,
        "--use-track-info",
        *("--linkage", "average", "--min-quality", "0.5", "--cannot-link", "same_frame"),
        "--columns",
        "source, track_id",
        "--task-id",
        "april",
    ]
    result = cluster(events, "-o", output, *options)
    assert result.exit_code == 0, result.stderr
    manifest = manifest_of(output)
    assert manifest["task_id"] == "april"
    assert manifest["parameters"]["use_track_info"] is True
    assert manifest["parameters"]["min_quality"] == 0.5
    assert manifest["parameters"]["cannot_link"] == "same_frame"
    assert re.search(r"low quality +\d+, of which \d+ attached to a cluster", result.stdout)
    assert re.search(r"merges prevented +0", result.stdout)
    assert manifest["parameters"]["columns"] == ["source", "track_id"]
    assert manifest["request"]["filters"] == {"sources": ["cam0", "cam1", "cam2"]}
    assert manifest["counts"]["filtered_out"] > 0


def test_updates_and_deletes_in_the_input_take_effect_in_their_order(tmp_path, lines, output):
    first, second, third = (json.loads(line) for line in lines[:3])
    account = first["account_id"]
    changes = [
        {"action": "update", "event_id": first["event_id"], "account_id": account, "source": "moved"},
        {"action": "delete", "event_ids": [second["event_id"], third["event_id"]], "account_id": account},
        {"action": "delete", "event_ids": ["gone"], "account_id": account},
    ]
    added = [json.dumps(change).encode() for change in changes] + [lines[2]]
    path = write_lines(tmp_path / "changed.jsonl", lines + added)
    result = cluster(path, "--output", output, "--columns", "source", "--json")
    assert result.exit_code == 0, result.stderr
    assert clusters_of(output) == expected_clusters([lines[0], *lines[2:]], 0.75)
    printed = json.loads(result.stdout)
    assert (printed["records"]["changes"], printed["records"]["accepted"]) == (3, len(lines) + 1)
    assert (printed["counts"]["deleted"], printed["counts"]["objects"]) == (2, len(lines) - 1)
    with zipfile.ZipFile(output) as archive:
        assert f"{first['event_id']},moved" in archive.read("report.csv").decode()


def test_the_threshold_defaults_to_that_of_the_settings(tmp_path, events, output):
    config = tmp_path / "settings.toml"
    config.write_text("[similarity.face]\ndefault_threshold = 0.31\n")
    result = invoke("cluster", events, "-o", output, "--config", config, "--json")
    assert json.loads(result.stdout)["threshold"] == 0.31


def test_rejected_lines_are_a_warning_with_file_and_line(tmp_path, lines, output):
    events = write_lines(tmp_path / "events.jsonl", [*lines[:3], b"not json", *lines[3:]])
    result = cluster(events, "-o", output)
    assert result.exit_code == 0
    assert "warning: 1 of 61 records were rejected (undecodable 1)" in result.stderr
    assert f"{events}:4: undecodable" in result.stderr


def npz_of_text(path):
    path.write_text("no zip")
    return path


def damaged_gzip(path):
    data = write_lines(path, event_lines()).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "absent.jsonl", "absent.jsonl: cannot be read: No such file"),
        (lambda folder: folder, "found a directory, expected a file"),
        (lambda folder: npz_of_text(folder / "vectors.npz"), "not an .npz file"),
        (lambda folder: npz_of_text(folder / "events.jsonl.gz"), "not a gzip file"),
        (lambda folder: damaged_gzip(folder / "events.jsonl.gz"), "damaged gzip data after line"),
        (lambda folder: write_lines(folder / "empty", []), "the input holds no objects"),
        (lambda folder: npz_of_text(folder / "bad.jsonl"), "all 1 records were rejected (undecodable 1)"),
    ],
)
def test_an_input_that_cannot_be_used_is_one_line_and_code_2(tmp_path, output, make, message):
    result = cluster(make(tmp_path), "-o", output)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    assert not output.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--threshold", "1.5"], "--threshold: found 1.5, expected -1 to 1"),
        (["--threshold", "nan"], "--threshold: found nan"),
        (["--columns", "sourc"], "no column 'sourc' of events; there are age, area, "),
        (["--columns", "source,source"], "the column source is named twice"),
        (["--save-images"], "content.save_images: no image root is configured (images.roots)"),
        (["--save-images", "--image-root", "absent"], "--image-root absent: found no directory there"),
        (["--save-images", "--image-root", ".", "--image-root", ".."], "found two for the prefix ''"),
        (["--save-images", "--image-root", "a//=."], "prefix: found 'a//'"),
        (["--image-root", "."], "--image-root has no effect without --save-images"),
        (["--object-type", "face", "--descriptor-type", "body"], "expected face for faces"),
        (["--task-id", "a/b"], "task_id"),
        (["--account", ""], "account_id"),
        (["--config", "absent.toml"], "absent.toml: cannot be read"),
        (["--filters", "absent.json"], "--filters absent.json: cannot be read"),
        (["--linkage", "single"], "Invalid value for '--linkage'"),
        (["--min-quality", "nan"], "--min-quality: found nan, expected a finite number"),
        (["--cannot-link", "same_frame"], "found it with the linkage components, expected average"),
        (["--cannot-link", "same_day"], "Invalid value for '--cannot-link'"),
        (["--descriptor-version", "-1"], "Invalid value for '--descriptor-version'"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_read(events, output, options, message):
    result = invoke("cluster", events, "-o", output, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not output.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "filters.json: "),
        ("[]", "expected an object"),
        ('{"source": ["cam0"]}', "filter 'source' is not known for events; did you mean sources?"),
        ('{"sources": "cam0"}', "Expected `array"),
        ('{"create_time__gte": "yesterday"}', "expected an RFC 3339 time with offset"),
        ('{"meta": {"a": {}}}', "content.filters.meta: found an empty object"),
    ],
)
def test_a_bad_filters_file_is_told_with_its_reason(tmp_path, events, output, text, message):
    filters = tmp_path / "filters.json"
    filters.write_text(text)
    result = cluster(events, "-o", output, "--filters", filters)
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_selection_of_nothing_fails_with_code_1(events, output):
    result = cluster(events, "-o", output, "--descriptor-type", "body")
    assert result.exit_code == 1
    assert "the input holds 60 events with face version 1" in result.stderr


def test_standard_input_twice_is_refused(output):
    assert cluster("-", "-", "-o", output, input=b"").exit_code == 2


def test_an_output_below_a_file_is_refused(events):
    result = cluster(events, "-o", events / "out.zip")
    assert result.exit_code == 2
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_cleanly_and_leaves_nothing_behind(tmp_path, number, code):
    folder = tmp_path / "tmpdir"
    folder.mkdir()
    random = np.random.default_rng(1)
    vectors = random.standard_normal((60_000, 256), dtype=np.float32)
    np.savez(tmp_path / "v.npz", ids=np.arange(60_000).astype(str), descriptors=vectors)
    command = [*COMMAND, "cluster", str(tmp_path / "v.npz"), "-o", str(tmp_path / "out.zip")]
    process = subprocess.Popen(
        command, env={"TMPDIR": str(folder)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 30
    while not list(folder.iterdir()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (code, "", "interrupted; nothing was written\n")
    assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tmpdir", "v.npz"]


def test_the_state_is_kept_where_tmpdir_says_and_removed(tmp_path, events, output, monkeypatch):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    assert cluster(events, "-o", output).exit_code == 0
    assert list(folder.iterdir()) == []


def test_images_below_the_roots_given_are_saved_and_the_table_says_how_many(tmp_path, lines, output):
    messages = [json.loads(line) for line in lines]
    for number, one in enumerate(messages):
        one["descriptors"][0]["image"] = f"{'new' if number % 2 else 'old'}/{number}.png"
    events = write_lines(tmp_path / "events.jsonl", [json.dumps(one).encode() for one in messages])
    for name, numbers in (("photos", range(0, 60, 2)), ("newer", range(1, 50, 2))):
        (tmp_path / name / "old").mkdir(parents=True)
        for number in numbers:
            path = tmp_path / name / ("old" if name == "photos" else "") / f"{number}.png"
            path.write_bytes(picture("png", colour=number))
    roots = ["--image-root", tmp_path / "photos", "--image-root", f"new/={tmp_path / 'newer'}"]
    result = cluster(events, "-o", output, "--save-images", *roots)
    assert result.exit_code == 0, result.stderr
    shown = next(line for line in result.stdout.splitlines() if line.startswith("images"))
    assert shown.split(None, 1)[1].strip() == "55 of 60, missing 5"
    with zipfile.ZipFile(output) as zipped:
        saved = {name.split("/")[2]: zipped.read(name) for name in zipped.namelist() if "/" in name}
    assert saved == {
        f"{one['event_id']}.png": picture("png", colour=number)
        for number, one in enumerate(messages)
        if number % 2 == 0 or number < 50
    }
    printed = cluster(events, "-o", output, "--save-images", *roots, "--json")
    assert json.loads(printed.stdout)["counts"] == manifest_of(output)["counts"]

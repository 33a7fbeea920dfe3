from __future__ import annotations

import json
import os
import tempfile
import threading
import time

import numpy as np
import pytest

from stream_cluster.config import Settings
from stream_cluster.config.settings import KafkaSettings
from stream_cluster.errors import Cancelled, InputError, TaskError
from stream_cluster.messages import decode_task
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.offline.run import cluster_files
from stream_cluster.offline.sources import find_sources, read_lines
from stream_cluster.offline.vectors import open_vectors
from tests.support.files import (
    clusters_of,
    event_lines,
    expected_clusters,
    manifest_of,
    write_lines,
    write_npz,
)

THRESHOLD = 0.75


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """Where the state is kept meanwhile; empty again after every test."""
    folder = tmp_path / "tmpdir"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def run(tmp_path):
    def cluster(*names, account_id=None, settings=None, interrupt=None, progress=no_progress, **content):
        content = {"objects_type": "events", "threshold": THRESHOLD, **content}
        task = decode_task(json.dumps({"task_id": "t", "account_id": "x", "content": content}).encode())
        return cluster_files(
            find_sources([str(name) for name in names]),
            task,
            settings or Settings(),
            tmp_path / "out.zip",
            account_id=account_id,
            vector_version=1,
            interrupt=interrupt or Interrupt(),
            progress=progress,
        )

    return cluster


def test_the_clusters_are_the_connected_components_for_every_threshold(tmp_path, run):
    lines = event_lines()
    path = write_lines(tmp_path / "events.jsonl", lines)
    for threshold in (-1.0, 0.2, 0.6, 0.75, 0.9, 1.0):
        run(path, threshold=threshold)
        assert clusters_of(tmp_path / "out.zip") == expected_clusters(lines, threshold), threshold


def test_objects_split_over_several_files_are_clustered_as_one_set(tmp_path, run):
    lines = event_lines()
    names = [write_lines(tmp_path / name, part) for name, part in (("a", lines[:25]), ("b.gz", lines[25:]))]
    run(*names)
    assert clusters_of(tmp_path / "out.zip") == expected_clusters(lines, THRESHOLD)


def test_repeated_objects_count_as_duplicates_and_change_nothing(tmp_path, run):
    lines = event_lines()
    path = write_lines(tmp_path / "events.jsonl", lines)
    result = run(path, path)
    assert (result.load.records, result.load.accepted, result.load.duplicates) == (120, 60, 60)
    assert result.counts["duplicates"] == 60
    assert clusters_of(tmp_path / "out.zip") == expected_clusters(lines, THRESHOLD)


def test_totals_reconcile_with_broken_lines_of_every_kind(tmp_path, run):
    lines = event_lines(events=120, bad_share=0.3, too_large_bytes=20_000)
    path = write_lines(tmp_path / "events.jsonl", lines)
    result = run(path, settings=Settings(kafka=KafkaSettings(max_message_bytes=10_000)))
    load, counts = result.load, result.counts
    rejected = sum(load.rejected.values())
    # A wrong partition cannot be told in a file, so those lines are good ones.
    assert set(load.rejected) >= {
        "undecodable",
        "missing_field",
        "wrong_dimension",
        "not_finite",
        "too_large",
    }
    assert load.records == 120 == load.accepted + load.duplicates + rejected
    assert counts["records_rejected"] == rejected
    assert counts["objects"] == counts["selected"] == load.accepted
    assert sum(len(cluster) for cluster in clusters_of(tmp_path / "out.zip")) == load.accepted


def test_a_rejection_is_shown_with_its_file_and_line_and_only_the_first_few_are(tmp_path, run):
    path = write_lines(tmp_path / "events.jsonl", [*event_lines()[:2], b"", *[b"{"] * 9])
    load = run(path).load
    assert load.rejected == {"undecodable": 9}
    assert load.examples[0].startswith(f"{path}:4: undecodable: ")
    assert len(load.examples) == 5


def test_events_dated_in_the_future_belong_to_the_file(tmp_path, run):
    path = write_lines(tmp_path / "events.jsonl", event_lines(start_time="2999-01-01T00:00:00Z"))
    assert run(path).counts["selected"] == 60


def test_two_accounts_need_a_choice_and_are_never_mixed(tmp_path, run):
    lines = event_lines(accounts=("north", "south"))
    path = write_lines(tmp_path / "events.jsonl", lines)
    with pytest.raises(InputError, match=r"north, south.*--account"):
        run(path)
    result = run(path, account_id="south")
    own = [line for line in lines if json.loads(line)["account_id"] == "south"]
    assert clusters_of(tmp_path / "out.zip") == expected_clusters(own, THRESHOLD)
    assert result.load.of_other_accounts == len(lines) - len(own)
    assert manifest_of(tmp_path / "out.zip")["account_id"] == "south"


def test_an_account_that_is_not_there_is_an_error(tmp_path, run):
    path = write_lines(tmp_path / "events.jsonl", event_lines())
    with pytest.raises(InputError, match="account nobody: none of 60 records"):
        run(path, account_id="nobody")


def test_when_all_is_rejected_the_reasons_are_told(tmp_path, run):
    path = write_lines(tmp_path / "events.jsonl", [b"{", b'{"account_id": "a"}'])
    with pytest.raises(InputError, match=r"all 2 records were rejected .*undecodable 1"):
        run(path)
    with pytest.raises(InputError, match="no objects"):
        run(write_lines(tmp_path / "empty.jsonl", []))


def test_asking_for_descriptors_that_are_not_there_tells_what_is(tmp_path, run):
    path = write_lines(tmp_path / "events.jsonl", event_lines())
    with pytest.raises(TaskError, match="the input holds 60 events with face version 1"):
        run(path, descriptor_type="body")


def test_filters_select_before_the_clustering(tmp_path, run):
    lines = event_lines()
    path = write_lines(tmp_path / "events.jsonl", lines)
    chosen = [line for line in lines if json.loads(line)["source"] in {"cam0", "cam3"}]
    result = run(path, filters={"sources": ["cam0", "cam3"]})
    assert clusters_of(tmp_path / "out.zip") == expected_clusters(chosen, THRESHOLD)
    assert result.counts["filtered_out"] == len(lines) - len(chosen)


@pytest.mark.parametrize("stage", ["read", "match", "clusters"])
def test_cancelled_at_any_stage_nothing_is_left_behind(tmp_path, run, stage):
    path = write_lines(tmp_path / "events.jsonl", event_lines())
    interrupt = Interrupt()

    def progress(name, share):
        if name == stage:
            interrupt.cancel()

    with pytest.raises(Cancelled):
        run(path, interrupt=interrupt, progress=progress)
    assert sorted(found.name for found in tmp_path.iterdir()) == ["events.jsonl", "tmpdir"]


def test_an_interrupt_ends_the_wait_for_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    interrupt = Interrupt()
    threading.Timer(0.05, interrupt.cancel).start()
    with pipe.open("r+b", buffering=0) as writer:  # held open, so that no end of file comes
        writer.write(b'{"a": 1}\n')
        [source] = find_sources([str(pipe)])
        began = time.monotonic()
        with pytest.raises(Cancelled):
            list(read_lines(source, 1000, interrupt, lambda _: None))
    assert time.monotonic() - began < 5


def test_the_output_is_checked_before_anything_is_read(tmp_path, run):
    (tmp_path / "out.zip").mkdir()
    stages = []
    path = write_lines(tmp_path / "events.jsonl", event_lines())
    with pytest.raises(InputError, match="found a directory"):
        run(path, progress=lambda stage, share: stages.append(stage))
    assert stages == []


def test_lines_longer_than_the_limit_are_cut_and_the_next_line_is_whole(tmp_path):
    path = write_lines(tmp_path / "lines", [b"a" * 5, b"b" * 3_000_000, b"", b"  ", b"c" * 10])
    [source] = find_sources([str(path)])
    lines = list(read_lines(source, 10, Interrupt(), lambda _: None))
    assert lines == [(1, b"a" * 5), (2, b"b" * 11), (5, b"c" * 10)]


def test_line_ends_of_windows_and_a_byte_order_mark_are_not_part_of_the_line(tmp_path):
    path = tmp_path / "lines"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo")
    [source] = find_sources([str(path)])
    assert list(read_lines(source, 100, Interrupt(), lambda _: None)) == [(1, b"one"), (2, b"two")]


def test_damaged_gzip_is_an_error_that_names_the_line(tmp_path):
    path = write_lines(tmp_path / "events.jsonl.gz", event_lines())
    path.write_bytes(path.read_bytes()[:-2000])
    [source] = find_sources([str(path)])
    with pytest.raises(InputError, match=r"events\.jsonl\.gz: damaged gzip data after line \d+"):
        list(read_lines(source, 10**6, Interrupt(), lambda _: None))


# -- .npz ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_an_npz_gives_the_same_clusters_as_the_events_it_was_made_from(tmp_path, run, compressed):
    lines = event_lines()
    result = run(write_npz(tmp_path / "vectors.npz", lines, compressed=compressed))
    assert clusters_of(tmp_path / "out.zip") == expected_clusters(lines, THRESHOLD)
    assert result.account_id == "local"


def test_blocks_of_an_npz_join_to_the_whole(tmp_path):
    ids = np.array([f"é{i}" for i in range(10)])
    vectors = np.arange(30, dtype=np.float32).reshape(10, 3)
    np.savez(tmp_path / "v.npz", ids=ids, descriptors=vectors)
    with open_vectors(tmp_path / "v.npz") as file:
        blocks = list(file.blocks(4))
    assert [block.first_row for block in blocks] == [0, 4, 8]
    assert [object_id for block in blocks for object_id in block.ids] == ids.tolist()
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), vectors)


def test_big_endian_vectors_and_byte_ids_are_read(tmp_path):
    vectors = np.array([[1, 2], [3, 4]], ">f4")
    np.savez(tmp_path / "v.npz", ids=np.array([b"a", b"b"]), descriptors=vectors)
    with open_vectors(tmp_path / "v.npz") as file:
        [block] = file.blocks(10)
    assert block.ids == ["a", "b"]
    assert block.vectors.tolist() == [[1, 2], [3, 4]]


def test_bad_rows_of_an_npz_are_rejected_with_their_reason(tmp_path, run):
    vectors = np.ones((6, 4), np.float32)
    vectors[1] = 0
    vectors[2, 1] = np.nan
    vectors[3, 0] = -np.inf
    np.savez(tmp_path / "v.npz", ids=np.array(["a", "b", "c", "d", "e/f", ""]), descriptors=vectors)
    load = run(tmp_path / "v.npz").load
    assert load.rejected == {"zero_vector": 1, "not_finite": 2, "bad_field": 2}
    assert load.examples[0].startswith(f"{tmp_path / 'v.npz'}:row 1: zero_vector")


@pytest.mark.parametrize(
    ("object_id", "first", "reason"),
    [
        ("", 1.0, "bad_field"),
        (".", 1.0, "bad_field"),
        ("..", 1.0, "bad_field"),
        ("a/b", 1.0, "bad_field"),
        ("a\\b", 1.0, "bad_field"),
        ("a\tb", 1.0, "bad_field"),
        ("x" * 129, 1.0, "bad_field"),
        ("x", 0.0, "zero_vector"),
        ("x", np.nan, "not_finite"),
        ("x", np.inf, "not_finite"),
        ("x", -np.inf, "not_finite"),
    ],
)
def test_one_bad_row_among_good_ones_is_found(tmp_path, run, object_id, first, reason):
    vectors = np.eye(5, 4, dtype=np.float32) + np.float32(0.1)
    vectors[2] = first
    np.savez(tmp_path / "v.npz", ids=np.array(["a", "b", object_id, "d", "e"]), descriptors=vectors)
    load = run(tmp_path / "v.npz").load
    assert (load.accepted, load.rejected) == (4, {reason: 1})


IDS = np.array(["a", "b"])
FLOATS = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": IDS}, "found ids, expected the arrays ids and descriptors"),
        ({"ids": np.array([1, 2]), "descriptors": FLOATS}, "ids: found int64"),
        ({"ids": np.array(["a", None]), "descriptors": FLOATS}, "ids: found object"),
        ({"ids": IDS, "descriptors": FLOATS.astype(np.float64)}, "descriptors: found float64"),
        ({"ids": IDS, "descriptors": FLOATS[0]}, r"of shape \(3,\)"),
        ({"ids": IDS, "descriptors": FLOATS.T.copy()}, "found 2 ids and 3 descriptors"),
        ({"ids": IDS, "descriptors": np.asfortranarray(FLOATS)}, "found column order"),
        ({"ids": IDS, "descriptors": np.ones((2, 0), np.float32)}, "found dimension 0"),
        ({"ids": IDS, "descriptors": np.ones((2, 4097), np.float32)}, "found dimension 4097"),
    ],
)
def test_an_npz_of_another_layout_is_refused_with_what_was_found(tmp_path, arrays, message):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(InputError, match=message), open_vectors(tmp_path / "v.npz"):
        pass


def test_a_damaged_npz_is_refused_wherever_the_damage_is(tmp_path, run):
    path = write_npz(tmp_path / "v.npz", event_lines(events=200))
    whole = path.read_bytes()
    random = np.random.default_rng(5)
    for _ in range(30):
        damaged = bytearray(whole[: random.integers(100, len(whole))])
        path.write_bytes(damaged)
        with pytest.raises(InputError):
            run(path)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF  # found by the checksum of the member
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        run(path)

"""The soak's plan, its records and its model: what they rest on, and that a difference is one."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from stream_cluster.messages import DecodeRules, RawRecord, Rejection, decode_events
from tests.soak import steps
from tests.soak.messages import MAX_MESSAGE_BYTES, made
from tests.soak.truth import Truth, compare_archive, selected, space_of
from tests.support.archives import Archive, expected_clusters
from tests.support.partitions import apply_in_batches, open_partition, snapshot


def _steps(count: int, seed: int = 3) -> list[steps.Step]:
    return list(itertools.islice(steps.Plan(seed), count))


def _records(account: str, count: int = 400):
    sent = []
    for step in _steps(count):
        if isinstance(step, steps.Messages | steps.Everything) and step.account == account:
            sent += made(step)
    return [one for one in sent if one.reason != "wrong_partition"]


def test_a_plan_is_a_function_of_its_seed_and_a_trace_holds_it(tmp_path: Path) -> None:
    planned = _steps(500)
    assert planned == _steps(500)
    assert planned != _steps(500, seed=4)
    assert {type(step) for step in planned} == set(steps.Step.__args__)
    trace = tmp_path / "trace.jsonl"
    steps.write_header(trace, 3)
    for step in planned:
        steps.append_step(trace, step)
    assert steps.read_trace(trace) == (3, planned)


def test_every_bad_record_has_the_reason_that_the_decoder_gives() -> None:
    rules = DecodeRules(None, MAX_MESSAGE_BYTES, 128)
    seen = set()
    for sent in _records("account-1"):
        record = RawRecord("events", 0, 0, 0, None, sent.value, sent.content_type)
        (result,) = decode_events([record], rules)
        if sent.message is None and sent.reason != "wrong_dimension":
            assert isinstance(result, Rejection)
            assert result.reason == sent.reason
            seen.add(sent.reason)
        else:
            assert not isinstance(result, Rejection)
    assert len(seen) >= 8


@pytest.fixture
def taken(tmp_path: Path):
    """An archive of the product, and the model of the same records."""
    truth = Truth(1)
    records = []
    for offset, sent in enumerate(_records("account-1")):
        truth.add(0, offset, sent)
        records.append(RawRecord("events", 0, offset, 0, None, sent.value, sent.content_type))
    partition = open_partition(tmp_path)
    apply_in_batches(partition, [one for one in records if len(one.value) <= MAX_MESSAGE_BYTES], [7] * 20)
    content = {"objects_type": "events", "threshold": 0.6, "use_track_info": False}
    model = truth.model("account-1", 0, len(records))
    seen = selected(model, space_of("account-1", content), content)
    counts = {
        "objects": len(seen),
        "deleted": model.deleted.get(space_of("account-1", content), 0),
        "duplicates": model.duplicates.get(space_of("account-1", content), 0),
    }
    _, result = snapshot(
        partition, tmp_path / "a.zip", account="account-1", objects_type="events", threshold=0.6
    )
    partition.close()
    assert result.objects == len(seen)
    clusters = [{"objects": members} for members in expected_clusters(seen, 0.6)]
    return Archive(tmp_path / "a.zip", {"counts": counts}, clusters, []), model, content


def test_what_is_right_has_no_difference(taken) -> None:
    archive, model, content = taken
    assert compare_archive(archive, model, "account-1", content, "here") == []


def test_an_object_lost_or_doubled_is_counted(taken) -> None:
    archive, model, content = taken
    gone = archive.clusters[0]["objects"].pop()
    (difference,) = compare_archive(archive, model, "account-1", content, "here")
    assert (difference.lost, difference.duplicated) == (1, 0)
    archive.clusters[0]["objects"] += [gone, gone]
    (difference,) = compare_archive(archive, model, "account-1", content, "here")
    assert (difference.lost, difference.duplicated) == (0, 1)


def test_other_clusters_and_other_counts_are_differences(taken) -> None:
    archive, model, content = taken
    archive.manifest["counts"]["deleted"] += 1
    moved = archive.clusters[0]["objects"].pop()
    archive.clusters.append({"objects": [moved]})
    found = {one.what for one in compare_archive(archive, model, "account-1", content, "here")}
    assert found == {"clusters", "counts"}

"""Spaces in cells within a partition, and files clustered in cells."""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
import pytest

from stream_cluster.config import load_settings
from stream_cluster.matching import cell_engine
from stream_cluster.matching.costs import Costs, costs_path
from stream_cluster.service.metrics import Metrics
from stream_cluster.service.upkeep import Upkeep, UpkeepSettings
from stream_cluster.state.inspect import inspect_partition
from tests.support.cli import invoke
from tests.support.files import manifest_of as manifest_of_file
from tests.support.partitions import manifest_of, message, open_partition, records, snapshot


@pytest.fixture
def settings():
    return load_settings(None, {}, {"matching.engine": "cells", "matching.cells_sample_share": 1.0})


@pytest.fixture
def small_cells(monkeypatch):
    """Cells from few rows on."""
    monkeypatch.setattr(cell_engine, "CELLS_FROM_ROWS", 400)


def people(count, dim=32, each=20, noise=0.9):
    random = np.random.default_rng(5)
    person = np.repeat(random.standard_normal((count // each, dim)), each, axis=0)
    return (person + noise * random.standard_normal(person.shape)).astype(np.float32)[
        random.permutation(count)
    ]


def fill(partition, vectors, first=0, *, narrow=False):
    for start in range(0, len(vectors), 200):
        part = vectors[start : start + 200]
        messages = [message(first + start + place, vector) for place, vector in enumerate(part)]
        if narrow:
            for space in partition.spaces():
                space.matcher.cells.control.margin = 0.0
        partition.apply(records(messages, first_offset=first + start))
        for space in partition.spaces():
            space.matcher.wait_until_built(60)


def test_the_manifest_names_engine_and_recall(tmp_path, settings, small_cells):
    partition = open_partition(tmp_path, settings=settings)
    vectors = people(1200)
    fill(partition, vectors)
    facts = manifest_of(snapshot(partition, tmp_path / "a.zip")[0])["matching"]
    assert facts["engine"] == "cells"
    assert facts["recall"]["links_true"] > 0
    assert facts["recall"]["low"] <= facts["recall"]["share"] <= facts["recall"]["high"]
    assert facts["target_recall"] == 0.995
    filtered, _ = snapshot(partition, tmp_path / "b.zip", threshold=0.2)
    assert manifest_of(filtered)["matching"] == {"engine": "exact", "recall": None}
    partition.close()
    assert inspect_partition(tmp_path / "partition-0.sqlite").spaces[0].matching == facts


def test_a_space_matched_exactly_says_so(tmp_path):
    partition = open_partition(tmp_path)
    fill(partition, people(100))
    assert manifest_of(snapshot(partition, tmp_path / "a.zip")[0])["matching"] == {
        "engine": "exact",
        "recall": None,
    }
    partition.close()


def test_a_second_chance_puts_links_into_the_forest(tmp_path, settings, small_cells):
    settings = load_settings(None, {}, {"matching.engine": "cells", "matching.cells_sample_share": 0.0})
    partition = open_partition(tmp_path, settings=settings, floor=0.4)
    fill(partition, people(1600), narrow=True)
    [space] = partition.spaces()
    before, doubts = space.merged_links + space.pending_links, space.matcher.doubts
    assert doubts > 0
    added = searched = 0
    offset = partition.next_offset
    while True:
        batch = partition.prepare_second_chance(100)
        if not batch.searched_again:
            break
        searched += batch.searched_again
        added += sum(part.links_seen for part in batch.spaces.values())
        partition.commit(batch)
    assert searched == doubts
    assert added > 0
    assert space.merged_links + space.pending_links >= before
    assert partition.next_offset == offset
    with partition.view() as view:
        [record] = view.spaces()
        assert record.next_row == 1600
        links = view.links(record.space_id, 0.4)
        assert len(links) > 0
    partition.close()


def test_the_upkeep_searches_again_within_its_share_and_counts_what_it_found(tmp_path, settings, small_cells):
    settings = load_settings(None, {}, {"matching.engine": "cells", "matching.cells_sample_share": 0.0})
    partition = open_partition(tmp_path, settings=settings, floor=0.4)
    fill(partition, people(1600), narrow=True)
    metrics = Metrics()

    async def in_engine(function, *arguments):
        return function(*arguments)

    upkeep = Upkeep(partition, UpkeepSettings(second_chance_share=0.001), metrics, in_engine)
    assert 0 < upkeep.due_in_s() <= 5
    upkeep._search_at = time.monotonic()
    [space] = partition.spaces()
    doubts = space.matcher.doubts
    asyncio.run(upkeep.run())
    searched = min(doubts, 64)
    assert searched > 0
    assert metrics.registry.get_sample_value("stream_cluster_second_chance_objects_total") == searched
    assert upkeep.due_in_s() > 0, "a pause a thousand times as long as the search"
    off = Upkeep(partition, UpkeepSettings(), metrics, in_engine)
    assert off._search_at == float("inf")
    partition.close()


def test_metrics_show_the_recall_of_cells(tmp_path, settings, small_cells):
    partition = open_partition(tmp_path, settings=settings)
    fill(partition, people(1200))
    metrics = Metrics()
    metrics.observe_cells("face", [space.matcher.cells for space in partition.spaces()])
    value = metrics.registry.get_sample_value
    labels = {"descriptor_type": "face"}
    assert (
        0
        < value("stream_cluster_link_recall_low", labels)
        <= value("stream_cluster_link_recall_high", labels)
    )
    assert value("stream_cluster_cells_scanned_share", labels) > 0
    assert value("stream_cluster_cells_over_budget", labels) in (0, 1)
    partition.close()


def test_a_file_is_clustered_in_cells_and_the_manifest_says_so(tmp_path):
    vectors = people(20_000, 64, each=10, noise=0.5)
    np.savez(tmp_path / "v.npz", ids=np.arange(len(vectors)).astype(str), descriptors=vectors)
    facts = {}
    for engine in ("exact", "cells"):
        output = tmp_path / f"{engine}.zip"
        result = invoke(
            "cluster", tmp_path / "v.npz", "-o", output, "--engine", engine, "--threshold", "0.65", "--json"
        )
        assert result.exit_code == 0, result.stderr
        facts[engine] = json.loads(result.stdout)
        assert manifest_of_file(output)["matching"] == facts[engine]["matching"]
    assert facts["exact"]["matching"] == {"engine": "exact", "recall": None}
    found = facts["cells"]["matching"]
    assert found["engine"] == "cells"
    assert found["recall"]["share"] >= 0.99
    assert found["scanned_share"] < 0.5
    counts = [facts[engine]["counts"]["clusters"] for engine in ("exact", "cells")]
    assert counts[1] == pytest.approx(counts[0], rel=0.02)


def test_average_linkage_in_cells_is_refused(tmp_path):
    np.savez(tmp_path / "v.npz", ids=np.array(["a"]), descriptors=np.ones((1, 4), np.float32))
    result = invoke(
        "cluster", tmp_path / "v.npz", "-o", tmp_path / "o.zip", "--engine", "cells", "--linkage", "average"
    )
    assert result.exit_code != 0
    assert "--linkage average needs all" in result.stderr


def test_inspect_explains_the_choice_by_costs(tmp_path, settings):
    partition = open_partition(tmp_path)
    fill(partition, people(100))
    partition.close()
    costs = Costs(0.5, 0.5, 12.0, 9000.0, 5000.0, "portable", 1)
    fields = {name: getattr(costs, name) for name in costs.__slots__}
    costs_path(tmp_path).write_text(json.dumps({"format": 1, **fields}))
    shown = invoke("inspect", tmp_path)
    assert "microseconds an event" in shown.stdout
    assert "cells" in shown.stdout
    printed = json.loads(invoke("inspect", tmp_path, "--json").stdout)
    assert printed["matching_costs"] == fields
    assert printed["partitions"][0]["spaces"][0]["matching"]["engine"] == "exact"

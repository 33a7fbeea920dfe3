from __future__ import annotations

import numpy as np
import pytest

from benchmarks.process import Usage
from benchmarks.service_probe import Commit
from benchmarks.service_run import Run, events_topic, state_directory, summarise
from benchmarks.stream import write_resident
from stream_cluster.config import Settings
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import DecodeRules, RawRecord
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity


@pytest.mark.parametrize("data", ["faces", "directions"])
def test_the_service_finds_resident_objects_that_are_strangers_to_the_events(tmp_path, data):
    options = GenerateOptions(events=200, dim=512)
    directory = state_directory(tmp_path, "run")
    write_resident(directory, events_topic("run"), 9000, options, data)
    settings = Settings()
    links = []
    for resident in (True, False):
        path = database_path(directory, 0) if resident else tmp_path / "empty.sqlite"
        partition = Partition(
            path,
            PartitionIdentity(events_topic("run"), 0, 1, settings.kafka.partitioner),
            DecodeRules(None, settings.kafka.max_message_bytes, settings.ingest.uint8_offset),
            lambda dim, _: SpaceMatcher(dim, settings.matching),
            settings.similarity.face.floor,
            synchronous="off",
        )
        assert partition.next_offset == 0
        records = [
            RawRecord(events_topic("run"), 0, offset, 0, event.key, event.value, event.content_type)
            for offset, event in enumerate(generate_events(options))
        ]
        outcome = partition.apply(records)
        assert outcome.accepted == 200
        (space,) = partition.spaces()
        assert space.next_row == 200 + 9000 * resident
        links.append(outcome.links["face"])
        partition.close()
    assert links[0] == links[1] > 0


def test_latency_is_from_the_send_of_an_event_to_the_commit_that_holds_it():
    commits = [
        Commit(10.5, 0, 3, 2, 2, 1, {"match": 0.2}),
        Commit(11.0, 0, 4, 1, 1, 0, {"match": 0.1}),
    ]
    run = Run(np.array([10.0, 10.1, 10.9]), commits, Usage(0, 3.0, 1.5, 2_000_000))
    summary = summarise(run)
    assert summary["seconds"] == 1.0
    assert summary["events_per_s"] == 3
    assert summary["latency_ms"]["p50"] == 400.0
    assert summary["latency_ms"]["p100"] == 500.0
    assert summary["stage_s"] == {"match": 0.3}
    assert summary["peak_memory_mb"] == 2.0

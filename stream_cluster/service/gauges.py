"""Gauges that are made from the present state of the partitions, when somebody asks for the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from stream_cluster.matching.cells import CellMatcher
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.service.metrics import Metrics


def refresh_gauges(
    metrics: Metrics, runners: Mapping[int, PartitionRunner], lag_records: Callable[[int], int | None]
) -> None:
    """Bring them up to date. `lag_records` gives that of a partition, None before the first fetch."""
    rows: Counter[str] = Counter()
    nbytes: Counter[str] = Counter()
    engines: Counter[str] = Counter()
    cells: dict[str, list[CellMatcher]] = {"face": [], "body": []}
    relays = [runner.relay for runner in runners.values() if runner.relay is not None]
    metrics.outbox_messages.set(sum(len(relay) for relay in relays))
    for number, runner in runners.items():
        lag = lag_records(number)
        if lag is not None:
            metrics.lag_records.labels(str(number)).set(lag)
        for space in runner.partition.spaces():
            rows[space.key.descriptor_type] += space.next_row - space.deleted
            engines[space.matcher.engine if space.matcher else "not loaded"] += 1
            nbytes[space.key.descriptor_type] += space.matcher.nbytes if space.matcher else 0
            if space.matcher is not None and space.matcher.cells is not None:
                cells[space.key.descriptor_type].append(space.matcher.cells)
    for descriptor_type in ("face", "body"):
        metrics.rows.labels(descriptor_type).set(rows[descriptor_type])
        metrics.matcher_bytes.labels(descriptor_type).set(nbytes[descriptor_type])
    for descriptor_type, matchers in cells.items():
        metrics.observe_cells(descriptor_type, matchers)
    for engine in ("exact", "cells", "hnsw", "not loaded"):
        metrics.spaces.labels(engine).set(engines[engine])

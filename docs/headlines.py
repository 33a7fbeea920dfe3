"""The few figures that a reader asks for first, from the committed results."""

from __future__ import annotations

from typing import Any

import msgspec

from docs.results import RESULTS, figure, leaves
from docs.tables import table

_HEADLINES = (
    (
        "a million objects of 512 dimensions, from a file to the archive, every link found",
        "seed_table",
        "{1,000,000 at 0.5.batch.seconds} s, {1,000,000 at 0.5.batch.peak_memory_bytes}",
    ),
    (
        "the published figures for as many, of what this replaces",
        "seed_table",
        "below {1,000,000 at 0.5.published.seconds_below} s, {1,000,000 at 0.5.published.memory_gb_below} GB",
    ),
    (
        "a million faces from a file to the archive, with cells",
        "cells",
        "{file.seconds} s, {file.share_measured.share} of the links of a sample",
    ),
    (
        "events a second from Kafka, beside a million objects",
        "stream",
        "{backlog, 1,000,000 resident.events_per_s}",
    ),
    (
        "from produce to durable at 1,000 events a second beside 100,000 objects, median and 99th percentile",
        "stream",
        "{paced, 100,000 resident.latency_ms.p50} ms, {paced, 100,000 resident.latency_ms.p99} ms",
    ),
    (
        "events a second that cells match beside ten million objects",
        "cells",
        "{resident.events_s}, {resident.check.share} of the links, {resident.peak_memory_bytes}",
    ),
    (
        "the clusters of a million objects for a task, and the whole task with archive and page",
        "snapshot",
        "{labels_s.median} s, {archive.seconds} s",
    ),
    (
        "a task for a tenth of a million objects, by time and source, matched again",
        "selection",
        "{archive.seconds} s",
    ),
    (
        "from SIGKILL to ready with a million objects, three times",
        "backup",
        "{start on its disk, 1,000,000 resident.ready_s} s",
    ),
    (
        "the same with an empty disk, from a backup",
        "backup",
        "{start on an empty disk, 1,000,000 resident.ready_s} s",
    ),
    (
        "random work and faults against a model",
        "soak",
        "{minutes} minutes, {kills} kills, {broker_restarts} broker restarts, {rebalances} rebalances: "
        "{objects_lost} objects lost, {objects_duplicated} counted twice",
    ),
)


def headlines() -> str:
    """Figures in words. Raises KeyError when a result lacks one of them."""
    return table(["figure", "measured"], [[what, _filled(name, text)] for what, name, text in _HEADLINES])


def _filled(name: str, text: str) -> str:
    """A text with each figure that it names, in braces, of one result."""
    report: dict[str, Any] = msgspec.json.decode((RESULTS / f"{name}.json").read_bytes())
    figures = dict(leaves(report["results"], ""))
    parts = [part.split("}") for part in text.split("{")]
    return parts[0][0] + "".join(figure(key, figures[key]) + rest for key, rest in parts[1:])

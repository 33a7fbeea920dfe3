"""From records to links and clusters."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from stream_cluster.config.sections.base import Section


class IngestSettings(Section, frozen=True, kw_only=True):
    """Micro-batching of objects, and how their descriptors are read."""

    batch_max_records: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Most records of one micro-batch.")
    ] = 1024
    linger_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="How long a batch that is not full waits for more records.")
    ] = 20
    buffer_max_records: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Waiting records of a partition above which it is paused.")
    ] = 4096
    uint8_offset: Annotated[
        int, Meta(ge=0, le=255, description="Subtracted from each value of uint8 and sdk descriptors.")
    ] = 128


class DescriptorVersion(Section, frozen=True, kw_only=True):
    """Descriptor version of a task that names none."""

    face: Annotated[
        Annotated[int, Meta(ge=0, le=2**32 - 1)] | None,
        Meta(description="Version of a face task that names none; when absent the newest with objects."),
    ] = None
    body: Annotated[
        Annotated[int, Meta(ge=0, le=2**32 - 1)] | None,
        Meta(description="Version of a body task that names none; when absent the newest with objects."),
    ] = None


class MatchingSettings(Section, frozen=True, kw_only=True):
    """How links are found."""

    engine: Annotated[
        Literal["auto", "exact", "cells", "hnsw"],
        Meta(description="Matcher of a space; auto is exact until another is faster on this machine."),
    ] = "auto"
    descriptor_version: DescriptorVersion = DescriptorVersion()
    # Exact matching was faster at every size of benchmarks/results/crossover.json, and beside two million
    # objects it takes less than a graph of one million. Its time grows with the rows, that of HNSW with
    # their fifth root: they meet at several millions, and below two where the processor has no VNNI, without
    # which exact matching takes three times as long (kernel.json). HNSW misses links, and needs five times
    # the memory.
    hnsw_after: Annotated[
        int, Meta(ge=1, description="Objects of a space below which auto never uses hnsw.")
    ] = 2_000_000
    # Above it, auto takes what costs least on this machine (`matching.costs`). Below, exact matching keeps up
    # with thousands of events a second on slow machines too, and misses nothing.
    cells_after: Annotated[
        int, Meta(ge=1, description="Objects of a space below which auto never uses cells.")
    ] = 200_000
    target_recall: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of the links above the default threshold that cells have to find.",
        ),
    ] = 0.995
    cells_budget_share: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of a space that a query should be compared with at most; more is reported.",
        ),
    ] = 0.05
    cells_sample_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Comparisons of cells to measure recall / those to find links."),
    ] = 0.1
    rematch_engine: Annotated[
        Literal["auto", "exact", "cells"],
        Meta(
            description="How selections are matched again; auto is exact unless that takes rematch_exact_s "
            "and cells less than half of it."
        ),
    ] = "auto"
    rematch_exact_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Seconds of exact matching above which a re-match uses cells."),
    ] = 120.0
    second_chance_share: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of the time that goes into finding links that cells missed; none of it where "
            "cluster updates are told.",
        ),
    ] = 0.1
    map_codes: Annotated[
        bool,
        Meta(
            description="Whether codes in cells lie in a mapped file of the state directory, not in memory."
        ),
    ] = False
    hnsw_m: Annotated[int, Meta(ge=2, le=128, description="Links per node of the HNSW graph.")] = 16
    hnsw_ef_construction: Annotated[
        int, Meta(ge=2, le=10_000, description="Candidates kept while a node is inserted.")
    ] = 200
    hnsw_ef_search: Annotated[
        int, Meta(ge=1, le=100_000, description="Least candidates kept in a search.")
    ] = 64
    recall_sample_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of new objects of HNSW spaces that are matched exactly too."),
    ] = 0.01
    threads: Annotated[int, Meta(ge=0, le=1024, description="Threads of the matchers; 0 uses all cores.")] = 0


class UpdateSettings(Section, frozen=True, kw_only=True):
    """Cluster updates: what each new object does to the clusters at the default threshold."""

    enabled: Annotated[bool, Meta(description="Produce cluster updates to kafka.updates_topic.")] = False
    outbox_max_messages: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000_000,
            description="Updates of a partition that wait for the brokers, at which its ingest waits too.",
        ),
    ] = 100_000


class ChainingSettings(Section, frozen=True, kw_only=True):
    """When clusters are warned of that may be several which chain."""

    largest_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of the selection above which a cluster is warned of.")
    ] = 0.05
    bridge_margin: Annotated[
        float,
        Meta(ge=0, le=1, description="How far above the threshold, as a cosine, a link counts as a bridge."),
    ] = 0.03
    bridge_objects: Annotated[
        int, Meta(ge=1, description="Objects on either side of a link that make it a bridge.")
    ] = 5

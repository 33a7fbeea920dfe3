"""Prometheus metrics. Names and labels are a public interface: docs/metrics.md lists them all.

Labels are closed sets: result, reason, descriptor type, stage, status, partition number. Never an account.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from stream_cluster import __version__
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.messages import Reason
from stream_cluster.state.batch import Cause, Outcome

_DESCRIPTOR_TYPES = ("face", "body")
_LATENCY_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_BATCH_BUCKETS = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096, 16384)
_TASK_BUCKETS_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200)
_OPEN_BUCKETS_S = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_SHARE_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1)
_SHARE_MIN_OBJECTS = 1000
"""Objects of a task below which its largest cluster says nothing about chaining: a filter may well select the
appearances of one person."""


class Metrics:
    """All metrics of one service, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("stream_cluster_build", "Version of the running software.", registry=registry).info(
            {"version": __version__}
        )

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"stream_cluster_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"stream_cluster_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(f"stream_cluster_{name}", text, labels, buckets=buckets, registry=registry)

        self.records = counter("records", "Records applied, by result.", "result")
        self.rejections = counter("rejections", "Rejected records, by reason.", "reason")
        self.objects = counter("objects", "New objects.", "descriptor_type")
        self.deleted = counter(
            "deleted_objects", "Deleted objects, by what asked for it.", "descriptor_type", "cause"
        )
        self.links = counter("links", "Links above the floor found for new objects.", "descriptor_type")
        self.dead_letters = counter("dead_letters", "Records written to the dead-letter topic.")
        self.updates = counter("updates", "Cluster updates acknowledged by the brokers.")
        self.outbox_messages = gauge("outbox_messages", "Cluster updates that wait for the brokers.")
        self.batch_records = histogram("batch_records", "Records of a micro-batch.", _BATCH_BUCKETS)
        self.batch_duration = histogram(
            "batch_duration_seconds", "From taking up a micro-batch to its commit.", _LATENCY_BUCKETS_S
        )
        self.stage = counter("stage_seconds", "Engine time, by stage.", "stage")
        self.event_lag = histogram(
            "event_lag_seconds", "From a record's timestamp to its durable commit.", _LATENCY_BUCKETS_S
        )
        self.lag_records = gauge("lag_records", "Records of the log not applied yet.", "partition")
        self.lag_seconds = gauge(
            "lag_seconds",
            "Age of the newest applied record when it was applied; 0 when caught up.",
            "partition",
        )
        self.rows = gauge("rows", "Objects held.", "descriptor_type")
        self.matcher_bytes = gauge("matcher_bytes", "Memory of the matchers.", "descriptor_type")
        self.spaces = gauge("spaces", "Spaces by the engine that matches them.", "engine")
        self.recall_true = counter(
            "recall_sample_links", "True links of sampled objects in approximate spaces.", "descriptor_type"
        )
        self.recall_found = counter(
            "recall_sample_links_found", "Those of them that the matcher found.", "descriptor_type"
        )
        self.recall = gauge(
            "link_recall", "Share of true links found, over all samples since the start.", "descriptor_type"
        )
        self.tasks = counter("tasks", "Tasks ended, by status.", "status")
        self.tasks_running = gauge("tasks_running", "Tasks that run now.")
        self.tasks_waiting = gauge("tasks_waiting", "Tasks read and not begun.")
        self.task_duration = histogram(
            "task_duration_seconds", "From reading a task to its end.", _TASK_BUCKETS_S, "status"
        )
        self.largest_cluster_share = histogram(
            "largest_cluster_share",
            f"Largest cluster's share of the objects of a task with at least {_SHARE_MIN_OBJECTS}.",
            _SHARE_BUCKETS,
            "descriptor_type",
        )
        self.latest_cluster_share = gauge(
            "latest_task_largest_cluster_share",
            "Largest cluster's share of the objects of the task that was done last.",
            "descriptor_type",
        )
        self.archives_removed = counter("archives_removed", "Archives removed, by reason.", "reason")
        self.removal_failures = counter(
            "archive_removal_failures", "Archives that could not be removed; each is tried again."
        )
        self.callbacks = counter("callbacks", "Callbacks of ended tasks, by result of a call.", "result")
        self.rebalances = counter("rebalances", "Rebalances of the consumer group.")
        self.fenced = counter(
            "fenced_partitions", "Partitions that were closed because the group had given them to others."
        )
        self.partitions = gauge("partitions", "Partitions assigned to this worker.")
        self.paused = gauge("paused_partitions", "Partitions paused because the engine is behind.")
        self.ready = gauge("ready", "1 when /readyz succeeds.")
        self._of_cells(gauge, counter)
        self._of_the_disk(gauge, histogram)
        self._of_backups(gauge, counter, histogram)
        self._recall_totals: dict[str, tuple[int, int]] = {}
        self._preset()

    def _of_cells(self, gauge: Callable[..., Gauge], counter: Callable[..., Counter]) -> None:
        self.recall_low = gauge(
            "link_recall_low", "Lower end of its interval of 95% confidence.", "descriptor_type"
        )
        self.recall_high = gauge(
            "link_recall_high", "Upper end of its interval of 95% confidence.", "descriptor_type"
        )
        self.cells_scanned = gauge(
            "cells_scanned_share",
            "Share of a space that a query is compared with in cells.",
            "descriptor_type",
        )
        self.cells_over_budget = gauge(
            "cells_over_budget", "Spaces whose recall takes more than cells_budget_share.", "descriptor_type"
        )
        self.second_chances = counter("second_chance_objects", "Objects of cells searched for again.")
        self.second_chance_links = counter(
            "second_chance_links", "Links found so that cells had missed.", "descriptor_type"
        )

    def _of_the_disk(self, gauge: Callable[..., Gauge], histogram: Callable[..., Histogram]) -> None:
        self.partition_open = histogram(
            "partition_open_seconds",
            "From the assignment of a partition until its state is loaded and reading begins.",
            _OPEN_BUCKETS_S,
        )
        self.disk_free = gauge(
            "disk_free_bytes", "Room left to this service where a directory of the settings is.", "directory"
        )
        self.disk_size = gauge("disk_size_bytes", "Size of that file system.", "directory")
        self.state_size = gauge("state_bytes", "Files in state.directory.")

    def _of_backups(
        self,
        gauge: Callable[..., Gauge],
        counter: Callable[..., Counter],
        histogram: Callable[..., Histogram],
    ) -> None:
        self.backups = counter("backups", "Backups that were due, by result.", "result")
        self.backup_age = gauge(
            "backup_age_seconds",
            "Since the newest backup was what the state is; without one, since the partition was opened.",
            "partition",
        )
        self.backup_size = gauge("backup_size_bytes", "Size of the last backup that was stored.", "partition")
        self.backup_duration = histogram(
            "backup_duration_seconds", "From the begin of a backup until it is stored.", _TASK_BUCKETS_S
        )
        self.restores = counter("restores", "Backups that were to be restored, by result.", "result")
        self.restore_duration = histogram(
            "restore_duration_seconds", "From the search for a backup until it is restored.", _TASK_BUCKETS_S
        )

    def _preset(self) -> None:
        """Make every series of a closed label set exist from the start, so that rates see the first count."""
        for result in ("accepted", "duplicate", "updated", "deleted", "unknown_object", "rejected"):
            self.records.labels(result)
        for reason in Reason:
            self.rejections.labels(reason.value)
        for descriptor_type in _DESCRIPTOR_TYPES:
            for metric in (self.objects, self.links, self.rows, self.matcher_bytes):
                metric.labels(descriptor_type)
            for cause in get_args(Cause):
                self.deleted.labels(descriptor_type, cause)
            self.recall_true.labels(descriptor_type)
            self.recall_found.labels(descriptor_type)
            self.recall.labels(descriptor_type).set(1)
            self.recall_low.labels(descriptor_type).set(0)
            self.recall_high.labels(descriptor_type).set(1)
            self.cells_scanned.labels(descriptor_type).set(0)
            self.cells_over_budget.labels(descriptor_type).set(0)
            self.second_chance_links.labels(descriptor_type)
            self.largest_cluster_share.labels(descriptor_type)
            self.latest_cluster_share.labels(descriptor_type)
        for stage in ("decode", "match", "dead_letter", "commit", "memory"):
            self.stage.labels(stage)
        for status in ("done", "failed", "cancelled"):
            self.tasks.labels(status)
            self.task_duration.labels(status)
        for removal in ("deleted", "expired"):
            self.archives_removed.labels(removal)
        for result in ("delivered", "retried", "given_up"):
            self.callbacks.labels(result)
        for result in ("stored", "unchanged", "failed", "taken_over"):
            self.backups.labels(result)
        for result in ("restored", "damaged", "unfit"):
            self.restores.labels(result)

    def observe_batch(self, outcome: Outcome, duration_s: float, lags_s: Iterable[float]) -> None:
        """Count a committed micro-batch. `lags_s`: seconds from each record's timestamp to the commit."""
        self.records.labels("accepted").inc(outcome.accepted)
        self.records.labels("duplicate").inc(outcome.duplicates)
        self.records.labels("updated").inc(outcome.updated)
        self.records.labels("deleted").inc(outcome.deleted)
        self.records.labels("unknown_object").inc(outcome.unknown)
        self.records.labels("rejected").inc(sum(outcome.rejected.values()))
        for reason, count in outcome.rejected.items():
            self.rejections.labels(reason).inc(count)
        for descriptor_type, count in outcome.objects.items():
            self.objects.labels(descriptor_type).inc(count)
        self.observe_deletions(outcome)
        for descriptor_type, count in outcome.links.items():
            self.links.labels(descriptor_type).inc(count)
        for descriptor_type, sample in outcome.recall.items():
            self._observe_recall(descriptor_type, sample.links_true, sample.links_found)
        for stage, seconds in outcome.stage_s.items():
            self.stage.labels(stage).inc(seconds)
        self.batch_records.observe(outcome.records)
        self.batch_duration.observe(duration_s)
        for lag_s in lags_s:
            self.event_lag.observe(lag_s)

    def observe_largest_cluster(self, descriptor_type: str, objects: int, largest_cluster: int) -> None:
        """Note the largest cluster of a done task; in the histogram, unless it has too few objects."""
        self.latest_cluster_share.labels(descriptor_type).set(largest_cluster / objects)
        if objects >= _SHARE_MIN_OBJECTS:
            self.largest_cluster_share.labels(descriptor_type).observe(largest_cluster / objects)

    def observe_disks(self, state: Path, results: Path | None) -> None:
        """Bring up to date what is known of disks. `results` is None when archives are in a bucket."""
        for name, directory in (("state", state), ("results", results)):
            # One that does not exist yet has nothing to tell.
            if directory is not None and directory.exists():
                usage = shutil.disk_usage(directory)
                self.disk_free.labels(name).set(usage.free)
                self.disk_size.labels(name).set(usage.total)
        self.state_size.set(_size_bytes(state))

    def forget_partition(self, number: int) -> None:
        """Drop the series of a partition that another worker has now."""
        for metric in (self.lag_records, self.lag_seconds):
            metric.remove(str(number))

    def forget_backups(self, number: int) -> None:
        """The same for what is known of its backups."""
        for metric in (self.backup_age, self.backup_size):
            metric.remove(str(number))

    def observe_deletions(self, outcome: Outcome) -> None:
        """Count the objects that a batch deleted; of a sweep there is nothing else to count."""
        for descriptor_type, count in outcome.objects_deleted.items():
            self.deleted.labels(descriptor_type, outcome.cause).inc(count)

    def observe_cells(self, descriptor_type: str, matchers: Sequence[CellMatcher]) -> None:
        """Show the lowest recall of the spaces in cells, as far as it is known, and how much is compared."""
        known = [one for one in (matcher.recall() for matcher in matchers) if one.links_true]
        worst = min(known, key=lambda one: one.low, default=None)
        self.recall_low.labels(descriptor_type).set(0 if worst is None else worst.low)
        self.recall_high.labels(descriptor_type).set(1 if worst is None else worst.high)
        scanned = max((matcher.scanned_share for matcher in matchers), default=0)
        self.cells_scanned.labels(descriptor_type).set(scanned)
        over = sum(matcher.over_budget for matcher in matchers)
        self.cells_over_budget.labels(descriptor_type).set(over)

    def observe_second_chance(self, objects: int, links: Mapping[str, int]) -> None:
        """Count what a second chance searched for and found, links by descriptor type."""
        self.second_chances.inc(objects)
        for descriptor_type, count in links.items():
            self.second_chance_links.labels(descriptor_type).inc(count)

    def _observe_recall(self, descriptor_type: str, links_true: int, links_found: int) -> None:
        self.recall_true.labels(descriptor_type).inc(links_true)
        self.recall_found.labels(descriptor_type).inc(links_found)
        true, found = self._recall_totals.get(descriptor_type, (0, 0))
        true, found = true + links_true, found + links_found
        self._recall_totals[descriptor_type] = true, found
        if true:
            self.recall.labels(descriptor_type).set(found / true)


def _size_bytes(directory: Path) -> int:
    """Bytes of the files of a directory; files that go away meanwhile do not count."""
    size = 0
    if directory.exists():
        with os.scandir(directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    size += entry.stat().st_size
    return size

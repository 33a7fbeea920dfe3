"""A task that has not ended, in the memory of the worker that has its partition, and what its end says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from stream_cluster.messages import ArchiveRef, AsOf, TaskRequest, TaskStatus, TaskWarning
from stream_cluster.model import Interrupt
from stream_cluster.service.ingest import PartitionRunner
from stream_cluster.service.statuses import make_status
from stream_cluster.snapshot.paths import archive_name
from stream_cluster.snapshot.request import ClusteringRequest
from stream_cluster.snapshot.run import SnapshotResult
from stream_cluster.state.view import PartitionView


@dataclass(slots=True, eq=False)
class Job:
    """A task that has not ended, in memory."""

    runner: PartitionRunner
    task: TaskRequest
    request: ClusteringRequest
    interrupt: Interrupt
    began: float
    """Monotonic time at which the task was read, restarts included."""
    barrier: int
    """Offset that ingest has to reach before it begins."""
    progress: tuple[str, float] = ("wait", 0.0)
    at_barrier: asyncio.Event = field(default_factory=asyncio.Event)
    has_slot: asyncio.Event = field(default_factory=asyncio.Event)
    view: PartitionView | None = None
    as_of: Mapping[str, Any] | None = None
    result_url: str | None = None
    abandoned: bool = False
    """The partition or the process goes away: end without a status, the task starts again elsewhere."""

    @property
    def key(self) -> tuple[str, str]:
        """(account_id, task_id)."""
        return self.request.account_id, self.request.task_id

    @property
    def about(self) -> dict[str, str | int]:
        """What every log line about it says."""
        return {"task_id": self.request.task_id, "partition": self.runner.number}

    @property
    def name(self) -> PurePosixPath:
        """Name of its archive in the result store."""
        return archive_name(*self.key)


def done_status(
    job: Job, result: SnapshotResult, *, url: str, expires: str | None, duration_s: float
) -> TaskStatus:
    """The last status of a task whose archive is stored at `url`."""
    archive = result.archive
    return make_status(
        *job.key,
        "done",
        1.0,
        archive=ArchiveRef(url=url, size_bytes=archive.size_bytes, sha256=archive.sha256),
        result_url=job.result_url,
        expires=expires,
        objects=result.objects,
        clusters=result.clusters,
        largest_cluster=result.largest_cluster,
        threshold=result.threshold,
        as_of=AsOf(**result.as_of) if result.as_of else None,
        duration_s=round(duration_s, 3),
        timings_s=dict(result.timings_s),
        warnings=[TaskWarning(**warning) for warning in result.warnings],
    )

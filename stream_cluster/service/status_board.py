"""What the status page shows: the partitions, spaces and tasks of this worker as they are now, and its rate.

Bounded whatever the worker holds: the largest spaces, the tasks under way, and the last that ended.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from stream_cluster import __version__
from stream_cluster.config.settings import HttpSettings
from stream_cluster.messages import TaskStatus, decode_status
from stream_cluster.service.statuses import now_text

if TYPE_CHECKING:
    from stream_cluster.service.assignment import Assignment
    from stream_cluster.service.job import Job
    from stream_cluster.service.tasks import Tasks
    from stream_cluster.state.space import Space
    from stream_cluster.state.tasks import StoredTask

MAX_SPACES = 50
MAX_ACTIVE = 100
MAX_ENDED = 50
RATE_S = 60
"""Seconds over which the rate is the mean, and that the page draws."""

_Key = tuple[str, str]


class StatusBoard:
    """Remembers what is not there to be looked up: ended tasks, and records by second."""

    def __init__(self, settings: HttpSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: monotonic seconds."""
        self._shows_ids = settings.status_page_ids
        self._clock = clock
        self._began = clock()
        self._ended: dict[_Key, TaskStatus] = {}
        self._records = 0
        self._seconds: deque[tuple[float, int]] = deque([(self._began, 0)], maxlen=RATE_S + 1)
        self._numbers: dict[str, int] = {}

    # -- told by the service ---------------------------------------------------------------------------

    def note(self, status: TaskStatus) -> None:
        """A status of a task. The last that ended are kept."""
        if not status.ended:
            return
        key = (status.account_id, status.task_id)
        before = self._ended.get(key)
        if before is not None and status.archive_removed is not None:
            # It ended when it ended, and as it did: only its archive is gone now.
            status = replace(before, archive_removed=status.archive_removed)
        self._ended[key] = status
        if len(self._ended) > MAX_ENDED:
            del self._ended[min(self._ended, key=lambda one: self._ended[one].time)]

    def recall(self, stored: StoredTask) -> None:
        """A task that ended in an earlier life."""
        status = None if stored.last_status is None else decode_status(stored.last_status)
        if isinstance(status, TaskStatus):
            removed = stored.archive if stored.archive != "kept" else None
            self.note(replace(status, archive_removed=removed))

    def applied(self, records: int) -> None:
        """A batch of so many records was committed."""
        self._records += records

    def beat(self) -> None:
        """Another second."""
        self._seconds.append((self._clock(), self._records))

    # -- asked by the page -----------------------------------------------------------------------------

    def report(
        self,
        assignment: Assignment | None,
        tasks: Tasks | None,
        *,
        partition_of: Callable[[str], int] | None,
        problems: Sequence[str],
    ) -> dict[str, Any]:
        """Everything, as JSON values. `problems`: what keeps the worker from being up to date."""
        jobs = [] if tasks is None else tasks.jobs
        owned = [] if assignment is None else list(assignment.runners)
        return {
            "version": __version__,
            "time": now_text(),
            "uptime_s": round(self._clock() - self._began),
            "ready": not problems,
            "problems": list(problems),
            "shows_ids": self._shows_ids,
            "rate": self._rate(),
            "partitions": [] if assignment is None else _partitions(assignment),
            **self._spaces(assignment),
            "tasks": {
                "running": sum(job.view is not None for job in jobs),
                "waiting": sum(job.view is None for job in jobs),
                "active": [self._active(job) for job in sorted(jobs, key=_by_progress)[:MAX_ACTIVE]],
                # Of a partition that another worker has now, that worker knows more.
                "ended": [
                    self._last(status)
                    for status in sorted(self._ended.values(), key=lambda one: one.time, reverse=True)
                    if partition_of is None or partition_of(status.account_id) in owned
                ],
            },
        }

    def _rate(self) -> dict[str, Any]:
        moments = list(self._seconds)
        begin, end = moments[0], moments[-1]
        return {
            "records": self._records,
            "records_per_s": _per_second(begin, end),
            "by_second": [_per_second(earlier, later) for earlier, later in itertools.pairwise(moments)],
        }

    def _spaces(self, assignment: Assignment | None) -> dict[str, Any]:
        found = list(_spaces_of(assignment)) if assignment is not None else []
        largest = heapq.nlargest(MAX_SPACES, found, key=lambda item: (_objects(item[1]), -item[0]))
        return {
            "spaces_total": {"spaces": len(found), "objects": sum(_objects(space) for _, space in found)},
            "spaces": [self._space(number, space) for number, space in largest],
        }

    def _space(self, number: int, space: Space) -> dict[str, Any]:
        key, matcher = space.key, space.matcher
        recall = None if matcher is None else matcher.recall
        return {
            "partition": number,
            "account_id": self._id(key.account_id),
            "object_type": key.object_type,
            "descriptor_type": key.descriptor_type,
            "version": key.version,
            "dimension": space.dim,
            "objects": _objects(space),
            "engine": "not loaded" if matcher is None else matcher.engine,
            "memory_bytes": 0 if matcher is None else matcher.nbytes,
            "recall": None
            if recall is None or not recall.links_true
            else {"links": recall.links_true, "share": round(recall.links_found / recall.links_true, 6)},
        }

    def _active(self, job: Job) -> dict[str, Any]:
        account_id, task_id = job.key
        stage, share = job.progress
        return {
            "account_id": self._id(account_id),
            "task_id": self._id(task_id),
            "partition": job.runner.number,
            "status": "in_progress" if job.view is not None else "pending",
            "stage": stage,
            "progress": round(share, 4),
            "elapsed_s": round(max(0.0, self._clock() - job.began), 1),
        }

    def _last(self, status: TaskStatus) -> dict[str, Any]:
        archive = status.archive if status.archive_removed is None else None
        return {
            "account_id": self._id(status.account_id),
            "task_id": self._id(status.task_id),
            "status": status.status,
            "time": status.time,
            "objects": status.objects,
            "clusters": status.clusters,
            "largest_cluster": status.largest_cluster,
            "duration_s": status.duration_s,
            # The address has both ids in it. Never `result_url`, which may be a key to the archive.
            "archive": archive.url if archive is not None and self._shows_ids else None,
            "archive_removed": status.archive_removed,
            "error": None if status.error is None else status.error.code,
        }

    def _id(self, name: str) -> str:
        """The id, or a number that stands for it as long as the process lives."""
        if self._shows_ids:
            return name
        return f"#{self._numbers.setdefault(name, len(self._numbers) + 1)}"


def _per_second(begin: tuple[float, int], end: tuple[float, int]) -> float:
    seconds = end[0] - begin[0]
    return round((end[1] - begin[1]) / seconds, 1) if seconds > 0 else 0.0


def _by_progress(job: Job) -> tuple[bool, float]:
    """Those that run come first, the longest under way before the others."""
    return job.view is None, job.began


def _objects(space: Space) -> int:
    return space.next_row - space.deleted


def _spaces_of(assignment: Assignment) -> Iterator[tuple[int, Space]]:
    for number, runner in assignment.runners.items():
        for space in runner.partition.spaces():
            yield number, space


def _partitions(assignment: Assignment) -> list[dict[str, Any]]:
    loading = [{"partition": number, "state": "loading"} for number in assignment.loading]
    opened = [
        {
            "partition": number,
            "state": "paused" if number in assignment.paused else "open",
            "next_offset": runner.next_offset,
            "lag_records": assignment.lag_records(number),
            "buffered_records": runner.buffered_records,
        }
        for number, runner in assignment.runners.items()
        if number not in assignment.loading
    ]
    return sorted([*loading, *opened], key=lambda one: one["partition"])

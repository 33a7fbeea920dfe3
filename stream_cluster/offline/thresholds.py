"""Clusters at every threshold, of the objects of files or of a state directory; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stream_cluster.config import Settings
from stream_cluster.errors import InputError, TaskError
from stream_cluster.matching import limit_threads
from stream_cluster.messages import TaskRequest
from stream_cluster.model import Interrupt, Progress
from stream_cluster.offline.load import SHOWN_ACCOUNTS, LoadReport, VectorRules
from stream_cluster.offline.run import loaded_files
from stream_cluster.offline.sources import Source
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.thresholds import SelectionThresholds, measure_thresholds
from stream_cluster.state.inspect import partition_paths
from stream_cluster.state.view import PartitionView


@dataclass(frozen=True, slots=True)
class FoundThresholds:
    """What thresholds would do to the objects of one account."""

    account_id: str
    found: SelectionThresholds
    as_of: Mapping[str, Any] | None
    """`topic`, `partition`, `next_offset` of the state that was read; None for files."""
    load: LoadReport | None
    """What became of the records of files; None for a state."""


def thresholds_of_files(
    sources: Sequence[Source],
    task: TaskRequest,
    settings: Settings,
    wanted: Sequence[float],
    *,
    account_id: str | None,
    vector_version: int,
    interrupt: Interrupt,
    progress: Progress,
) -> FoundThresholds:
    """Components of what a task would select from some inputs, at every threshold, matched as tasks are.

    Args:
        task: its `account_id` is not used.
        wanted: see `measure_thresholds`.
        account_id, vector_version: see `stream_cluster.offline.run.cluster_files`.
        progress: told of the stage `read`, then of those of `measure_thresholds`.

    Raises:
        InputError: an input cannot be used, or all records were rejected.
        TaskError: the task asks for what is not there, or a threshold is outside the scale.
        Cancelled: asked to stop.
        StateError: the temporary directory is full or cannot be written.
    """
    request = resolve_request(task, settings, time.time_ns() // 1000)
    rules = VectorRules(request.object_type, request.descriptor_type, vector_version)
    with loaded_files(
        sources, settings, rules, account_id=account_id, interrupt=interrupt, progress=progress
    ) as loaded:
        # A file has no moment at which a task was read, so no object lies after it.
        request = replace(request, account_id=loaded.account_id, read_time_us=None)
        found = measure_thresholds(loaded.view, request, wanted, interrupt=interrupt, progress=progress)
    return FoundThresholds(loaded.account_id, found, None, loaded.report)


def thresholds_of_state(
    directory: Path,
    task: TaskRequest,
    settings: Settings,
    wanted: Sequence[float],
    *,
    account_id: str | None,
    interrupt: Interrupt,
    progress: Progress,
) -> FoundThresholds:
    """Components of what a task would select now, at every threshold, beside a running service or without.

    Args:
        directory: state directory of a service. It is not locked, and nothing in it is changed.
        task: its `account_id` is not used.
        account_id: None when the state holds one account alone.

    Raises:
        InputError: no state directory, or it holds several accounts and none was named.
        TaskError: the account has no such objects, or a threshold is outside the scale.
        Cancelled: asked to stop.
        StateError, StateFormatError, StateCorrupt: the state cannot be read; the message names the file.
    """
    limit_threads(settings.matching.threads)
    held: dict[str, Path] = {}
    for path in partition_paths(directory):
        interrupt.check()
        with PartitionView(path) as view:
            held |= {space.key.account_id: path for space in view.spaces() if space.objects}
    account_id = _chosen(directory, held, account_id)
    with PartitionView(held[account_id]) as view:
        request = replace(resolve_request(task, settings, time.time_ns() // 1000), account_id=account_id)
        found = measure_thresholds(view, request, wanted, interrupt=interrupt, progress=progress)
        as_of = {
            "topic": view.meta["topic"],
            "partition": int(view.meta["partition"]),
            "next_offset": view.next_offset(),
        }
    return FoundThresholds(account_id, found, as_of, None)


def _chosen(directory: Path, held: Mapping[str, Path], account_id: str | None) -> str:
    """The account that was named, else the only one."""
    if not held:
        raise TaskError("empty_selection", f"{directory}: the state holds no objects")
    names = ", ".join(sorted(held)[:SHOWN_ACCOUNTS]) + (", …" if len(held) > SHOWN_ACCOUNTS else "")
    if account_id is None:
        if len(held) > 1:
            raise InputError(
                f"{directory}: found the accounts {names}; choose one with --account, they are never mixed"
            )
        return next(iter(held))
    if account_id not in held:
        raise TaskError(
            "empty_selection", f"{directory}: account {account_id} has no objects; the state holds {names}"
        )
    return account_id

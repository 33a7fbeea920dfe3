"""Files in, archive out: what the service does for a task, over a state that is thrown away afterwards."""

from __future__ import annotations

import contextlib
import gc
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from stream_cluster import files
from stream_cluster.config import Settings
from stream_cluster.errors import InputError, TaskError
from stream_cluster.matching import SpaceMatcher, limit_threads
from stream_cluster.messages import DecodeRules, TaskRequest
from stream_cluster.model import Interrupt, Progress
from stream_cluster.offline.load import Loader, LoadReport, VectorRules
from stream_cluster.offline.sources import Source
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import SnapshotResult, run_snapshot
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity
from stream_cluster.state.view import PartitionView

_IDENTITY = PartitionIdentity("files", 0, 1, "none")
_PAGE_CACHE_MB = 64


@dataclass(frozen=True, slots=True)
class OfflineResult:
    """What `cluster_files` made."""

    account_id: str
    snapshot: SnapshotResult
    load: LoadReport
    counts: Mapping[str, Any]
    """`counts` of the manifest."""
    timings_s: Mapping[str, float]
    """Seconds by stage: read, select, cluster, write."""


def cluster_files(
    sources: Sequence[Source],
    task: TaskRequest,
    settings: Settings,
    output: Path,
    *,
    account_id: str | None,
    vector_version: int,
    interrupt: Interrupt,
    progress: Progress,
) -> OfflineResult:
    """Cluster the objects of some inputs as `task` says, and write the archive to `output`.

    All links above the threshold are found in one pass over all pairs, so any threshold is exact.

    Args:
        task: `account_id` is not used.
        account_id: the account to cluster; None when the inputs hold only one.
        vector_version: descriptor version of what an `.npz` holds.
        progress: told of the stage `read`, whose share stays 0 while the size is not known, then of those
            of `run_snapshot`.

    Raises:
        InputError: an input or the output cannot be used, or all records were rejected.
        TaskError: the task asks for what is not there.
        Cancelled: asked to stop; nothing is left behind.
        StateError: the temporary directory or the output is full or cannot be written.
    """
    request = resolve_request(task, settings, time.time_ns() // 1000)
    _check_output(output)
    content = task.content
    vector_rules = VectorRules(content.object_type, content.descriptor_type, vector_version)
    began = time.perf_counter()
    with loaded_files(
        sources,
        settings,
        vector_rules,
        account_id=account_id,
        interrupt=interrupt,
        progress=progress,
    ) as loaded:
        read_s = time.perf_counter() - began
        # A file has no moment at which a task was read, so no object lies after it.
        request = replace(request, account_id=loaded.account_id, read_time_us=None)
        snapshot = run_snapshot(
            loaded.view, request, output, interrupt=interrupt, progress=progress, as_of=None
        )
    timings_s = {"read": round(read_s, 4), **snapshot.timings_s}
    return OfflineResult(loaded.account_id, snapshot, loaded.report, _counts(output), timings_s)


@dataclass(frozen=True, slots=True)
class LoadedFiles:
    """The objects of some inputs, in a state that is thrown away."""

    account_id: str
    """The one that was asked for, else the only one there is."""
    report: LoadReport
    view: PartitionView


@contextlib.contextmanager
def loaded_files(
    sources: Sequence[Source],
    settings: Settings,
    vector_rules: VectorRules,
    *,
    account_id: str | None,
    interrupt: Interrupt,
    progress: Progress,
) -> Iterator[LoadedFiles]:
    """Read some inputs into a temporary state, which nothing is matched in.

    To an `empty_selection` that is raised inside of the block is added what there is to select.

    Raises:
        InputError: an input cannot be used, or all records were rejected.
        Cancelled: asked to stop.
        StateError: the temporary directory is full or cannot be written.
    """
    limit_threads(settings.matching.threads)
    with tempfile.TemporaryDirectory(prefix="stream-cluster-") as folder:
        path = database_path(Path(folder), 0)
        loader = _load(
            path, sources, vector_rules, settings, account_id, interrupt=interrupt, progress=progress
        )
        account = _account(loader)
        with PartitionView(path) as view:
            try:
                yield LoadedFiles(account, loader.report, view)
            except TaskError as error:
                if error.code != "empty_selection":
                    raise
                raise TaskError(error.code, f"{error.message}; {_held(view, account)}") from error


def _load(
    path: Path,
    sources: Sequence[Source],
    vector_rules: VectorRules,
    settings: Settings,
    account_id: str | None,
    *,
    interrupt: Interrupt,
    progress: Progress,
) -> Loader:
    rules = DecodeRules(None, settings.kafka.max_message_bytes, settings.ingest.uint8_offset)
    total = _total_bytes(sources)
    done = 0

    def on_read(count: int) -> None:
        nonlocal done
        done += count
        progress("read", min(done / total, 1.0) if total else 0.0)

    partition = Partition(
        path,
        _IDENTITY,
        rules,
        # A floor of 1 means that no link is looked for before the whole is known.
        lambda dim, _: SpaceMatcher(dim, settings.matching),
        floor_cosine=1.0,
        synchronous="off",
        page_cache_mb=_PAGE_CACHE_MB,
    )
    # What there is stays, and need not be gone over again and again while millions of objects pass.
    gc.freeze()
    try:
        loader = Loader(partition, rules, vector_rules, account_id, interrupt=interrupt, on_read=on_read)
        for source in sources:
            loader.load(source)
        loader.finish()
    finally:
        gc.unfreeze()
        partition.close()
    progress("read", 1.0)
    return loader


def _total_bytes(sources: Sequence[Source]) -> int | None:
    sizes = [source.size_bytes for source in sources]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _account(loader: Loader) -> str:
    """The account to cluster, once all is read. Raises InputError when there is nothing to cluster."""
    report = loader.report
    rejected = sum(report.rejected.values())
    if loader.account_id is None or not report.accepted:
        if not report.records:
            raise InputError("the input holds no objects")
        reasons = ", ".join(f"{reason} {count}" for reason, count in report.rejected.most_common())
        if rejected == report.records:
            examples = "".join(f"\n  {example}" for example in report.examples)
            raise InputError(f"all {rejected} records were rejected ({reasons}):{examples}")
        others = f"{report.of_other_accounts} are of other accounts"
        raise InputError(
            f"account {loader.account_id}: none of {report.records} records can be clustered: {others}"
            + (f", rejected: {reasons}" if reasons else "")
        )
    return loader.account_id


def _held(view: PartitionView, account_id: str) -> str:
    """What there is to cluster, for a person who asked for something else."""
    spaces = [
        f"{space.objects} {space.key.object_type}s with {space.key.descriptor_type} version "
        f"{space.key.version}"
        for space in view.spaces(account_id)
    ]
    return f"the input holds {', '.join(spaces)}"


def _check_output(output: Path) -> None:
    """Find out before the work, not after it, that the archive cannot be written."""
    if output.is_dir():
        raise InputError(f"{output}: found a directory, expected the name of the archive")
    try:
        files.make_folder(output.parent)
        with tempfile.TemporaryFile(dir=output.parent):
            pass
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror or error}") from error


def _counts(archive: Path) -> dict[str, Any]:
    with zipfile.ZipFile(archive) as members:
        manifest: dict[str, Any] = msgspec.json.decode(members.read("manifest.json"))
    return dict(manifest["counts"])

"""The clusters of a result archive (docs/formats.md), read back from the zip or from its unpacked folder."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
import numpy.typing as npt

from stream_cluster.errors import InputError
from stream_cluster.model import Interrupt, Progress

_CLUSTERS, _MANIFEST = "clusters.jsonl", "manifest.json"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)
_CHECK_LINES = 1024


class ArchivedCluster(msgspec.Struct):
    """A line of clusters.jsonl. What older archives lack is None."""

    cluster: int
    """Number, from 0."""
    objects: list[str]
    """The oldest first."""
    id: str = ""
    """Stable id: that of the oldest object. Never empty once it is read."""
    size: int | None = None
    share: float | None = None
    cohesion: float | None = None
    weakest_link: float | None = None
    bridges: int | None = None
    first_time: str | None = None
    last_time: str | None = None


class _Manifest(msgspec.Struct):
    parameters: dict[str, Any]
    account_id: str | None = None
    task_id: str | None = None
    as_of: dict[str, Any] | None = None
    warnings: list[dict[str, Any]] = []


@dataclass(frozen=True, slots=True)
class ArchivedClusters:
    """What a task made."""

    lines: list[ArchivedCluster]
    """In the order of the archive: the largest first."""
    ids: list[str]
    """Every object, in the order of the archive: cluster by cluster."""
    clusters: npt.NDArray[np.int64]
    """Cluster number of each object, shape (n,)."""
    parameters: Mapping[str, Any]
    """`parameters` of the manifest."""
    account_id: str | None
    task_id: str | None
    as_of: Mapping[str, Any] | None
    warnings: list[dict[str, Any]]
    """Those of the manifest."""

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Objects of each line, shape (k,)."""
        return np.array([len(line.objects) for line in self.lines], np.int64)


def read_archive(path: Path, interrupt: Interrupt, progress: Progress) -> ArchivedClusters:
    """Read the clusters of an archive, a zip or the folder that it was unpacked into; stage `archive`.

    Raises:
        InputError: no archive, damaged, or an object is in two clusters; names the file and the line.
        Cancelled: asked to stop.
    """
    try:
        with _opened(path) as archive:
            absent = {_CLUSTERS, _MANIFEST} - set(archive.names)
            if absent:
                found = ", ".join(sorted(archive.names)[:5]) or "nothing"
                raise InputError(f"{path}: found {found}, expected the archive of a task, with {min(absent)}")
            lines = _read_clusters(path, archive, interrupt, progress)
            with archive.open(_MANIFEST) as file:
                manifest = msgspec.json.decode(file.read(), type=_Manifest)
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: {_MANIFEST}: {error}") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: not a readable archive: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    sizes = [len(line.objects) for line in lines]
    return ArchivedClusters(
        lines,
        [object_id for line in lines for object_id in line.objects],
        np.repeat(np.array([line.cluster for line in lines], np.int64), sizes),
        manifest.parameters,
        manifest.account_id,
        manifest.task_id,
        manifest.as_of,
        manifest.warnings,
    )


@dataclass(frozen=True, slots=True)
class _Opened:
    """The entries of an archive, in either form."""

    names: list[str]
    size_bytes: Callable[[str], int]
    open: Callable[[str], IO[bytes]]


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[_Opened]:
    if path.is_dir():
        names = sorted(entry.name for entry in path.iterdir())
        yield _Opened(names, lambda name: (path / name).stat().st_size, lambda name: (path / name).open("rb"))
        return
    with zipfile.ZipFile(path) as archive:
        yield _Opened(archive.namelist(), lambda name: archive.getinfo(name).file_size, archive.open)


def _read_clusters(
    path: Path, archive: _Opened, interrupt: Interrupt, progress: Progress
) -> list[ArchivedCluster]:
    decoder = msgspec.json.Decoder(ArchivedCluster)
    total = archive.size_bytes(_CLUSTERS)
    found: list[ArchivedCluster] = []
    with archive.open(_CLUSTERS) as file:
        done = 0
        for number, text in enumerate(file, 1):
            try:
                line = decoder.decode(text)
            except msgspec.DecodeError as error:
                raise InputError(f"{path}: {_CLUSTERS}:{number}: {error}") from error
            _check_line(f"{path}: {_CLUSTERS}:{number}", line)
            found.append(line)
            done += len(text)
            if number % _CHECK_LINES == 0:
                interrupt.check()
                progress("archive", done / total)
    interrupt.check()
    if not found:
        raise InputError(f"{path}: {_CLUSTERS}: found no objects")
    _check(f"{path}: {_CLUSTERS}", found)
    return found


def _check_line(where: str, line: ArchivedCluster) -> None:
    """Raise InputError unless a line agrees with itself; fill in what follows from its objects."""
    if line.size not in (None, len(line.objects)):
        raise InputError(f"{where}: found {len(line.objects)} objects, expected the size {line.size}")
    if not line.objects:
        raise InputError(f"{where}: found a cluster without objects")
    if not line.id:
        line.id = line.objects[0]
    elif line.id != line.objects[0]:
        raise InputError(f"{where}: found the id {line.id!r}, expected that of the first object")


def _check(where: str, lines: list[ArchivedCluster]) -> None:
    """Raise InputError unless every object and every cluster is there once."""
    if len({line.cluster for line in lines}) != len(lines):
        raise InputError(f"{where}: found a cluster number twice, expected each once")
    cluster_of: dict[str, int] = {}
    count = 0
    for line in lines:
        count += len(line.objects)
        cluster_of.update(dict.fromkeys(line.objects, line.cluster))
        if len(cluster_of) != count:
            _tell_twice(where, lines)


def _tell_twice(where: str, lines: list[ArchivedCluster]) -> None:
    """Raise InputError for the first object that is there twice."""
    cluster_of: dict[str, int] = {}
    for line in lines:
        for object_id in line.objects:
            if object_id in cluster_of:
                raise InputError(
                    f"{where}: found {object_id!r} in cluster {cluster_of[object_id]} and in cluster "
                    f"{line.cluster}, expected each object once"
                )
            cluster_of[object_id] = line.cluster

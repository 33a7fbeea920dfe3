"""The clusters of a result archive (docs/formats.md), read back."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from stream_cluster.errors import InputError
from stream_cluster.model import Interrupt, Progress

_CLUSTERS, _MANIFEST = "clusters.jsonl", "manifest.json"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


class _Line(msgspec.Struct):
    cluster: int
    objects: list[str]


class _Manifest(msgspec.Struct):
    parameters: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ArchivedClusters:
    """What a task made."""

    ids: list[str]
    """Every object, in the order of the archive: cluster by cluster."""
    clusters: npt.NDArray[np.int64]
    """Cluster number of each object, shape (n,)."""
    parameters: Mapping[str, Any]
    """`parameters` of the manifest."""


def read_archive(path: Path, interrupt: Interrupt, progress: Progress) -> ArchivedClusters:
    """Read the clusters of an archive; stage `archive`.

    Raises:
        InputError: no archive, damaged, or an object is in two clusters; names the file and the line.
        Cancelled: asked to stop.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            absent = {_CLUSTERS, _MANIFEST} - set(archive.namelist())
            if absent:
                found = ", ".join(sorted(archive.namelist())[:5]) or "nothing"
                raise InputError(f"{path}: found {found}, expected the archive of a task, with {min(absent)}")
            ids, sizes, numbers = _read_clusters(path, archive, interrupt, progress)
            manifest = msgspec.json.decode(archive.read(_MANIFEST), type=_Manifest)
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: {_MANIFEST}: {error}") from error
    except _DAMAGED as error:
        raise InputError(f"{path}: not a readable archive: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    return ArchivedClusters(ids, np.repeat(np.array(numbers, np.int64), sizes), manifest.parameters)


def _read_clusters(
    path: Path, archive: zipfile.ZipFile, interrupt: Interrupt, progress: Progress
) -> tuple[list[str], list[int], list[int]]:
    """All ids, and size and number of each cluster."""
    decoder = msgspec.json.Decoder(_Line)
    total = archive.getinfo(_CLUSTERS).file_size
    ids: list[str] = []
    sizes, numbers = [], []
    with archive.open(_CLUSTERS) as lines:
        done = 0
        for number, text in enumerate(lines, 1):
            interrupt.check()
            try:
                line = decoder.decode(text)
            except msgspec.DecodeError as error:
                raise InputError(f"{path}: {_CLUSTERS}:{number}: {error}") from error
            ids += line.objects
            sizes.append(len(line.objects))
            numbers.append(line.cluster)
            done += len(text)
            progress("archive", done / total)
    if not ids:
        raise InputError(f"{path}: {_CLUSTERS}: found no objects")
    _check(f"{path}: {_CLUSTERS}", ids, sizes, numbers)
    return ids, sizes, numbers


def _check(where: str, ids: list[str], sizes: list[int], numbers: list[int]) -> None:
    """Raise InputError unless every object and every cluster is there once."""
    if len(set(numbers)) != len(numbers):
        raise InputError(f"{where}: found a cluster number twice, expected each once")
    if len(set(ids)) == len(ids):
        return
    cluster_of: dict[str, int] = {}
    for object_id, cluster in zip(ids, np.repeat(numbers, sizes).tolist(), strict=True):
        if object_id in cluster_of:
            raise InputError(
                f"{where}: found {object_id!r} in cluster {cluster_of[object_id]} and in cluster {cluster}, "
                "expected each object once"
            )
        cluster_of[object_id] = cluster

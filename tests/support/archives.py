"""Reading archives, and the answer they must hold, worked out from the messages without the product."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from stream_cluster.generate import GeneratedRecord

FILES = {"manifest.json", "clusters.jsonl", "report.csv", "report.html"}


@dataclass(frozen=True)
class Archive:
    """What a result archive holds."""

    path: Path
    manifest: dict[str, Any]
    clusters: list[dict[str, Any]]
    report: list[dict[str, str]]

    @property
    def members(self) -> list[list[str]]:
        """Object ids of each cluster."""
        return [cluster["objects"] for cluster in self.clusters]

    @property
    def ids(self) -> set[str]:
        """All objects."""
        return {object_id for objects in self.members for object_id in objects}


def read_archive(path: Path, status: Mapping[str, Any]) -> Archive:
    """Read an archive and check all that must hold of any: hash, numbering, counts, report, status."""
    data = path.read_bytes()
    assert status["archive"]["size_bytes"] == len(data)
    assert status["archive"]["sha256"] == hashlib.sha256(data).hexdigest()
    with zipfile.ZipFile(io.BytesIO(data)) as entries:
        assert entries.testzip() is None
        names = entries.namelist()
        manifest = json.loads(entries.read("manifest.json"))
        clusters = [json.loads(line) for line in entries.read("clusters.jsonl").splitlines()]
        report = list(csv.DictReader(io.StringIO(entries.read("report.csv").decode(), newline="")))
    archive = Archive(path, manifest, clusters, report)
    _check_clusters(archive)
    _check_counts(archive, status)
    _check_images(archive, names)
    return archive


def _check_clusters(archive: Archive) -> None:
    clusters = archive.clusters
    assert [cluster["cluster"] for cluster in clusters] == list(range(len(clusters)))
    sizes = [cluster["size"] for cluster in clusters]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes == [len(objects) for objects in archive.members]
    assert [cluster["id"] for cluster in clusters] == [objects[0] for objects in archive.members]
    assert len(archive.ids) == sum(sizes), "an object is in two clusters"
    id_column = f"{archive.manifest['parameters']['object_type']}_id"
    found = [(int(row["cluster"]), row[id_column]) for row in archive.report]
    assert found == [(c["cluster"], object_id) for c in clusters for object_id in c["objects"]]


def _check_counts(archive: Archive, status: Mapping[str, Any]) -> None:
    counts, sizes = archive.manifest["counts"], [cluster["size"] for cluster in archive.clusters]
    assert counts["objects_received"] == counts["duplicates"] + counts["deleted"] + counts["objects"]
    assert counts["objects"] == counts["filtered_out"] + counts["selected"]
    assert counts["filtered_out"] == sum(counts["removed_by_filter"].values())
    assert counts["selected"] == sum(sizes) == status["objects"]
    assert counts["clusters"] == len(sizes) == status["clusters"]
    assert counts["singletons"] == sizes.count(1)
    assert counts["largest_cluster"] == sizes[0] == status["largest_cluster"]
    assert archive.manifest["as_of"] == status["as_of"]
    assert archive.manifest["parameters"]["threshold"] == status["threshold"]
    assert (archive.manifest["task_id"], archive.manifest["account_id"]) == (
        status["task_id"],
        status["account_id"],
    )


def _check_images(archive: Archive, names: Sequence[str]) -> None:
    """Counts of images reconcile, and each lies in the folder of its cluster."""
    saved = [name for name in names if name not in FILES]
    counts = archive.manifest["counts"]
    images = counts.get("images", {"wanted": counts["selected"], "saved": 0, "left out": counts["selected"]})
    assert images["wanted"] == counts["selected"] == sum(images.values()) - images["wanted"]
    assert images["saved"] == len(saved) == len(set(saved))
    for name in saved:
        folder, cluster, file = name.split("/")
        assert folder == "images"
        assert 0 <= int(cluster) < counts["clusters"]
        assert not file.startswith(".")


@dataclass(frozen=True)
class Sighting:
    """One object of one descriptor type, as its message has it."""

    object_id: str
    account_id: str
    time: datetime
    track_id: str
    source: str
    codes: npt.NDArray[np.float64]
    """int8 codes as float64, shape (dim,)."""


def sightings(records: Iterable[GeneratedRecord], account_id: str, kind: str = "face") -> list[Sighting]:
    """The objects of an account's good records."""
    return [
        sighting(record.value, kind)
        for record in records
        if record.account_id == account_id and record.expected_reason is None
    ]


def sighting(value: bytes, kind: str = "face") -> Sighting:
    """The object of a message in JSON or MessagePack; `float32`, `int8` or `sdk` descriptors."""
    event = json.loads(value) if value[:1] == b"{" else msgspec.msgpack.decode(value)
    (descriptor,) = [each for each in event["descriptors"] if each["type"] == kind]
    data = descriptor["data"]
    data = base64.b64decode(data) if isinstance(data, str) else data
    return Sighting(
        event["event_id"],
        event["account_id"],
        datetime.fromisoformat(event["create_time"]),
        event.get("track_id", ""),
        event.get("source", ""),
        _codes(descriptor["encoding"], data),
    )


def _codes(encoding: str, data: bytes) -> npt.NDArray[np.float64]:
    if encoding == "float32":
        vector = np.frombuffer(data, "<f4")
        return np.rint(vector * (np.float32(127) / np.abs(vector).max())).astype(np.float64)
    if encoding == "int8":
        return np.frombuffer(data, np.int8).astype(np.float64)
    assert encoding == "sdk"
    return np.clip(np.frombuffer(data[8:], np.uint8).astype(np.float64) - 128, -127, 127)


def expected_clusters(
    seen: Sequence[Sighting], threshold: float, *, use_tracks: bool = False
) -> list[list[str]]:
    """The clusters that an archive must hold, in its order: by size, oldest member, id; members by age."""
    seen = sorted(seen, key=lambda each: (each.time, each.object_id))
    codes = np.stack([each.codes for each in seen])
    # float64 holds these sums exactly; everything after is float32 as the definition has it.
    dots = (codes @ codes.T).astype(np.float32)
    norms = (1 / np.sqrt(np.square(codes).sum(axis=1))).astype(np.float32)
    similarity = np.minimum(dots * (norms[:, None] * norms[None, :]), np.float32(1))
    similar = similarity > np.float32(threshold)
    if use_tracks:
        tracks = np.array([each.track_id for each in seen])
        similar |= (tracks[:, None] == tracks[None, :]) & (tracks != "")[:, None]
    groups = defaultdict(list)
    for position, group in enumerate(_components(similar)):
        groups[group].append(position)
    ordered = sorted(groups.values(), key=lambda group: (-len(group), group[0]))
    return [[seen[position].object_id for position in group] for group in ordered]


def _components(similar: npt.NDArray[np.bool_]) -> list[int]:
    """Lowest member of each position's component, by search from every position not reached yet."""
    label = np.full(len(similar), -1)
    for start in range(len(similar)):
        if label[start] >= 0:
            continue
        front = np.array([start])
        while len(front):
            label[front] = start
            front = np.flatnonzero(similar[front].any(axis=0) & (label < 0))
    return label.tolist()

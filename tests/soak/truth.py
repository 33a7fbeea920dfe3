"""What must come out of what went in: the model's objects, clusters and counts at any point of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from scipy.cluster import hierarchy

from stream_cluster.messages import Descriptor, Metadata, ObjectMessage
from stream_cluster.model import SpaceKey
from tests.soak.messages import Sent
from tests.support.archives import Archive, Sighting, expected_clusters
from tests.support.filter_model import meets
from tests.support.model import Model

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIE = 1e-9
"""Averages closer than this may be merged in either order."""


@dataclass
class Difference:
    """Something that is not as the model has it."""

    what: str
    where: str
    detail: str
    lost: int = 0
    duplicated: int = 0


@dataclass
class Truth:
    """All records by partition, in the order of their offsets, and models of them."""

    partitions: int
    logs: list[dict[int, Sent]] = field(init=False)
    _models: dict[str, tuple[int, Model]] = field(default_factory=dict)
    """By account: the model of the records below an offset."""

    def __post_init__(self) -> None:
        self.logs = [{} for _ in range(self.partitions)]

    def add(self, partition: int, offset: int, sent: Sent) -> None:
        """A record that the broker has acknowledged."""
        assert offset not in self.logs[partition], f"offset {offset} was acknowledged twice"
        self.logs[partition][offset] = sent

    def model(self, account: str, partition: int, next_offset: int) -> Model:
        """The account's objects after the records below `next_offset` of its partition."""
        begin, model = self._models.get(account, (0, Model()))
        if begin > next_offset:
            begin, model = 0, Model()
        log = self.logs[partition]
        for offset in range(begin, next_offset):
            sent = log[offset]
            if sent.account == account and sent.message is not None:
                model.apply(sent.message)
        self._models[account] = next_offset, model
        return model

    def counters(self, partition: int, next_offset: int) -> Counter[tuple[str, str]]:
        """Records below `next_offset` by (result, reason), as the state counts them."""
        counted: Counter[tuple[str, str]] = Counter()
        models: dict[str, Model] = {}
        for offset in range(next_offset):
            sent = self.logs[partition][offset]
            if sent.message is None:
                counted["rejected", str(sent.reason)] += 1
            else:
                models.setdefault(sent.account, Model()).apply(sent.message)
        for model in models.values():
            counted.update({(result, ""): count for result, count in model.results.items()})
        return counted


def space_of(account: str, content: Mapping[str, Any]) -> SpaceKey:
    """The space that a task is about; the soak has one descriptor version."""
    object_type = "event" if content["objects_type"] == "events" else "face"
    return SpaceKey(account, object_type, content.get("descriptor_type", "face"), 1)


def selected(model: Model, space: SpaceKey, content: Mapping[str, Any]) -> list[Sighting]:
    """The objects that a task is about."""
    chosen = []
    for object_id, (descriptor, metadata) in model.spaces.get(space, {}).items():
        message = _message(space, object_id, descriptor, metadata)
        filters = content.get("filters", {})
        if all(meets(message, descriptor, name, wanted) for name, wanted in filters.items()):
            chosen.append(_sighting(message, descriptor))
    return chosen


def _message(space: SpaceKey, object_id: str, descriptor: Descriptor, metadata: Metadata) -> ObjectMessage:
    return ObjectMessage(
        account_id=space.account_id,
        object_type=space.object_type,
        action="upsert",
        object_ids=(object_id,),
        metadata=metadata,
        descriptors=(descriptor,),
    )


def _sighting(message: ObjectMessage, descriptor: Descriptor) -> Sighting:
    metadata = message.metadata
    return Sighting(
        message.object_id,
        message.account_id,
        _EPOCH + timedelta(microseconds=metadata.create_time_us),
        metadata.track_id or "",
        metadata.source or "",
        codes_of(descriptor.vector),
    )


def codes_of(vector: np.ndarray) -> np.ndarray:
    """int8 codes of a descriptor, as float64."""
    if vector.dtype == np.int8:
        return vector.astype(np.float64)
    return np.rint(vector * (np.float32(127) / np.abs(vector).max())).astype(np.float64)


def average_clusters(seen: list[Sighting], threshold: float) -> tuple[set[frozenset[str]], bool]:
    """SciPy's average linkage, and whether a tie may decide about it."""
    ids = [each.object_id for each in seen]
    if len(ids) == 1:
        return {frozenset(ids)}, False
    codes = np.stack([each.codes for each in seen])
    units = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    distance = 1 - units @ units.T
    merges = hierarchy.linkage(distance[np.triu_indices(len(codes), 1)], "average")
    labels = hierarchy.fcluster(merges, 1 - threshold, "distance")
    groups: dict[int, set[str]] = {}
    for object_id, label in zip(ids, labels.tolist(), strict=True):
        groups.setdefault(label, set()).add(object_id)
    heights = np.sort(merges[:, 2])
    gaps = [np.diff(heights).min(initial=1.0), np.abs(heights - (1 - threshold)).min()]
    return {frozenset(group) for group in groups.values()}, min(gaps) < _TIE


def compare_archive(
    archive: Archive, model: Model, account: str, content: Mapping[str, Any], where: str
) -> list[Difference]:
    """What of an archive is not as the model has it: objects, clusters, counts."""
    space = space_of(account, content)
    seen = selected(model, space, content)
    found = [object_id for members in archive.members for object_id in members]
    wanted = {each.object_id for each in seen}
    lost, extra = len(wanted - set(found)), len(set(found) - wanted)
    twice = len(found) - len(set(found))
    if lost or extra or twice:
        detail = f"{lost} objects missing, {extra} not expected, {twice} twice, of {len(wanted)}"
        return [Difference("objects", where, detail, lost, extra + twice)]
    differences = []
    threshold = content["threshold"]
    if content.get("linkage") == "average":
        expected, may_tie = average_clusters(seen, threshold)
        if {frozenset(members) for members in archive.members} != expected and not may_tie:
            differences.append(Difference("average linkage", where, f"{len(expected)} clusters expected"))
    else:
        clusters = expected_clusters(seen, threshold, use_tracks=content["use_track_info"])
        if archive.members != clusters:
            detail = f"{len(archive.members)} clusters found, {len(clusters)} expected"
            differences.append(Difference("clusters", where, detail))
    counts = archive.manifest["counts"]
    expected_counts = {
        "objects": len(model.spaces[space]),
        "deleted": model.deleted.get(space, 0),
        "duplicates": model.duplicates.get(space, 0),
    }
    if {name: counts[name] for name in expected_counts} != expected_counts:
        differences.append(Difference("counts", where, f"{counts} found, {expected_counts} expected"))
    return differences

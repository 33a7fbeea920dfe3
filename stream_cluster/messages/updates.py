"""Cluster updates, as they go to the updates topic, and a reader that turns them into clusters again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct

from stream_cluster.messages.record import JSON, Reason, Rejection
from stream_cluster.messages.wire import Id, Version
from stream_cluster.messages.wireform import BAD_BYTES, Decoders, encode_wire, verdict
from stream_cluster.model import DescriptorType, ObjectType, SpaceKey

MAX_IDS = 500
"""Most object and cluster ids in one list of a message: it stays below a quarter of a megabyte."""

_Ids = Annotated[list[Id], Meta(max_length=MAX_IDS)]


class StrongestLink(Struct, frozen=True, kw_only=True):
    """The most similar one of the objects that were there before."""

    object_id: Id
    similarity: Annotated[float, Meta(description="On the scale of the threshold.")]


class ClusterPart(Struct, frozen=True, kw_only=True):
    """Objects that are in a cluster from now on, wherever they were."""

    id: Annotated[Id, Meta(description="Stable id of the cluster: that of its oldest member.")]
    objects: Annotated[_Ids, Meta(description="More members may follow in other parts.")] = []
    former: Annotated[
        Id | None,
        Meta(description="A cluster all of whose members, as they are then, are in this one from now on."),
    ] = None


class _Update(Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What every update carries."""

    epoch: Annotated[
        int, Meta(ge=0, description="Grows when the numbering begins anew; earlier clusters are void then.")
    ]
    seq: Annotated[int, Meta(ge=1, description="Grows from one update of an account to the next.")]
    account_id: Id
    object_type: ObjectType
    descriptor_type: DescriptorType
    descriptor_version: Version
    threshold: Annotated[float, Meta(description="The threshold in force, on the scale of the version.")]
    threshold_cosine: Annotated[float, Meta(description="The same as a cosine.")]

    @property
    def space(self) -> SpaceKey:
        """The space that it is about."""
        return SpaceKey(self.account_id, self.object_type, self.descriptor_type, self.descriptor_version)


class ObjectUpdate(_Update, frozen=True, kw_only=True, tag="object"):
    """A new object, and what it did to the clusters."""

    object_id: Id
    cluster: Annotated[Id, Meta(description="Stable id of its cluster.")]
    strongest: Annotated[
        StrongestLink | None, Meta(description="Its link to the most similar earlier object; null for none.")
    ]
    merged: Annotated[_Ids, Meta(description="Former ids of clusters that are now part of `cluster`.")]


class ChangeUpdate(_Update, frozen=True, kw_only=True, tag="change"):
    """Objects are gone, or objects are in other clusters now. What is not named stays where it is."""

    deleted: Annotated[_Ids, Meta(description="Objects that are gone; taken away first.")] = []
    clusters: Annotated[list[ClusterPart], Meta(description="Applied one after another.")] = []


class ResetUpdate(_Update, frozen=True, kw_only=True, tag="reset"):
    """All clusters of the space are void. Those that it has now follow, in this update and in changes."""

    clusters: list[ClusterPart] = []


ClusterUpdate = ObjectUpdate | ChangeUpdate | ResetUpdate

_UPDATE: Decoders[ClusterUpdate] = Decoders(ClusterUpdate)


def encode_update(update: ClusterUpdate) -> bytes:
    """JSON bytes of an update, every field present."""
    return encode_wire(update, JSON)


def decode_update(value: bytes, content_type: str | None = None) -> ClusterUpdate | Rejection:
    """The update, or why these bytes are none. Never raises, whatever the bytes."""
    try:
        return _UPDATE.decode(value, content_type)
    except BAD_BYTES as error:
        refused = verdict(value, content_type, error)
        return Rejection(Reason(refused.reason), refused.detail, None)


class ClusterReplay:
    """Clusters as the updates tell them, from the beginning of the topic on.

    Updates of one account are to be given in the order of their topic partition; accounts may be mixed in any
    way. One that was applied already, or is of an epoch that has ended, is passed over, so updates may be
    delivered any number of times.
    """

    def __init__(self) -> None:
        self._applied: dict[str, tuple[int, int]] = {}
        """(epoch, seq) of the last update, by account."""
        self._spaces: dict[SpaceKey, _Members] = {}

    def apply(self, update: ClusterUpdate) -> bool:
        """Take one update; False when it has nothing new."""
        account_id, number = update.account_id, (update.epoch, update.seq)
        last = self._applied.get(account_id, (-1, 0))
        if number <= last:
            return False
        if update.epoch > last[0]:
            for key in [key for key in self._spaces if key.account_id == account_id]:
                del self._spaces[key]
        self._applied[account_id] = number
        if isinstance(update, ResetUpdate):
            self._spaces[update.space] = _Members()
        members = self._spaces.setdefault(update.space, _Members())
        if isinstance(update, ObjectUpdate):
            for former in update.merged:
                members.rename(former, update.cluster)
            members.put(update.object_id, update.cluster)
            return True
        if isinstance(update, ChangeUpdate):
            for object_id in update.deleted:
                members.take_out(object_id)
        for part in update.clusters:
            for object_id in part.objects:
                members.put(object_id, part.id)
            if part.former is not None:
                members.rename(part.former, part.id)
        return True

    def clusters(self, space: SpaceKey) -> Mapping[str, frozenset[str]]:
        """Object ids by the stable id of their cluster; single objects are clusters too."""
        members = self._spaces.get(space)
        return {} if members is None else {name: frozenset(ids) for name, ids in members.of.items()}

    def spaces(self) -> list[SpaceKey]:
        """The spaces that updates told of, sorted."""
        return sorted(self._spaces)


class _Members:
    """Members by cluster, and the cluster of each."""

    def __init__(self) -> None:
        self.of: dict[str, set[str]] = {}
        self._cluster: dict[str, str] = {}

    def put(self, object_id: str, cluster: str) -> None:
        self.take_out(object_id)
        self.of.setdefault(cluster, set()).add(object_id)
        self._cluster[object_id] = cluster

    def take_out(self, object_id: str) -> None:
        cluster = self._cluster.pop(object_id, None)
        if cluster is not None:
            self.of[cluster].remove(object_id)
            if not self.of[cluster]:
                del self.of[cluster]

    def rename(self, former: str, cluster: str) -> None:
        if former == cluster:
            return
        moved = self.of.pop(former, set())
        for object_id in moved:
            self._cluster[object_id] = cluster
        if moved:
            self.of.setdefault(cluster, set()).update(moved)

"""The consumer group's own assignor: carries `stream_cluster.service.placement` over Kafka's protocol."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from stream_cluster.errors import StateError
from stream_cluster.service.logs import get_logger
from stream_cluster.service.placement import Held, pack, place, unpack
from stream_cluster.state.database import database_path, load_offsets, open_reader

_log = get_logger(__name__)


class NewestStateAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """Prefers the member with a partition's newest state, and balances the rest.

    It is the only one that a worker offers: aiokafka 0.14 sends one join request per assignor, so that two
    of them make every member join twice, and two members can keep each other joining.
    """

    name = "stream-cluster-newest-state"
    version = 0

    def __init__(self, topic: str) -> None:
        """`topic` is the only one that members share."""
        self._topic = topic
        self.held: Callable[[], Mapping[int, Held]] = dict
        """Asked at every join for the states that this worker has."""

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """What this worker tells the group's leader."""
        return ConsumerProtocolMemberMetadata(self.version, list(topics), pack(self.held()))

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """The assignment of every member; asked of the leader alone."""
        held = {member: unpack(metadata.user_data or b"") for member, metadata in members.items()}
        placed = place(cluster.partitions_for_topic(self._topic) or (), held)
        return {
            member: ConsumerProtocolMemberAssignment(self.version, [(self._topic, given)], b"")
            for member, given in placed.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing to keep: the states themselves say what was assigned."""


def stored_states(directory: Path, topic: str, partitions: int) -> dict[int, Held]:
    """What the closed databases of a directory hold of a topic; a file that cannot be read holds nothing.

    It is looked at again, and its error reported, when its partition is opened.
    """
    held: dict[int, Held] = {}
    for number in range(partitions):
        path = database_path(directory, number)
        if not path.is_file():
            continue
        try:
            with contextlib.closing(open_reader(path)) as connection:
                next_offset = load_offsets(connection).get((topic, number))
        except (StateError, sqlite3.Error) as error:
            _log.warning("state_not_advertised", partition=number, error=str(error))
            continue
        if next_offset is not None:
            held[number] = Held(next_offset, is_open=False)
    return held

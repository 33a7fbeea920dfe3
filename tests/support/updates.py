"""The updates topic in memory, and what a snapshot would say."""

from __future__ import annotations

from stream_cluster.config import Settings, load_settings
from stream_cluster.graph.components import connected_components
from stream_cluster.messages.updates import ClusterReplay, decode_update
from stream_cluster.model import Interrupt
from stream_cluster.snapshot.clusters import labels_from_forest, number_clusters
from stream_cluster.snapshot.selection import select
from stream_cluster.state.outbox import OutboxReader, Told
from stream_cluster.state.updates import UpdateOptions
from tests.support.partitions import T0_US


class Topic:
    """The topic of one partition: what a relay would produce, each update perhaps more than once."""

    def __init__(self):
        self.payloads = []

    def relay(self, partition, *, max_rows=1000, acknowledged=True):
        """Produce what the outbox holds, and tell the partition so, unless it dies before it hears of it."""
        reader = OutboxReader(partition.path)
        outbox = partition.updates.outbox
        rows = reader.read(outbox.acknowledged_seq, max_rows)
        reader.close()
        self.payloads += [row.payload for row in rows]
        if acknowledged and rows:
            outbox.acknowledged_seq = rows[-1].seq

    def updates(self):
        return [decode_update(payload) for payload in self.payloads]

    def end(self):
        """The last update, as a partition is told when it opens."""
        if not self.payloads:
            return None
        last = decode_update(self.payloads[-1])
        return Told(last.epoch, last.seq)

    def options(self, settings=None):
        similarity = (settings or Settings()).similarity
        return UpdateOptions(similarity, self.end(), T0_US)

    def replay(self):
        replay = ClusterReplay()
        for update in self.updates():
            replay.apply(update)
        return replay

    def clusters(self):
        """Members by stable id by space, without spaces that hold nothing."""
        replay = self.replay()
        return {key: found for key in replay.spaces() if (found := dict(replay.clusters(key)))}


def snapshot_clusters(partition, threshold_cosine):
    """The same of whole-space snapshots of all spaces, as the snapshot code makes them."""
    found = {}
    with partition.view() as view:
        for space in view.spaces():
            selection = select(view, space, [], with_tracks=False, interrupt=Interrupt())
            clusters = number_clusters(labels_from_forest(view, selection, threshold_cosine))
            ids = list(selection.ids)
            named = {}
            for number in range(len(clusters)):
                members = [ids[position] for position in clusters.members(number)]
                named[members[0]] = frozenset(members)
            if named:
                found[space.key] = named
    return found


def restate(partition):
    """Tell all spaces that have to be told as a whole."""
    while partition.updates.has_untold:
        partition.updates.restate(10)


def at_threshold(threshold, **more):
    """Settings with this default threshold."""
    keys = {f"similarity.{kind}.default_threshold": threshold for kind in ("face", "body")}
    return load_settings(None, {}, keys | more)


def check_sets(partition):
    """The sets in memory are those of the stored forest, with the oldest members chosen."""
    updates = partition.updates
    with partition.view() as view:
        for space in view.spaces():
            sets = updates._sets.get(space.space_id)
            if sets is None:
                continue
            links = view.links(space.space_id, updates._told[space.space_id])
            labels = connected_components(space.next_row, [(links.a, links.b)])
            roots = sets.find_all()
            assert len(sets) == space.next_row
            pairs = set(zip(labels.tolist(), roots.tolist(), strict=True))
            assert len(pairs) == len({root for _, root in pairs}) == len({label for label, _ in pairs})

"""Cluster updates: what they say, when they begin anew, and how large they are."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest

from stream_cluster.config import load_settings
from stream_cluster.graph.disjoint_sets import DisjointSets
from stream_cluster.messages import Metadata, ObjectMessage, Rejection, decode_update
from stream_cluster.messages.updates import (
    MAX_IDS,
    ChangeUpdate,
    ClusterPart,
    ClusterReplay,
    ObjectUpdate,
    ResetUpdate,
    encode_update,
)
from stream_cluster.model import SpaceKey
from stream_cluster.state.outbox import Told
from stream_cluster.state.updates import UpdateOptions
from tests.support.partitions import FLOOR, T0_US, message, open_partition, records, snapshot
from tests.support.updates import Topic, at_threshold, restate, snapshot_clusters

FACE = SpaceKey("acme", "event", "face", 1)
A, B, C = [1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0]
BRIDGE = [1.0, 1.0, 0, 0]
"""0.71 to A and to B."""


def name(number):
    return f"acme-{number:05}"


def delete(*numbers):
    ids = tuple(name(number) for number in numbers)
    return ObjectMessage(
        account_id="acme",
        object_type="event",
        action="delete",
        object_ids=ids,
        metadata=Metadata(),
        descriptors=(),
    )


class Feed:
    """A partition fed with single batches, and its topic."""

    def __init__(self, folder, **options):
        self.folder = folder
        self.topic = Topic()
        self.offset = 0
        self.open(**options)

    def open(self, *, settings=None, options="topic", floor=FLOOR):
        self.settings = settings or at_threshold(0.6)
        made = self.topic.options(self.settings) if options == "topic" else options
        self.partition = open_partition(self.folder, updates=made, floor=floor)

    def reopen(self, **options):
        self.partition.close()
        self.open(**options)

    def apply(self, *messages):
        """Apply one batch; the updates that it caused."""
        self.partition.apply(records(messages, first_offset=self.offset))
        self.offset += len(messages)
        return self._told() if self.partition.updates is not None else []

    def restate(self):
        """The updates that the restatement of all spaces caused."""
        restate(self.partition)
        return self._told()

    def _told(self):
        seen = self.topic.updates()
        self.topic.relay(self.partition)
        # What was acknowledged just before the last start is repeated.
        return [update for update in self.topic.updates()[len(seen) :] if update not in seen]

    def check(self):
        """The replay gives what a snapshot gives."""
        threshold = self.settings.similarity.face.default_threshold
        assert self.topic.clusters() == snapshot_clusters(self.partition, threshold)


@pytest.fixture
def feed(tmp_path):
    feed = Feed(tmp_path)
    yield feed
    feed.partition.close()


def test_an_object_names_its_cluster_its_strongest_link_and_what_it_merged(feed):
    feed.apply(message(1, A))
    feed.apply(message(2, B), message(3, B))
    (update,) = feed.apply(message(4, BRIDGE))
    assert isinstance(update, ObjectUpdate)
    assert (update.account_id, update.object_type, update.descriptor_type) == ("acme", "event", "face")
    assert (update.descriptor_version, update.threshold, update.threshold_cosine) == (1, 0.6, 0.6)
    assert (update.object_id, update.cluster, update.merged) == (name(4), name(1), [name(2)])
    # Both are equally similar: the one that came first.
    assert update.strongest.object_id == name(1)
    assert update.strongest.similarity == pytest.approx(0.7071, abs=1e-3)
    feed.check()


def test_a_late_object_with_an_earlier_creation_time_gives_the_cluster_its_own_id(feed):
    feed.apply(message(5, A), message(6, B))
    (update,) = feed.apply(message(1, BRIDGE))
    assert (update.cluster, update.merged) == (name(1), [name(5), name(6)])
    feed.check()


def test_a_deletion_lists_what_leaves_and_renames_the_rest(feed):
    feed.apply(message(1, BRIDGE), message(2, A), message(3, B), message(4, B))
    (update,) = feed.apply(delete(1))
    assert isinstance(update, ChangeUpdate)
    assert update.deleted == [name(1)]
    assert update.clusters == [
        ClusterPart(id=name(2), objects=[name(2)]),
        ClusterPart(id=name(3), former=name(1)),
    ]
    feed.check()


def test_a_deletion_that_leaves_a_cluster_whole_tells_only_the_deletion(feed):
    feed.apply(*(message(number, A) for number in range(5)))
    (update,) = feed.apply(delete(3))
    assert (update.deleted, update.clusters) == ([name(3)], [])
    feed.check()


def test_a_new_creation_time_renames_the_cluster(feed):
    feed.apply(message(1, A), message(2, A))
    update = ObjectMessage(
        account_id="acme",
        object_type="event",
        action="update",
        object_ids=(name(1),),
        metadata=Metadata(create_time_us=T0_US + 9_000_000),
        descriptors=(),
        updated_fields=frozenset({"create_time_us"}),
    )
    (told,) = feed.apply(update)
    assert told.clusters == [ClusterPart(id=name(2), former=name(1))]
    assert feed.apply(update) == []
    feed.check()


def test_an_id_that_goes_and_comes_in_one_batch_is_deleted_first(feed):
    feed.apply(message(1, A), message(2, A))
    deleted, came = feed.apply(delete(1), message(1, B))
    assert deleted.deleted == [name(1)]
    assert (came.object_id, came.cluster) == (name(1), name(1))
    feed.check()


def test_an_object_that_comes_and_goes_in_one_batch_is_not_told(feed):
    assert feed.apply(message(1, A), delete(1)) == []


def test_accounts_have_updates_of_their_own(feed):
    both = feed.apply(message(1, A), message(1, A, account="other"), message(2, A))
    assert [update.account_id for update in both] == ["acme", "acme", "other"]
    assert [update.seq for update in both] == [1, 2, 3]
    assert feed.topic.clusters()[SpaceKey("other", "event", "face", 1)] == {
        "other-00001": frozenset({"other-00001"})
    }


def test_the_archive_of_a_default_task_has_the_same_clusters(feed, tmp_path):
    random = np.random.default_rng(3)
    feed.apply(*(message(number, random.standard_normal(4)) for number in range(60)))
    feed.apply(delete(3, 9, 27))
    target, _ = snapshot(feed.partition, tmp_path / "out.zip", settings=feed.settings)
    with zipfile.ZipFile(target) as entries:
        lines = [json.loads(line) for line in entries.read("clusters.jsonl").splitlines()]
    assert feed.topic.clusters()[FACE] == {line["id"]: frozenset(line["objects"]) for line in lines}


def test_on_a_scale_updates_carry_the_threshold_and_similarities_of_the_scale(tmp_path):
    scale = {"scale": "logistic", "midpoint": 0.6, "slope": 10.0}
    keys = {f"similarity.face.{key}": value for key, value in scale.items()}
    settings = load_settings(
        None, {}, keys | {"similarity.face.default_threshold": 0.5, "similarity.face.floor": 0.2}
    )
    feed = Feed(tmp_path, settings=settings)
    _, update = feed.apply(message(1, A), message(2, BRIDGE))
    assert (update.threshold, update.threshold_cosine) == (0.5, pytest.approx(0.6))
    assert update.strongest.similarity == pytest.approx(1 / (1 + np.exp(-10 * (0.7071 - 0.6))), abs=2e-3)
    feed.partition.close()


def test_a_space_whose_floor_is_higher_than_the_threshold_is_told_at_its_floor(tmp_path):
    feed = Feed(tmp_path, settings=at_threshold(0.8), floor=0.8)
    feed.apply(message(1, A), message(2, BRIDGE))
    feed.reopen(settings=at_threshold(0.6))
    (update,) = feed.apply(message(3, BRIDGE))
    assert (update.threshold, update.threshold_cosine) == (0.8, 0.8)
    assert (update.cluster, update.strongest.object_id) == (name(2), name(2))
    feed.partition.close()


# -- beginnings ------------------------------------------------------------------------------------------


def test_a_restart_goes_on_and_repeats_what_was_not_acknowledged(feed):
    feed.apply(message(1, A))
    feed.topic.relay(feed.partition, acknowledged=False)
    feed.partition.apply(records([message(2, A)], first_offset=feed.offset))
    feed.offset += 1
    feed.topic.relay(feed.partition, acknowledged=False)
    feed.reopen()
    assert not feed.partition.updates.has_untold
    feed.topic.relay(feed.partition)
    # The first was acknowledged, and left with the second batch's transaction.
    assert [update.seq for update in feed.topic.updates()] == [1, 2, 2]
    feed.check()


def test_updates_that_are_switched_on_later_begin_with_a_reset(tmp_path):
    feed = Feed(tmp_path, options=None)
    assert feed.apply(message(1, A), message(2, A), message(3, B)) == []
    feed.reopen()
    # Batches before the restatement are part of it.
    assert feed.apply(message(4, B)) == []
    (update,) = feed.restate()
    assert isinstance(update, ResetUpdate)
    assert update.clusters == [
        ClusterPart(id=name(1), objects=[name(1), name(2)]),
        ClusterPart(id=name(3), objects=[name(3), name(4)]),
    ]
    (update,) = feed.apply(message(5, B))
    assert isinstance(update, ObjectUpdate)
    feed.check()
    feed.partition.close()


def test_another_threshold_restates_the_space_in_the_same_epoch(feed):
    feed.apply(message(1, A), message(2, BRIDGE))
    feed.reopen(settings=at_threshold(0.9))
    (update,) = feed.restate()
    assert (update.threshold, [part.id for part in update.clusters]) == (0.9, [name(1), name(2)])
    assert len({update.epoch for update in feed.topic.updates()}) == 1
    feed.check()


def test_a_state_without_updates_in_between_begins_a_new_epoch(feed):
    feed.apply(message(1, A))
    feed.reopen(options=None)
    feed.apply(message(2, A))
    feed.reopen()
    (update,) = feed.restate()
    assert isinstance(update, ResetUpdate)
    assert update.epoch > feed.topic.updates()[0].epoch
    feed.check()


@pytest.mark.parametrize("end", [None, Told(T0_US, 99), Told(T0_US + 5, 1)])
def test_a_topic_that_does_not_end_where_the_state_does_begins_a_new_epoch(feed, end):
    """It was emptied, or the state is older than it, or another worker has written."""
    feed.apply(message(1, A))
    feed.apply(message(2, A))
    feed.reopen(options=UpdateOptions(feed.settings.similarity, end, T0_US))
    assert feed.partition.updates.has_untold
    (update,) = feed.restate()
    assert update.epoch > max(T0_US, end.epoch if end else 0)
    feed.check()


def test_an_epoch_of_which_the_topic_has_nothing_goes_on_while_all_of_it_is_here(feed):
    feed.partition.apply(records([message(1, A)]))
    feed.offset = 1
    feed.reopen()
    assert not feed.partition.updates.has_untold
    feed.topic.relay(feed.partition)
    feed.check()


def test_acknowledged_updates_leave_the_database_and_their_deletions_leave_the_log(feed):
    feed.apply(message(1, A))
    outbox = feed.partition.updates.outbox
    assert outbox.holds_acknowledged
    feed.apply(delete(1))
    assert not outbox.erased_in_wal
    feed.partition.updates.trim_outbox()
    assert outbox.erased_in_wal
    assert not outbox.holds_acknowledged
    with feed.partition.view() as view:
        assert list(view.query("SELECT * FROM outbox")) == []


# -- sizes -----------------------------------------------------------------------------------------------


def test_an_object_that_merges_more_clusters_than_fit_is_followed_by_changes(tmp_path, monkeypatch):
    monkeypatch.setattr("stream_cluster.state.updates.MAX_IDS", 3)
    feed = Feed(tmp_path, settings=at_threshold(0.3), floor=0.2)
    feed.apply(*(message(number, vector) for number, vector in enumerate(np.eye(6))))
    # 0.41 to each of the six.
    came, *rest = feed.apply(message(9, np.ones(6)))
    assert (came.cluster, came.merged) == (name(0), [name(1), name(2), name(3)])
    assert [update.clusters for update in rest] == [
        [ClusterPart(id=name(0), former=name(4))],
        [ClusterPart(id=name(0), former=name(5))],
    ]
    feed.check()
    feed.partition.close()


def test_a_restated_space_comes_in_messages_of_bounded_size(tmp_path):
    feed = Feed(tmp_path, options=None)
    count = 3 * MAX_IDS
    feed.apply(*(message(number, A if number % 3 else B) for number in range(count)))
    feed.reopen()
    told = feed.restate()
    assert [type(update) for update in told] == [ResetUpdate, *[ChangeUpdate] * 3]
    assert max(sum(len(part.objects) for part in update.clusters) for update in told) < MAX_IDS
    assert max(len(payload) for payload in feed.topic.payloads) < 64 * 1024
    feed.check()
    # What one deletion tells does not grow with its cluster.
    (update,) = feed.apply(delete(1))
    assert update.clusters == [ClusterPart(id=name(2), former=name(1))]
    feed.check()
    feed.partition.close()


# -- replay ----------------------------------------------------------------------------------------------


def update_of(seq, epoch=1, **fields):
    common = {
        "account_id": "acme",
        "object_type": "event",
        "descriptor_type": "face",
        "descriptor_version": 1,
        "threshold": 0.6,
        "threshold_cosine": 0.6,
    }
    return ObjectUpdate(**common, seq=seq, epoch=epoch, strongest=None, **fields)


def test_a_replay_passes_over_repetitions_and_ended_epochs():
    replay = ClusterReplay()
    first = update_of(1, object_id="a", cluster="a", merged=[])
    second = update_of(2, object_id="b", cluster="a", merged=[])
    assert [replay.apply(update) for update in (first, second, first, second)] == [True, True, False, False]
    assert replay.clusters(FACE) == {"a": {"a", "b"}}
    assert replay.apply(update_of(1, epoch=2, object_id="c", cluster="c", merged=[]))
    assert not replay.apply(update_of(3, epoch=1, object_id="d", cluster="a", merged=[]))
    assert replay.clusters(FACE) == {"c": {"c"}}
    assert replay.clusters(SpaceKey("nobody", "event", "face", 1)) == {}


def test_an_update_survives_its_encoding_and_other_bytes_are_a_rejection():
    update = update_of(7, object_id="a", cluster="b", merged=["c"])
    assert decode_update(encode_update(update)) == update
    for value in (b"", b"{}", b'{"kind": "new"}', b"\xff"):
        assert isinstance(decode_update(value), Rejection)


# -- disjoint sets ---------------------------------------------------------------------------------------


def test_sets_are_found_joined_and_grown():
    sets = DisjointSets(np.array([0, 1, 0, 2], np.int32), np.array([2, 1, 3], np.uint32))
    roots = sets.find(np.arange(4))
    assert roots[0] == roots[2] != roots[1]
    assert sets.chosen(roots).tolist() == [2, 1, 2, 3]
    sets.append(3)
    assert len(sets) == 7
    assert sets.chosen(sets.find(np.array([4, 5, 6]))).tolist() == [4, 5, 6]
    sets.join(np.array([roots[1], 5]), np.array([roots[0], roots[0]]))
    sets.choose(np.array([roots[0]]), np.array([5]))
    found = sets.find_all()
    assert sets.chosen(found).tolist() == [5, 5, 5, 3, 4, 5, 6]
    assert sets.nbytes >= 7 * 8

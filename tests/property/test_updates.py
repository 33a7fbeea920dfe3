"""Whatever happens, the updates topic replayed from its start gives the clusters of whole-space snapshots."""

from __future__ import annotations

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.matching import encode
from stream_cluster.messages import Descriptor, Metadata, ObjectMessage
from stream_cluster.messages.updates import ObjectUpdate
from stream_cluster.state import ages, updates
from tests.support.examples import examples
from tests.support.oracle import naive_similarity
from tests.support.partitions import T0_US, apply_in_batches, directory, open_partition, records
from tests.support.updates import Topic, at_threshold, check_sets, restate, snapshot_clusters

DIM = 4
ON = at_threshold(0.6)


def made_up(seed, count):
    """Messages of two accounts: most come, at any time of creation; the rest changes it, or goes."""
    random = np.random.default_rng(seed)

    def time():
        return None if random.random() < 0.2 else T0_US + int(random.integers(6)) * 1_000_000

    def vector():
        values = random.integers(-2, 4, DIM).astype(np.int8)
        return values if values.any() else np.ones(DIM, np.int8)

    messages = []
    for _ in range(count):
        common = {
            "account_id": "other" if random.random() < 0.2 else "acme",
            "object_type": "event",
            "object_ids": (f"id{random.integers(25)}",),
        }
        kind = random.integers(8)
        if kind < 5:
            types = ["face", "body"] if random.random() < 0.2 else ["face"]
            message = ObjectMessage(
                **common,
                action="upsert",
                metadata=Metadata(create_time_us=time()),
                descriptors=tuple(Descriptor(name, 1, vector()) for name in types),
            )
        elif kind == 5:
            message = ObjectMessage(
                **common,
                action="update",
                metadata=Metadata(create_time_us=time(), age=3),
                descriptors=(),
                updated_fields=frozenset({"create_time_us", "age"}),
            )
        else:
            if random.random() < 0.05:
                common |= {"object_ids": (), "everything": ("event",)}
            elif random.random() < 0.5:
                common["object_ids"] = tuple(dict.fromkeys(f"id{random.integers(25)}" for _ in range(3)))
            message = ObjectMessage(**common, action="delete", metadata=Metadata(), descriptors=())
        messages.append(message)
    return messages


messages = st.builds(made_up, st.integers(0, 2**32), st.integers(1, 70))
# A batch of so many records; or the relay, with or without its death before it notes the acknowledgements; a
# restart; a start without updates, so that some batches are not told; a start at another threshold.
steps = st.lists(
    st.one_of(
        st.integers(1, 12),
        st.sampled_from(["relay", "relay some", "relay and die", "restart", "off", "other threshold"]),
    ),
    max_size=20,
)


class Run:
    """A partition with its updates topic, taken through steps."""

    def __init__(self, folder, messages):
        self.topic = Topic()
        self.settings = ON
        self._folder = folder
        self._records = records(messages)
        self._begin = 0
        self.partition = self._open()

    def _open(self, *, on=True):
        return open_partition(self._folder, updates=self.topic.options(self.settings) if on else None)

    def _reopen(self, **options):
        self.partition.close()
        self.partition = self._open(**options)

    def batch(self, size):
        if part := self._records[self._begin : self._begin + size]:
            self.partition.apply(part)
            self._begin += len(part)

    def take(self, step):
        if isinstance(step, int):
            self.batch(step)
        elif step == "restart":
            self._reopen()
        elif step == "other threshold":
            self.settings = at_threshold(0.9) if self.settings is ON else ON
            self._reopen()
        elif step == "off":
            self._reopen(on=False)
            self.batch(5)
            self._reopen()
        else:
            self.topic.relay(self.partition, max_rows=3 if step == "relay some" else 1000, acknowledged=False)
            if step != "relay and die":
                end = self.topic.end()
                if end is not None and end.epoch == self.partition.updates.outbox.epoch:
                    self.partition.updates.outbox.acknowledged_seq = end.seq
            else:
                self._reopen()

    def finish(self):
        self.batch(1000)
        restate(self.partition)
        self.topic.relay(self.partition)
        cosine = self.settings.similarity.face.default_threshold
        check_sets(self.partition)
        assert self.topic.clusters() == snapshot_clusters(self.partition, cosine)
        self.partition.close()


@settings(max_examples=examples(400), deadline=None)
@given(
    messages=messages,
    steps=steps,
    max_ids=st.sampled_from([3, 500]),
    look_up_rows=st.sampled_from([0, 4096]),
    eager=st.booleans(),
)
def test_the_topic_replayed_from_its_start_gives_the_clusters_of_snapshots(
    messages, steps, max_ids, look_up_rows, eager
):
    most, updates.MAX_IDS = updates.MAX_IDS, max_ids
    rows, ages._LOOK_UP_ROWS = ages._LOOK_UP_ROWS, look_up_rows
    try:
        with directory() as folder:
            run = Run(folder, messages)
            for step in steps:
                run.take(step)
                if eager:
                    restate(run.partition)
            run.finish()
    finally:
        updates.MAX_IDS = most
        ages._LOOK_UP_ROWS = rows


def told(messages, sizes, folder):
    """The object updates of these batches, without their numbers."""
    topic = Topic()
    partition = open_partition(folder, updates=topic.options(ON))
    apply_in_batches(partition, records(messages), sizes)
    topic.relay(partition)
    partition.close()
    found = [msgspec.structs.replace(update, seq=1) for update in topic.updates()]
    assert all(isinstance(update, ObjectUpdate) for update in found)
    return {
        key: [update for update in found if update.space == key] for key in {update.space for update in found}
    }


@settings(max_examples=examples(150), deadline=None)
@given(messages=messages, sizes=st.lists(st.integers(1, 9), max_size=12))
def test_updates_of_arrivals_do_not_depend_on_batches_and_name_the_strongest_earlier_link(messages, sizes):
    arrivals = [message for message in messages if message.action == "upsert"]
    with directory() as folder:
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        found = told(arrivals, sizes, folder / "a")
        assert found == told(arrivals, [1] * len(arrivals), folder / "b")
    for key, its_updates in found.items():
        vectors = {}
        for message in arrivals:
            for descriptor in message.descriptors:
                if message.account_id == key.account_id and descriptor.type == key.descriptor_type:
                    vectors.setdefault(message.object_id, descriptor.vector)
        assert [update.object_id for update in its_updates] == list(vectors)
        codes = encode(list(vectors.values()))
        similarity = naive_similarity(codes, codes)
        for number, update in enumerate(its_updates):
            earlier = similarity[number, :number]
            if len(earlier) == 0 or earlier.max() <= np.float32(0.6):
                assert update.strongest is None
                assert (update.cluster, update.merged) == (update.object_id, [])
            else:
                best = int(np.argmax(earlier))
                assert update.strongest.object_id == list(vectors)[best]
                assert update.strongest.similarity == earlier[best]

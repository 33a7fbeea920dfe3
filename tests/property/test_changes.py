"""Whatever comes, changes, goes and comes again: the state is that of a fresh run over the survivors."""

from __future__ import annotations

from concurrent.futures import Executor, Future

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.config import load_settings
from stream_cluster.graph.forest import check, maximum_spanning_forest
from stream_cluster.messages import Descriptor, Metadata, ObjectMessage
from stream_cluster.state import compaction
from stream_cluster.state.chunks import read_codes
from stream_cluster.state.objects import changed_columns
from stream_cluster.state.schema import METADATA_COLUMNS
from tests.support.examples import examples
from tests.support.model import Model
from tests.support.partitions import FLOOR, directory, open_partition, records

DIM = 4
FIELDS = {"track_id": "t1", "source": "cam", "tags": ("a", "b"), "age": 30, "meta": {"gate": 4}}
NAMES = [name for name, _ in METADATA_COLUMNS]


def made_up(seed, count):
    """Messages of two accounts: three quarters come, the rest changes and goes, ids come again."""
    random = np.random.default_rng(seed)

    def some(values, share=0.3):
        return [value for value in values if random.random() < share]

    def upsert(common):
        types = ["face"] if common["object_type"] == "face" else some(["face", "body"], 0.7) or ["face"]
        return ObjectMessage(
            **common,
            action="upsert",
            metadata=Metadata(**{name: FIELDS[name] for name in some(FIELDS)}),
            descriptors=tuple(Descriptor(kind, 1, vector()) for kind in types),
        )

    def vector():
        # Few different values, so that many links are equally strong, and components chain.
        values = random.integers(-1, 3, DIM).astype(np.int8)
        return values if values.any() else np.ones(DIM, np.int8)

    def update(common):
        values = {name: FIELDS[name] for name in some(FIELDS)}
        fields = frozenset(values) | frozenset(some(FIELDS))
        metadata = Metadata(**values)
        return ObjectMessage(
            **common, action="update", metadata=metadata, descriptors=(), updated_fields=fields
        )

    def delete(common):
        if random.random() < 0.05:
            kinds = [("event", "face"), ("event",), ("face",)][random.integers(3)]
            common |= {"object_ids": (), "object_type": kinds[0], "everything": kinds}
        elif random.random() < 0.5:
            common["object_ids"] = tuple(dict.fromkeys(f"id{random.integers(30)}" for _ in range(3)))
        return ObjectMessage(**common, action="delete", metadata=Metadata(), descriptors=())

    messages = []
    for _ in range(count):
        common = {
            "account_id": "other" if random.random() < 0.2 else "acme",
            "object_type": "face" if random.random() < 0.2 else "event",
            "object_ids": (f"id{random.integers(30)}",),
        }
        messages.append(
            [upsert, upsert, upsert, upsert, upsert, upsert, update, delete][random.integers(8)](common)
        )
    return messages


messages = st.builds(made_up, st.integers(0, 2**32), st.integers(1, 80))
# Batch sizes; a zero restarts instead.
plans = st.lists(st.integers(0, 12), max_size=10)


def contents(partition):
    """What a partition holds, by space: objects in the order of their rows, and the forest over them."""
    found = {}
    with partition.view() as view:
        for space in view.spaces():
            rows = list(
                view.query(
                    f"SELECT key & {2**32 - 1}, object_id, {', '.join(NAMES)} FROM objects "
                    "WHERE space_id = ? ORDER BY key",
                    (space.space_id,),
                )
            )
            assert len(rows) == space.objects == space.next_row - space.deleted
            if not rows:
                assert not len(view.links(space.space_id, -2))
                continue
            held = np.array([row for row, *_ in rows], np.uint32)
            forest = maximum_spanning_forest(view.links(space.space_id, FLOOR))
            check(forest)
            assert set(forest.a.tolist()) | set(forest.b.tolist()) <= set(held.tolist())
            found[space.key] = (
                [rest for _, *rest in rows],
                view.codes(space, held).tolist(),
                np.searchsorted(held, forest.a).tolist(),
                np.searchsorted(held, forest.b).tolist(),
                forest.similarity.tolist(),
            )
    return found


def fresh_contents(folder, model):
    """The same of a partition that never saw anything but the survivors."""
    survivors = [
        ObjectMessage(
            account_id=key.account_id,
            object_type=key.object_type,
            action="upsert",
            object_ids=(object_id,),
            metadata=metadata,
            descriptors=(descriptor,),
        )
        for key, object_id, descriptor, metadata in model.upserts()
    ]
    partition = open_partition(folder)
    partition.apply(records(survivors), next_offset=len(survivors))
    fresh = contents(partition)
    partition.close()
    return fresh


def apply_by_plan(folder, messages, plan, **options):
    """Apply the messages in batches of the planned sizes with the planned restarts."""
    all_records = records(messages)
    partition = open_partition(folder, **options)
    begin = 0
    for size in [*plan, len(messages)]:
        if size == 0:
            partition.close()
            partition = open_partition(folder, **options)
            assert partition.next_offset == begin
        elif begin < len(messages):
            partition.apply(all_records[begin : begin + size])
            begin = min(begin + size, len(messages))
    return partition


class LateFuture(Future):
    """Has its result from the start and is not done until asked a few times."""

    asked = 0

    def done(self):
        self.asked += 1
        return self.asked > 2


class Late(Executor):
    """Compactions that finish a few batches after they began, as those of a busy machine."""

    def submit(self, function, /, *arguments):
        future = LateFuture()
        future.set_result(function(*arguments))
        return future


@settings(max_examples=examples(300), deadline=None)
@given(messages=messages, plan=plans, min_pending=st.sampled_from([0, 3, 65_536]), is_late=st.booleans())
def test_after_any_changes_the_state_is_that_of_a_fresh_run_over_the_survivors(
    messages, plan, min_pending, is_late
):
    model = Model()
    for message in messages:
        model.apply(message)
    least, compaction.MIN_PENDING_LINKS = compaction.MIN_PENDING_LINKS, min_pending
    try:
        with directory() as folder:
            (folder / "a").mkdir()
            (folder / "b").mkdir()
            partition = apply_by_plan(folder / "a", messages, plan, background=Late() if is_late else None)
            assert contents(partition) == fresh_contents(folder / "b", model)
            with partition.view() as view:
                counted = {result: count for (result, _), count in view.counters().items()}
                for space in view.spaces():
                    assert space.deleted == model.deleted.get(space.key, 0)
                    assert space.duplicates == model.duplicates.get(space.key, 0)
            assert counted == model.results
            check_memory(partition)
            partition.close()
    finally:
        compaction.MIN_PENDING_LINKS = least


def check_memory(partition):
    """The matchers in memory hold what the database holds, and zeros for what is gone."""
    for space in partition.spaces():
        stored = [codes for _, codes in read_codes(partition._db, space.space_id, space.dim)]
        codes = np.concatenate(stored)
        assert len(codes) == space.next_row
        assert int((~codes.any(axis=1)).sum()) == space.deleted
        if space.matcher is not None:
            rows = np.arange(space.next_row)
            assert (space.matcher.store.gather(rows) == codes).all()
            assert (space.matcher.store.is_removed(rows) == ~codes.any(axis=1)).all()


@settings(max_examples=examples(60), deadline=None)
@given(messages=messages, plan=plans)
def test_a_small_hnsw_space_ends_in_the_same_state(messages, plan):
    model = Model()
    for message in messages:
        model.apply(message)
    hnsw = load_settings(None, {}, {"matching.engine": "hnsw"})
    with directory() as folder:
        (folder / "a").mkdir()
        (folder / "b").mkdir()
        partition = apply_by_plan(folder / "a", messages, plan, settings=hnsw)
        assert contents(partition) == fresh_contents(folder / "b", model)
        partition.close()


@settings(max_examples=examples(60), deadline=None)
@given(messages=messages, plan=plans, again=plans)
def test_records_delivered_again_after_changes_change_nothing(messages, plan, again):
    with directory() as folder:
        partition = apply_by_plan(folder, messages, plan)
        before = contents(partition)
        for begin in again:
            outcome = partition.apply(records(messages)[begin:])
            assert outcome.records == 0
        assert contents(partition) == before
        partition.close()


def test_columns_of_an_update_are_only_those_that_it_names():
    assert changed_columns(Metadata(age=3, tags=("x",)), {"tags", "source"}) == {
        "source": None,
        "tags": '["x"]',
    }

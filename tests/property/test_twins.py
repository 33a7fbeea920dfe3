"""Equal and parallel descriptors: what is spared in matching changes neither links nor updates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.config import Settings
from stream_cluster.graph.forest import maximum_spanning_forest
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import Descriptor
from stream_cluster.model import Links, SpaceKey
from stream_cluster.state import removal
from stream_cluster.state.space import Space, SpaceBatch, match_batch
from tests.property.test_changes import apply_by_plan, contents, fresh_contents
from tests.support.model import Model
from tests.support.oracle import naive_links
from tests.support.partitions import deletion, directory, message

DIM = 5
# Few directions, each at several lengths: equal codes, and parallel ones, rounded otherwise.
directions = np.random.default_rng(3).integers(-12, 13, (6, DIM)).astype(np.int8)
codes = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([1, 1, 1, 2, 5, 9])), min_size=1, max_size=40
).map(lambda chosen: np.stack([directions[which] * np.int8(length) for which, length in chosen]))
floors = st.sampled_from([-0.5, 0.3, 0.9, 0.9999998, 0.99999995])


@settings(max_examples=400, deadline=None)
@given(resident=codes, new=codes, floor=floors, removed=st.sets(st.integers(0, 39)))
def test_the_forest_and_the_count_are_those_of_all_links(resident, new, floor, removed):
    matcher = SpaceMatcher(DIM, Settings().matching)
    matcher.add(resident)
    batch = SpaceBatch(Space(1, SpaceKey("a", "event", "face", 1), DIM, floor, len(resident)), is_new=False)
    batch.rows = [()] * len(new)
    batch.descriptors = [Descriptor("face", 1, code) for code in new]
    batch.codes = new
    batch.removed = {row: f"{row}" for row in removed if row < len(resident) + len(new)}
    match_batch(batch, matcher)
    every = sorted(naive_links(np.concatenate((resident, new)), floor))
    of_new = [link for link in every if link[1] >= len(resident)]
    links = Links(
        np.array([a for a, _, _ in of_new], np.uint32),
        np.array([b for _, b, _ in of_new], np.uint32),
        np.array([bits for _, _, bits in of_new], np.uint32).view(np.float32),
    )
    expected = maximum_spanning_forest(links)
    assert batch.links.a.tolist() == expected.a.tolist()
    assert batch.links.b.tolist() == expected.b.tolist()
    assert batch.links.similarity.tolist() == expected.similarity.tolist()
    assert batch.links_seen == len(of_new)


changes = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "go"]),
        st.integers(0, 5),
        st.sampled_from([1, 1, 3]),
        st.integers(0, 30),
    ),
    min_size=5,
    max_size=60,
)


@pytest.mark.parametrize("few", [0, 16])
def test_twins_that_come_and_go_leave_the_state_of_a_fresh_run(few, monkeypatch):
    monkeypatch.setattr(removal, "_FEW_ASKING", few)

    @settings(max_examples=150, deadline=None)
    @given(changes=changes, plan=st.lists(st.integers(0, 20), max_size=6))
    def check(changes, plan):
        messages = [
            message(number, directions[which] * np.int8(length))
            if kind == "come"
            else deletion(f"acme-{number:05}")
            for kind, which, length, number in changes
        ]
        model = Model()
        for one in messages:
            model.apply(one)
        with directory() as folder:
            (folder / "a").mkdir()
            (folder / "b").mkdir()
            partition = apply_by_plan(folder / "a", messages, plan)
            assert contents(partition) == fresh_contents(folder / "b", model)
            partition.close()

    check()


def test_the_middle_of_a_star_of_equal_descriptors_goes_in_a_moment(monkeypatch):
    compared = []
    all_pairs = removal.all_pairs
    monkeypatch.setattr(
        removal, "all_pairs", lambda codes, *more: compared.append(len(codes)) or all_pairs(codes, *more)
    )
    with directory() as folder:
        messages = [message(number, directions[0]) for number in range(3000)]
        partition = apply_by_plan(folder, [*messages, deletion("acme-00000")], [3000])
        with partition.view() as view:
            (record,) = view.spaces()
            links = view.links(record.space_id, 0.5)
        assert (len(links), record.objects) == (2998, 2999)
        assert set(links.a.tolist()) == {1}
        assert compared == [1]
        partition.close()


def test_only_first_rows_are_matched(monkeypatch):
    asked = []
    search = SpaceMatcher.search
    monkeypatch.setattr(
        SpaceMatcher,
        "search",
        lambda self, codes, *more: asked.append(len(codes)) or search(self, codes, *more),
    )
    with directory() as folder:
        messages = [message(number, directions[number % 2]) for number in range(400)]
        partition = apply_by_plan(folder, messages, [200, 200])
        assert max(asked) == 2
        partition.close()

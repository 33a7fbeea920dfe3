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
from stream_cluster.model import Links, SpaceKey, concatenate_links, no_links
from stream_cluster.state import removal, twins
from stream_cluster.state.space import Space, SpaceBatch, match_batch
from tests.property.test_changes import apply_by_plan, contents, fresh_contents
from tests.support.examples import examples
from tests.support.model import Model
from tests.support.oracle import naive_links
from tests.support.partitions import deletion, directory, message, records

DIM = 5
# Few directions, each at several lengths: equal codes, and parallel ones, rounded otherwise.
directions = np.random.default_rng(3).integers(-12, 13, (6, DIM)).astype(np.int8)
codes = st.lists(
    st.tuples(st.integers(0, 5), st.sampled_from([1, 1, 1, 2, 5, 9])), min_size=1, max_size=40
).map(lambda chosen: np.stack([directions[which] * np.int8(length) for which, length in chosen]))
floors = st.sampled_from([-0.5, 0.3, 0.9, 0.9999998, 0.99999995])


@settings(max_examples=examples(400), deadline=None)
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


@pytest.mark.parametrize("least", [1, 2, 8])
def test_codes_that_are_known_to_repeat_change_no_forest_and_no_count(least, monkeypatch):
    """Over several batches: the forest of all links, and their number, whatever was left unmatched."""
    monkeypatch.setattr(twins, "MIN_TWINS", least)
    spared = []

    @settings(max_examples=examples(200), deadline=None)
    @given(batches=st.lists(codes, min_size=2, max_size=6), floor=floors)
    def check(batches, floor):
        space = Space(1, SpaceKey("a", "event", "face", 1), DIM, floor)
        matcher = SpaceMatcher(DIM, Settings().matching)
        kept, seen = no_links(), 0
        for new in batches:
            batch = SpaceBatch(space, is_new=False)
            batch.rows = [()] * len(new)
            batch.descriptors = [Descriptor("face", 1, code) for code in new]
            batch.codes = new
            spared.append(len(space.known.by_code))
            match_batch(batch, matcher)
            matcher.add(new)
            space.next_row += len(new)
            space.known.learn(batch.lesson)
            kept = maximum_spanning_forest(concatenate_links([kept, batch.links]))
            seen += batch.links_seen
        every = sorted(naive_links(np.concatenate(batches), floor))
        expected = maximum_spanning_forest(
            Links(
                np.array([a for a, _, _ in every], np.uint32),
                np.array([b for _, b, _ in every], np.uint32),
                np.array([bits for _, _, bits in every], np.uint32).view(np.float32),
            )
        )
        assert kept.a.tolist() == expected.a.tolist()
        assert kept.b.tolist() == expected.b.tolist()
        assert kept.similarity.tolist() == expected.similarity.tolist()
        assert seen == len(every)

    check()
    assert max(spared) > 0


def test_a_stuck_camera_is_compared_with_nobody_and_leaves_one_link_a_record(monkeypatch):
    """Also where each batch has one of its records only."""
    asked = []
    search = SpaceMatcher.search
    monkeypatch.setattr(
        SpaceMatcher,
        "search",
        lambda self, codes, *more: asked.append(len(codes)) or search(self, codes, *more),
    )
    with directory() as folder:
        messages = [message(number, directions[0]) for number in range(300)]
        partition = apply_by_plan(folder, messages[:100], [1] * 100)
        before, links_before = len(asked), stored_links(partition)
        assert 0 < before < 100
        for one in messages[100:]:
            partition.apply(records([one], first_offset=partition.next_offset))
        assert len(asked) == before
        assert stored_links(partition) - links_before <= 200
        partition.close()


def stored_links(partition):
    """Links in the database, whether merged or waiting."""
    with partition.view() as view:
        (record,) = view.spaces()
        return sum(view.link_counts(record.space_id))


def test_what_is_known_of_a_space_is_bounded_and_forgotten_with_a_deletion(monkeypatch):
    monkeypatch.setattr(twins, "MIN_TWINS", 2)
    monkeypatch.setattr(twins, "_MAX_KNOWN", 3)
    with directory() as folder:
        messages = [message(number, directions[number % 6]) for number in range(60)]
        partition = apply_by_plan(folder, messages, [20, 20])
        (space,) = partition.spaces()
        assert 0 < len(space.known.by_code) <= 3
        partition.apply(records([deletion("acme-00007")], first_offset=partition.next_offset))
        assert space.known.by_code == {}
        partition.close()


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


@pytest.mark.parametrize(("few", "least"), [(0, 64), (16, 64), (16, 2)])
def test_twins_that_come_and_go_leave_the_state_of_a_fresh_run(few, least, monkeypatch):
    monkeypatch.setattr(removal, "_FEW_ASKING", few)
    monkeypatch.setattr(twins, "MIN_TWINS", least)

    @settings(max_examples=examples(150), deadline=None)
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

"""Which worker gets which partition, decided without Kafka."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from stream_cluster.service.placement import Held, pack, place, unpack

HELD = st.builds(Held, st.integers(0, 2**62), st.booleans())
STATES = st.dictionaries(st.integers(0, 40), HELD, max_size=40)
GROUPS = st.dictionaries(st.text("abcdef", min_size=1, max_size=3), STATES, min_size=1, max_size=7)


@given(st.integers(0, 40), GROUPS)
def test_every_partition_is_placed_once_and_evenly(count: int, held: dict[str, dict[int, Held]]) -> None:
    placed = place(range(count), held)
    assert sorted(itertools.chain.from_iterable(placed.values())) == list(range(count))
    assert set(placed) == set(held)
    sizes = [len(given) for given in placed.values()]
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(0, 40), GROUPS, st.randoms())
def test_the_order_of_members_and_partitions_does_not_matter(count, held, random) -> None:  # type: ignore[no-untyped-def]
    partitions, members = list(range(count)), list(held.items())
    random.shuffle(partitions)
    random.shuffle(members)
    assert place(partitions, dict(members)) == place(range(count), held)


@given(st.integers(0, 40), GROUPS, st.integers(0, 2**62))
def test_the_holders_of_a_balanced_placement_keep_it(
    count: int, held: dict[str, dict[int, Held]], offset: int
) -> None:
    placed = place(range(count), held)
    # Older copies at others, equally new but closed, do not move anything.
    again = {
        member: {p: Held(offset, is_open=p in placed[member]) for p in range(count)} for member in placed
    }
    assert place(range(count), again) == placed


def test_exhaustively_no_small_group_wastes_a_newest_state() -> None:
    """Of every way in which three partitions are held by two members."""
    choices = [None, Held(1, is_open=False), Held(2, is_open=False)]
    for first in itertools.product(choices, repeat=3):
        for second in itertools.product(choices, repeat=3):
            held = {
                "a": {p: state for p, state in enumerate(first) if state},
                "b": {p: state for p, state in enumerate(second) if state},
            }
            placed = place(range(3), held)
            newest = {
                p: {
                    m
                    for m in held
                    if p in held[m] and held[m][p] == max(h[p] for h in held.values() if p in h)
                }
                for p in range(3)
            }
            kept = sum(member in newest[p] for member, given in placed.items() for p in given)
            best = max(
                sum(member in newest[p] for p, member in enumerate(owners))
                for owners in itertools.product("ab", repeat=3)
                if abs(owners.count("a") - owners.count("b")) <= 1
            )
            # A tie may go to the wrong one of two equal holders; without ties nothing is lost.
            if all(len(members) <= 1 for members in newest.values()):
                assert kept == best


def test_a_worker_that_comes_back_gets_the_partitions_that_it_has() -> None:
    opened = {p: Held(100 + p, is_open=True) for p in range(4)}
    for own in itertools.combinations(range(4), 2):
        held = {"stayed": opened, "back": {p: Held(100 + p, is_open=False) for p in own}}
        assert place(range(4), held)["back"] == list(own)


def test_a_new_worker_gets_what_is_soonest_read_again() -> None:
    held = {"stayed": {0: Held(10, is_open=True), 1: Held(900, is_open=True)}, "new": {}}
    assert place(range(2), held) == {"stayed": [1], "new": [0]}


@given(STATES)
def test_states_survive_the_group_metadata(held: dict[int, Held]) -> None:
    assert unpack(pack(held)) == held


@given(st.binary(max_size=60))
def test_metadata_of_an_unknown_form_is_never_an_error(packed: bytes) -> None:
    unpack(packed)


def test_hundreds_of_partitions_take_little_room() -> None:
    assert len(pack({p: Held(10**9 + p, is_open=True) for p in range(1000)})) <= 6 * 1000 + 10

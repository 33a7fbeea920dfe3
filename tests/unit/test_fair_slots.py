"""Slots go round the accounts that wait."""

from __future__ import annotations

import random

from stream_cluster.service.fair_slots import FairSlots


def test_a_free_slot_is_taken_at_once_and_a_full_house_makes_a_line():
    slots = FairSlots(2)
    assert [slots.take("a", owner) for owner in (1, 2, 3)] == [True, True, False]
    assert (slots.held, slots.waiting) == (2, 1)
    assert slots.leave(1) == 3
    assert slots.leave(2) is None
    assert slots.leave(3) is None
    assert (slots.held, slots.waiting) == (0, 0)


def test_an_account_with_a_hundred_tasks_does_not_starve_one_with_a_single_task():
    slots = FairSlots(1)
    slots.take("busy", "busy-0")
    for number in range(1, 101):
        slots.take("busy", f"busy-{number}")
    slots.take("small", "small-0")
    order, holder = [], "busy-0"
    while (holder := slots.leave(holder)) is not None:
        order.append(holder)
    assert order[:3] == ["busy-1", "small-0", "busy-2"]
    assert order[3:] == [f"busy-{number}" for number in range(3, 101)]


def test_accounts_take_turns_and_their_own_tasks_keep_their_order():
    slots = FairSlots(1)
    slots.take("x", "first")
    for owner in ("a1", "a2", "a3", "b1", "b2", "c1"):
        slots.take(owner[0], owner)
    order, holder = [], "first"
    while (holder := slots.leave(holder)) is not None:
        order.append(holder)
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]


def test_an_owner_that_leaves_the_line_gets_no_slot_and_gives_none():
    slots = FairSlots(1)
    for owner in ("a1", "a2", "b1"):
        slots.take(owner[0], owner)
    assert slots.leave("a2") is None
    assert slots.leave("unknown") is None
    assert slots.leave("a1") == "b1"


def test_whatever_happens_no_slot_is_lost_and_nobody_waits_beside_a_free_one():
    chance = random.Random(7)
    slots = FairSlots(3)
    there: dict[int, bool] = {}
    for owner in range(2000):
        there[owner] = slots.take(f"account-{chance.randrange(5)}", owner)
        for _ in range(chance.randrange(3)):
            if there:
                left = chance.choice(list(there))
                del there[left]
                successor = slots.leave(left)
                if successor is not None:
                    assert not there[successor]
                    there[successor] = True
        assert slots.held == sum(there.values()) <= 3
        assert slots.waiting == len(there) - slots.held
        assert slots.held == 3 or not slots.waiting

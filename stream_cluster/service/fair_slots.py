"""Slots for tasks, handed out in turn to the accounts that wait. No clock, no threads, no network."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)


class FairSlots(Generic[Owner]):
    """A number of slots, and a line of waiting owners for each account.

    A slot that becomes free goes to the account whose turn it is, and there to the owner that has waited
    longest; then the account goes to the end of the turns. So among n waiting accounts, each gets at least
    every n-th slot, however many owners the others have in line.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity`: owners that hold a slot at the same time, at least 1."""
        self._capacity = capacity
        self._holders: set[Owner] = set()
        # Invariants: no line is empty; nobody waits while a slot is free. The order of the keys is the order
        # of the turns.
        self._lines: dict[str, deque[Owner]] = {}

    @property
    def held(self) -> int:
        """Owners that hold a slot."""
        return len(self._holders)

    @property
    def waiting(self) -> int:
        """Owners in line."""
        return sum(map(len, self._lines.values()))

    def take(self, account_id: str, owner: Owner) -> bool:
        """True when the owner holds a slot now; otherwise it is in line, and some `leave` returns it."""
        if len(self._holders) < self._capacity:
            self._holders.add(owner)
            return True
        self._lines.setdefault(account_id, deque()).append(owner)
        return False

    def leave(self, owner: Owner) -> Owner | None:
        """Give back a slot, or a place in line. Returns the owner that holds the slot now, if any.

        An owner that neither holds nor waits changes nothing.
        """
        if owner not in self._holders:
            self._leave_line(owner)
            return None
        self._holders.remove(owner)
        if not self._lines:
            return None
        account_id, line = next(iter(self._lines.items()))
        successor = line.popleft()
        # To the end of the turns.
        del self._lines[account_id]
        if line:
            self._lines[account_id] = line
        self._holders.add(successor)
        return successor

    def _leave_line(self, owner: Owner) -> None:
        for account_id, line in self._lines.items():
            if owner in line:
                line.remove(owner)
                if not line:
                    del self._lines[account_id]
                return

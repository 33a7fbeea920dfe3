"""Which worker gets which partition: a decision made of what each has on its disk, and of nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

_FORMAT = 1


class Held(NamedTuple):
    """The state that a worker has of a partition. The greater of two is the better one to go on from."""

    next_offset: int
    is_open: bool
    """Loaded at this moment; of two equally new states, the one that need not be loaded is better."""


def place(partitions: Iterable[int], held: Mapping[str, Mapping[int, Held]]) -> dict[str, list[int]]:
    """Give every partition to one of the members `held` names, whatever the order they come in.

    No member gets more than one partition above any other. Within that, the newest states are served first:
    a partition goes to the member with the newest, else to the one with the next newest that has room, else
    to the member with the fewest. A member that has too many gives those away that others have nearly as new.
    """
    wanted = sorted(set(partitions))
    members = sorted(held)
    if not members:
        return {}
    base, extra = divmod(len(wanted), len(members))
    placed: dict[str, list[int]] = {member: [] for member in members}
    free = set(wanted)

    def has_room(member: str) -> bool:
        count = len(placed[member])
        return count < base or (count == base and extra > 0)

    def give(member: str, partition: int) -> None:
        nonlocal extra
        extra -= len(placed[member]) == base
        placed[member].append(partition)
        free.discard(partition)

    for _, partition, member in _offers(wanted, members, held):
        if partition in free and has_room(member):
            give(member, partition)
    for partition in sorted(free):
        # Those below `base` come first, so a member with room is always found.
        give(min(members, key=lambda member: (len(placed[member]), member)), partition)
    return {member: sorted(given) for member, given in placed.items()}


def _offers(
    partitions: list[int], members: list[str], held: Mapping[str, Mapping[int, Held]]
) -> list[tuple[int, int, str]]:
    """(rank among the states of the partition, partition, member), the newest states of all first.

    Of equal rank, first those with the most records between them and the next state.
    """
    offers: list[tuple[int, int, int, str]] = []
    for partition in partitions:
        owners = [member for member in members if partition in held[member]]
        owners.sort(key=lambda member: held[member][partition], reverse=True)
        offsets = [held[member][partition].next_offset for member in owners] + [-1]
        offers += [
            (rank, offsets[rank + 1] - offsets[rank], partition, member) for rank, member in enumerate(owners)
        ]
    return [(rank, partition, member) for rank, _, partition, member in sorted(offers)]


def pack(held: Mapping[int, Held]) -> bytes:
    """The states of a worker for the group's metadata: about six bytes of each partition."""
    packed = bytearray([_FORMAT])
    last = 0
    for partition, (next_offset, is_open) in sorted(held.items()):
        _append(packed, partition - last)
        _append(packed, next_offset << 1 | is_open)
        last = partition
    return bytes(packed)


def unpack(packed: bytes) -> dict[int, Held]:
    """What `pack` was given; nothing for a format that this release does not know, or damaged bytes.

    A worker that understands less than another must still place partitions: nothing is lost by loading one.
    """
    if not packed or packed[0] != _FORMAT:
        return {}
    numbers: list[int] = []
    value = shift = 0
    for byte in packed[1:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    if shift or len(numbers) % 2:
        return {}
    held: dict[int, Held] = {}
    partition = 0
    for gap, state in zip(numbers[::2], numbers[1::2], strict=True):
        partition += gap
        held[partition] = Held(state >> 1, is_open=bool(state & 1))
    return held


def _append(packed: bytearray, number: int) -> None:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    while number >= 0x80:
        packed.append(number & 0x7F | 0x80)
        number >>= 7
    packed.append(number)

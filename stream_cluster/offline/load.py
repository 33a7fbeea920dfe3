"""Objects of files into a state that only collects them: nothing is matched while they are read."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from stream_cluster.errors import InputError
from stream_cluster.messages import (
    JSON,
    DecodeRules,
    Descriptor,
    Metadata,
    ObjectMessage,
    RawRecord,
    Reason,
    Rejection,
    decode_events,
)
from stream_cluster.messages.vectors import SMALLEST_MAXIMUM
from stream_cluster.messages.wireform import is_legal_id
from stream_cluster.model import DescriptorType, Interrupt, ObjectType
from stream_cluster.offline.sources import Source, read_lines
from stream_cluster.offline.vectors import VectorBlock, open_vectors
from stream_cluster.state.partition import Partition

SHOWN_REJECTIONS = 5
SHOWN_ACCOUNTS = 5
DEFAULT_ACCOUNT = "local"
"""Account of the objects of an `.npz` when none is named."""

_BATCH_RECORDS = 8192
_BATCH_BYTES = 16 << 20
_NO_METADATA = Metadata()
# A comparison with a NumPy number takes ten times as long.
_SMALLEST_MAXIMUM = float(SMALLEST_MAXIMUM)
_LONGEST_ID = 128
_NO_IDS = frozenset((".", ".."))
"""Illegal by themselves, and not as a part of a text."""

OnRead = Callable[[int], None]
"""Called with bytes of input read since the last call."""


@dataclass(frozen=True, slots=True)
class VectorRules:
    """What an `.npz` does not say of its objects."""

    object_type: ObjectType
    descriptor_type: DescriptorType
    version: int


@dataclass(slots=True)
class LoadReport:
    """What became of the records.

    records = accepted + duplicates + changes + rejected + of_other_accounts.
    """

    records: int = 0
    accepted: int = 0
    duplicates: int = 0
    changes: int = 0
    """Updates and deletes, whether they found their object or not."""
    of_other_accounts: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""
    examples: list[str] = field(default_factory=list)
    """The first few rejections: `file:line: reason: detail`."""


class Loader:
    """Feeds a `Partition` from inputs of one account.

    Without a given account all objects must belong to the same one, which then is `account_id`.
    """

    def __init__(
        self,
        partition: Partition,
        rules: DecodeRules,
        vector_rules: VectorRules,
        account_id: str | None,
        *,
        interrupt: Interrupt,
        on_read: OnRead,
    ) -> None:
        self.account_id = account_id
        self.report = LoadReport()
        self._is_given = account_id is not None
        self._partition = partition
        self._rules = rules
        self._vector_rules = vector_rules
        self._interrupt = interrupt
        self._on_read = on_read
        self._next_offset = 0
        self._undecoded: Counter[Reason] = Counter()

    def load(self, source: Source) -> None:
        """Read one input to its end.

        Raises:
            InputError: it cannot be read, or holds objects of a second account.
            Cancelled: asked to stop.
        """
        if source.kind == "vectors":
            self._load_vectors(source)
        else:
            self._load_lines(source)

    def finish(self) -> None:
        """Count the records that could not be decoded under the account, so that its totals reconcile."""
        for reason, count in self._undecoded.items():
            rejection = Rejection(reason, "", self.account_id)
            for begin in range(0, count, _BATCH_RECORDS):
                messages = [rejection] * min(_BATCH_RECORDS, count - begin)
                self._partition.commit(self._partition.prepare_decoded(messages, self._next_offset))
        self._undecoded.clear()

    def _load_lines(self, source: Source) -> None:
        records: list[RawRecord] = []
        size = 0
        lines = read_lines(source, self._rules.max_message_bytes, self._interrupt, self._on_read)
        for number, line in lines:
            records.append(RawRecord(source.name, 0, number, 0, None, line, JSON))
            size += len(line)
            if len(records) >= _BATCH_RECORDS or size >= _BATCH_BYTES:
                self._apply_records(records)
                records.clear()
                size = 0
        self._apply_records(records)

    def _apply_records(self, records: Sequence[RawRecord]) -> None:
        def place(position: int) -> str:
            return f"{records[position].topic}:{records[position].offset}"

        self._apply(decode_events(records, self._rules), place)

    def _load_vectors(self, source: Source) -> None:
        assert source.path is not None
        with open_vectors(source.path) as file:
            read_bytes = 0
            for block in file.blocks(_BATCH_RECORDS):
                self._interrupt.check()
                place = functools.partial(_row, source.name, block.first_row)
                self._apply(self._messages(block), place)
                done = (source.size_bytes or 0) * (block.first_row + len(block.ids)) // file.rows
                self._on_read(done - read_bytes)
                read_bytes = done

    def _messages(self, block: VectorBlock) -> list[ObjectMessage | Rejection]:
        """The rows of a block as decoded messages, under the same rules as records."""
        rules = self._vector_rules
        account_id = self.account_id or DEFAULT_ACCOUNT
        with np.errstate(invalid="ignore"):
            # Either extreme is NaN when any value is.
            largest = np.maximum(block.vectors.max(axis=1), -block.vectors.min(axis=1)).tolist()
        # Nearly always all is well, and a look at all of them together tells.
        may_be_bad = not (
            all(_SMALLEST_MAXIMUM <= magnitude < math.inf for magnitude in largest)
            and all(1 <= len(object_id) <= _LONGEST_ID for object_id in block.ids)
            and is_legal_id("".join(block.ids))
            and _NO_IDS.isdisjoint(block.ids)
        )
        messages: list[ObjectMessage | Rejection] = []
        for object_id, vector, magnitude in zip(block.ids, block.vectors, largest, strict=True):
            problem = _problem(object_id, magnitude) if may_be_bad else None
            if problem is not None:
                messages.append(Rejection(*problem, account_id))
                continue
            messages.append(
                ObjectMessage(
                    account_id=account_id,
                    object_type=rules.object_type,
                    action="upsert",
                    object_ids=(object_id,),
                    metadata=_NO_METADATA,
                    descriptors=(Descriptor(rules.descriptor_type, rules.version, vector),),
                )
            )
        return messages

    def _apply(self, decoded: Sequence[ObjectMessage | Rejection], place: Callable[[int], str]) -> None:
        """Store a batch. `place` says where the message at a position stood."""
        self._interrupt.check()
        messages: list[ObjectMessage | Rejection] = []
        positions: list[int] = []
        report = self.report
        report.records += len(decoded)
        self._settle_account(decoded)
        for position, message in enumerate(decoded):
            if message.account_id not in (None, self.account_id) and self._is_given:
                report.of_other_accounts += 1
            elif isinstance(message, Rejection):
                self._undecoded[message.reason] += 1
                self._note(message, place(position))
            else:
                messages.append(message)
                positions.append(position)
        if not messages:
            return
        self._next_offset += len(messages)
        batch = self._partition.prepare_decoded(messages, self._next_offset)
        for position, rejection in batch.rejected:
            self._note(rejection, place(positions[position]))
        outcome = self._partition.commit(batch)
        report.accepted += outcome.accepted
        report.duplicates += outcome.duplicates
        report.changes += outcome.updated + outcome.deleted + outcome.unknown

    def _settle_account(self, decoded: Sequence[ObjectMessage | Rejection]) -> None:
        """Take the only account of the inputs for the account, unless one was given."""
        if self._is_given:
            return
        found = dict.fromkeys(item.account_id for item in decoded if isinstance(item, ObjectMessage))
        if self.account_id is not None:
            found = dict.fromkeys([self.account_id, *found])
        if len(found) > 1:
            names = ", ".join(sorted(found)[:SHOWN_ACCOUNTS]) + (", …" if len(found) > SHOWN_ACCOUNTS else "")
            raise InputError(
                f"found the accounts {names}; choose one with --account, for they are never mixed"
            )
        self.account_id = next(iter(found), None)

    def _note(self, rejection: Rejection, place: str) -> None:
        self.report.rejected[rejection.reason.value] += 1
        if len(self.report.examples) < SHOWN_REJECTIONS:
            self.report.examples.append(f"{place}: {rejection.reason.value}: {rejection.detail}")


def _row(name: str, first_row: int, position: int) -> str:
    return f"{name}:row {first_row + position}"


def _problem(object_id: str, largest: float) -> tuple[Reason, str] | None:
    """What is wrong with a row; `largest` is the largest magnitude of its vector."""
    if not (1 <= len(object_id) <= _LONGEST_ID and is_legal_id(object_id)):
        return Reason.BAD_FIELD, "found an id that is not 1 to 128 printable characters without / and \\"
    if not math.isfinite(largest):
        return Reason.NOT_FINITE, "found NaN or infinity in descriptors, expected finite values"
    if largest < _SMALLEST_MAXIMUM:
        return Reason.ZERO_VECTOR, "found only zeros in descriptors, expected a direction"
    return None

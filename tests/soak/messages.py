"""The records of a step: a function of it alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stream_cluster.generate import FAULTS, GenerateOptions
from stream_cluster.generate.faults import break_message
from stream_cluster.messages import JSON, MSGPACK, Descriptor, Metadata, ObjectMessage, encode_object
from stream_cluster.messages.encode import object_fields
from tests.soak.steps import Everything, Messages
from tests.support.partitions import T0_US

FACE_DIM, BODY_DIM = 16, 12
MAX_MESSAGE_BYTES = 20_000
"""To be set in the service, so that bad messages include too large ones."""
PEOPLE = 40


@dataclass(frozen=True)
class Sent:
    """A record to send, and what it means."""

    account: str
    value: bytes
    content_type: str
    message: ObjectMessage | None
    """None for a bad one."""
    reason: str | None = None
    """Why it must be rejected."""

    @property
    def partition_offset(self) -> int:
        """To be added to the account's partition."""
        return int(self.reason == "wrong_partition")


def made(step: Messages | Everything) -> list[Sent]:
    """The records of a step, in order."""
    if isinstance(step, Everything):
        message = ObjectMessage(
            account_id=step.account,
            object_type="event",
            action="delete",
            object_ids=(),
            metadata=Metadata(),
            descriptors=(),
            everything=("event", "face"),
        )
        return [Sent(step.account, encode_object(message), JSON, message)]
    return _Maker(step).run()


class _Maker:
    def __init__(self, step: Messages) -> None:
        self._step = step
        self._random = np.random.default_rng(step.seed)
        # Of the account, not of the step: its people are seen again and again.
        self._people = np.random.default_rng(sum(step.account.encode()))
        self._centres = {
            "face": self._people.standard_normal((PEOPLE, FACE_DIM)),
            "body": self._people.standard_normal((PEOPLE, BODY_DIM)),
        }

    def run(self) -> list[Sent]:
        records = []
        for number in range(self._step.first, self._step.first + self._step.count):
            if number == 0:
                # Fixes the dimension of the space that bad dimensions are told by.
                records.append(self._sent(self._upsert(0, "event")))
                continue
            kind = self._random.choice(
                ["new", "again", "update", "delete", "bad"], p=[0.68, 0.06, 0.1, 0.09, 0.07]
            )
            records.append(getattr(self, f"_{kind}")(number))
        return records

    def _new(self, number: int) -> Sent:
        return self._sent(self._upsert(number, "face" if self._random.random() < 0.15 else "event"))

    def _again(self, number: int) -> Sent:
        return self._new(self._known(number))

    def _update(self, number: int) -> Sent:
        values = self._metadata(number)
        names = [name for name in values if self._random.random() < 0.3] or ["source"]
        cleared = {name for name in names if name != "create_time_us" and self._random.random() < 0.2}
        metadata = Metadata(**{name: values[name] for name in names if name not in cleared})
        return self._sent(
            ObjectMessage(
                account_id=self._step.account,
                object_type="event",
                action="update",
                object_ids=(_id(self._known(number)),),
                metadata=metadata,
                descriptors=(),
                updated_fields=frozenset(names),
            )
        )

    def _delete(self, number: int) -> Sent:
        ids = tuple(
            dict.fromkeys(_id(self._known(number)) for _ in range(int(self._random.choice([1, 1, 1, 5]))))
        )
        return self._sent(
            ObjectMessage(
                account_id=self._step.account,
                object_type="face" if self._random.random() < 0.1 else "event",
                action="delete",
                object_ids=ids,
                metadata=Metadata(),
                descriptors=(),
            )
        )

    def _bad(self, number: int) -> Sent:
        form = "json" if self._random.random() < 0.5 else "msgpack"
        fault = FAULTS[self._random.integers(len(FAULTS))]
        options = GenerateOptions(dim=FACE_DIM, format=form, too_large_bytes=MAX_MESSAGE_BYTES + 1)
        fields = object_fields(self._upsert(number, "event", kinds=("face",)))
        # The breakers expect plain lists, and the encoding that the options name.
        fields["descriptors"][0] |= {"encoding": "float32", "data": np.ones(FACE_DIM, "<f4").tobytes()}
        value = break_message(fault, int(self._random.integers(60)), fields, options)
        return Sent(self._step.account, value, f"application/{form}", None, fault)

    def _known(self, number: int) -> int:
        """An earlier number, more often a late one."""
        return int(number * self._random.random() ** 0.5)

    def _upsert(self, number: int, object_type: str, kinds: tuple[str, ...] | None = None) -> ObjectMessage:
        if kinds is None:
            chosen = [("face",), ("face", "body"), ("body",)][self._random.choice(3, p=[0.6, 0.25, 0.15])]
            kinds = ("face",) if object_type == "face" or number == 0 else chosen
        values = self._metadata(number)
        if object_type == "face":
            values = {name: values[name] for name in ("create_time_us", "external_id")}
        return ObjectMessage(
            account_id=self._step.account,
            object_type=object_type,
            action="upsert",
            object_ids=(_id(number),),
            metadata=Metadata(**values),
            descriptors=tuple(Descriptor(kind, 1, self._vector(kind)) for kind in kinds),
        )

    def _vector(self, kind: str) -> np.ndarray:
        centre = self._centres[kind][self._random.integers(PEOPLE)]
        vector = centre + self._random.choice([0.2, 0.5, 0.9]) * self._random.standard_normal(len(centre))
        if self._random.random() < 0.5:
            return vector.astype(np.float32)
        return np.rint(vector * (127 / np.abs(vector).max())).astype(np.int8)

    def _metadata(self, number: int) -> dict:
        choose = self._random
        return {
            "create_time_us": T0_US + number * 1_000_000,
            "source": f"cam{choose.integers(6)}",
            "track_id": f"t{number // 3}",
            "tags": tuple(choose.choice(list("abc"), choose.integers(1, 3), replace=False).tolist()),
            "age": int(choose.integers(90)),
            "external_id": f"x{choose.integers(4)}",
            "meta": {"gate": int(choose.integers(5))},
        }

    def _sent(self, message: ObjectMessage) -> Sent:
        content_type = JSON if self._random.random() < 0.5 else MSGPACK
        return Sent(self._step.account, encode_object(message, content_type), content_type, message)


def _id(number: int) -> str:
    return f"o{number:06}"

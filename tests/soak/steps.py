"""What a soak does, one step after another: a function of the seed, and the lines of a trace."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from stream_cluster.messages import format_time
from tests.support.partitions import T0_US

ACCOUNTS = 9
SLOTS = 2
"""Workers that may run at once."""
WIPE_AFTER = 2000
"""Ids that an account uses before everything of it is deleted, so that comparing stays quick."""
SETTLE_EVERY = 40
AVERAGE_AT_MOST = 600
"""Ids that average linkage is asked for: the model's way is slow."""


class _Step(Struct, frozen=True, kw_only=True, tag=str.lower):
    pause_s: float = 0.0
    """Before the step."""


class Messages(_Step, frozen=True, kw_only=True):
    """Records of one account: new objects, repeated ones, updates, deletes, bad ones. See `messages.made`."""

    account: str
    seed: int
    first: int
    """Number of the first new object; those below may be repeated, updated and deleted."""
    count: int


class Everything(_Step, frozen=True, kw_only=True):
    """A delete of everything of an account."""

    account: str


class Task(_Step, frozen=True, kw_only=True):
    """A clustering task."""

    account: str
    task_id: str
    content: dict[str, Any]


class Cancel(_Step, frozen=True, kw_only=True):
    """A cancel of a task that may have ended."""

    account: str
    task_id: str


class Start(_Step, frozen=True, kw_only=True):
    """A worker begins, on the state that its slot has. It joins the group: a rebalance."""

    slot: int


class Kill(_Step, frozen=True, kw_only=True):
    """SIGKILL for a worker."""

    slot: int


class Leave(_Step, frozen=True, kw_only=True):
    """SIGTERM for a worker, which leaves the group: a rebalance."""

    slot: int


class BrokerRestart(_Step, frozen=True, kw_only=True):
    """SIGKILL for the broker, which starts again after some time; what follows goes on meanwhile."""

    down_s: float


class Settle(_Step, frozen=True, kw_only=True):
    """Wait until all tasks have ended, and compare them."""


Step = Messages | Everything | Task | Cancel | Start | Kill | Leave | BrokerRestart | Settle


class Plan:
    """An endless iterator of steps."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._next = {f"account-{number}": 0 for number in range(ACCOUNTS)}
        self._wiped = dict.fromkeys(self._next, 0)
        self._alive: set[int] = set()
        self._tasks: deque[tuple[str, str]] = deque(maxlen=4)
        self._task_count = 0
        self._since_settle = 0
        self._due: list[tuple[int, Step]] = []
        """(in so many steps, what)."""

    def __iter__(self) -> Iterator[Step]:
        for slot in range(SLOTS):
            yield self._start(slot)
        # The first message of each account is a good one, and so fixes the dimension of its space.
        for account in self._next:
            yield self._messages(account)
        while True:
            yield self._step()

    def _step(self) -> Step:
        self._since_settle += 1
        if self._since_settle >= SETTLE_EVERY:
            self._since_settle = 0
            return Settle()
        self._due = [(steps - 1, step) for steps, step in self._due]
        for steps, step in self._due:
            if steps <= 0:
                self._due.remove((steps, step))
                return self._start(step.slot) if isinstance(step, Start) else step
        kinds = {"messages": 50, "task": 30, "cancel": 3, "kill": 4, "leave": 2, "broker": 1.5}
        kind = self._random.choices(list(kinds), list(kinds.values()))[0]
        account = self._random.choice(list(self._next))
        if kind == "task":
            return self._task(account)
        if kind == "cancel" and self._tasks:
            account, task_id = self._random.choice(list(self._tasks))
            return Cancel(account=account, task_id=task_id, pause_s=self._pause())
        if kind in {"kill", "leave"} and self._alive:
            return self._end_worker(kind)
        if kind == "broker":
            return BrokerRestart(down_s=round(self._random.uniform(0.1, 5), 2), pause_s=self._pause())
        if self._next[account] - self._wiped[account] > WIPE_AFTER:
            self._wiped[account] = self._next[account]
            return Everything(account=account, pause_s=self._pause())
        return self._messages(account)

    def _pause(self) -> float:
        return round(self._random.uniform(0, 0.9), 3)

    def _start(self, slot: int) -> Step:
        self._alive.add(slot)
        return Start(slot=slot)

    def _end_worker(self, kind: str) -> Step:
        slot = self._random.choice(sorted(self._alive))
        self._alive.remove(slot)
        self._due.append((self._random.randint(1, 12), Start(slot=slot)))
        return (Kill if kind == "kill" else Leave)(slot=slot, pause_s=self._pause())

    def _messages(self, account: str) -> Messages:
        count = self._random.randint(1, 100)
        first = self._next[account]
        self._next[account] += count
        seed = self._random.getrandbits(32)
        return Messages(account=account, seed=seed, first=first, count=count, pause_s=self._pause())

    def _task(self, account: str) -> Task:
        self._task_count += 1
        task_id = f"task-{self._task_count}"
        self._tasks.append((account, task_id))
        return Task(account=account, task_id=task_id, content=self._content(account), pause_s=self._pause())

    def _content(self, account: str) -> dict[str, Any]:
        choose = self._random
        content: dict[str, Any] = {
            "objects_type": choose.choices(["events", "faces"], [6, 1])[0],
            "threshold": round(choose.uniform(0.2, 0.95), 3),
            "use_track_info": choose.random() < 0.2,
        }
        if content["objects_type"] == "events" and choose.random() < 0.25:
            content["descriptor_type"] = "body"
        if choose.random() < 0.5:
            content["filters"] = self._filters(account, content["objects_type"])
        if choose.random() < 0.15:
            last = self._next[account]
            content["filters"] = {"create_time__gte": _time(max(0, last - AVERAGE_AT_MOST))}
            content |= {"linkage": "average", "use_track_info": False}
        return content

    def _filters(self, account: str, objects_type: str) -> dict[str, Any]:
        choose, last = self._random, self._next[account]
        begin = choose.randint(0, last)
        makers = {
            "create_time__gte": lambda: _time(begin),
            "create_time__lt": lambda: _time(choose.randint(begin, last + 1)),
            "external_ids": lambda: choose.sample(["x0", "x1", "x2", "x3"], 2),
        }
        if objects_type == "events":
            makers |= {
                "sources": lambda: choose.sample([f"cam{number}" for number in range(6)], 3),
                "tags": lambda: [choose.choice("abc")],
                "age__gte": lambda: choose.randint(0, 60),
                "track_ids": lambda: [f"t{number}" for number in range(begin // 3, begin // 3 + 30)],
                "meta": lambda: {"gate": choose.randint(0, 4)},
            }
        return {name: makers[name]() for name in choose.sample(sorted(makers), choose.randint(1, 2))}


def _time(number: int) -> str:
    return format_time(T0_US + number * 1_000_000)


class Header(Struct, frozen=True):
    """First line of a trace."""

    seed: int


def write_header(path: Path, seed: int) -> None:
    """Begin a trace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(Header(seed)) + b"\n")


def append_step(path: Path, step: Step) -> None:
    """Note a step before it is done, so that a trace of a soak that died holds its last step."""
    with path.open("ab") as file:
        file.write(msgspec.json.encode(step) + b"\n")


def read_trace(path: Path) -> tuple[int, list[Step]]:
    """The seed and the steps of a trace."""
    first, *lines = path.read_bytes().splitlines()
    decoder: msgspec.json.Decoder[Step] = msgspec.json.Decoder(Step)
    return msgspec.json.decode(first, type=Header).seed, [decoder.decode(line) for line in lines]


def with_last_settle(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, and a last look at all tasks."""
    yield from steps
    yield Settle()

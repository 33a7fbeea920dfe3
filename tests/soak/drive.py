"""Does the steps of a soak against a real broker and real worker processes, and compares what comes out."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from stream_cluster.messages import partition_for
from stream_cluster.sandbox import LocalBroker
from stream_cluster.state.database import database_path
from stream_cluster.state.view import PartitionView
from tests.soak import steps
from tests.soak.messages import MAX_MESSAGE_BYTES, Sent, made
from tests.soak.truth import Difference, Truth, compare_archive, selected, space_of
from tests.support import kafka
from tests.support.archives import read_archive
from tests.support.client import ENDED, Client, archive_file, client_of, clustering
from tests.support.service import ServiceProcess, Topics, make_topics, overrides_of

PARTITIONS = 3
SETTLE_S = 240
"""Longest that all tasks under way may take: a worker may have to build its partitions again."""
REQUEST_TIMEOUT_MS = 180_000
"""Longer than any restart of the broker, so that the producer itself sends again, and once only."""


class Soak:
    """One run. Its parts share a broker, a truth and a list of differences."""

    def __init__(
        self,
        broker: LocalBroker,
        folder: Path,
        tell: Callable[[str], None],
        on_settled: Callable[[], None] = lambda: None,
    ) -> None:
        """State, logs and archives are kept in `folder`; `on_settled` is called after every comparison."""
        self.counts: Counter[str] = Counter()
        self.differences: list[Difference] = []
        self._broker = broker
        self._folder = folder
        self._tell = tell
        self._on_settled = on_settled
        self._truth = Truth(PARTITIONS)
        self._workers: dict[int, ServiceProcess] = {}
        self._logs: list[Path] = []
        self._open: dict[tuple[str, str], steps.Task] = {}
        """Tasks submitted and not compared yet."""
        self._known_at: dict[tuple[str, str], int] = {}
        """End of the account's partition when a task was submitted, as far as acknowledged."""
        self._ends: dict[tuple[str, str], Counter[str]] = {}
        """Last statuses of every compared task, to see at the end that none came after."""
        self._restarting: asyncio.Task[None] | None = None
        self._topics: Topics
        self._client: Client
        self._producer: AIOKafkaProducer

    async def run(self, work: Iterable[steps.Step], on_step: Callable[[steps.Step], None]) -> None:
        """Do the steps, then compare all that there is."""
        self._topics = await make_topics(self._broker, "soak", PARTITIONS)
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._broker.bootstrap_servers,
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            linger_ms=2,
        )
        async with client_of(self._broker, self._topics) as client:
            self._client = client
            await self._producer.start()
            try:
                for step in steps.with_last_settle(work):
                    on_step(step)
                    await asyncio.sleep(step.pause_s)
                    self._check_workers()
                    await self._do(step)
                    self.counts["steps"] += 1
                await self._finish()
            finally:
                for worker in self._workers.values():
                    worker.kill()
                await self._producer.stop()

    # -- steps -----------------------------------------------------------------------------------------

    async def _do(self, step: steps.Step) -> None:
        match step:
            case steps.Messages() | steps.Everything():
                await self._send(made(step))
            case steps.Task():
                await self._submit(step)
            case steps.Cancel():
                await self._send_task({"type": "cancel", "task_id": step.task_id, "account_id": step.account})
                self.counts["cancels"] += 1
            case steps.Start():
                self._start(step.slot)
            case steps.Kill():
                await self._end_worker(step.slot, "kills")
            case steps.Leave():
                await self._end_worker(step.slot, "leaves")
            case steps.BrokerRestart():
                await self._broker_is_back()
                self._restarting = asyncio.create_task(self._restart_broker(step.down_s))
                # It has to be down before the next step, or a trace would not say what it ran into.
                await asyncio.sleep(0.1)
            case steps.Settle():
                await self._settle()

    async def _send(self, records: list[Sent]) -> None:
        """Send records, and note them in the truth once they are acknowledged."""
        sending = []
        for sent in records:
            right = self._partition(sent.account)
            sending.append(
                await self._producer.send(
                    self._topics.events,
                    sent.value,
                    key=sent.account.encode(),
                    headers=[("content-type", sent.content_type.encode())],
                    partition=(right + sent.partition_offset) % PARTITIONS,
                )
            )
        for sent, where in zip(records, await asyncio.gather(*sending), strict=True):
            self._truth.add(where.partition, where.offset, sent)
            action = sent.message.action if sent.message is not None else "bad"
            self.counts[f"messages.{action}"] += 1

    async def _submit(self, task: steps.Task) -> None:
        key = task.account, task.task_id
        self._open[key] = task
        self._known_at[key] = len(self._truth.logs[self._partition(task.account)])
        await self._send_task(clustering(task.task_id, task.account, **task.content))
        self.counts["tasks"] += 1
        await self._compare_ended()

    async def _send_task(self, task: dict[str, Any]) -> None:
        await self._producer.send_and_wait(
            self._topics.tasks, json.dumps(task).encode(), key=task["account_id"].encode()
        )

    def _start(self, slot: int) -> None:
        if slot in self._workers:
            return  # started by a settle that found no worker
        folder = self._folder / f"worker-{slot}"
        folder.mkdir(exist_ok=True)
        overrides = overrides_of(
            self._broker,
            self._topics,
            folder,
            results__directory=str(self._folder / "results"),
            kafka__max_message_bytes=MAX_MESSAGE_BYTES,
            ingest__batch_max_records=64,
            ingest__buffer_max_records=512,
            tasks__concurrency=2,
        )
        log = folder / f"{self.counts['starts']}.log"
        self._logs.append(log)
        self._workers[slot] = ServiceProcess(overrides, log)
        self.counts["starts"] += 1

    async def _end_worker(self, slot: int, how: str) -> None:
        worker = self._workers.pop(slot)
        self.counts[how] += 1
        if how == "kills":
            worker.kill()
            return
        worker.terminate()
        code, _ = await asyncio.to_thread(worker.wait, 120)
        # Before it has begun, nothing listens to the signal.
        if code != 0 and not (code == -signal.SIGTERM and not worker.logged("service_starting")):
            self._differ("exit", f"worker {slot}", f"ended with {code}: {worker.log()[-2000:]}")

    def _check_workers(self) -> None:
        for slot, worker in list(self._workers.items()):
            if (code := worker.exit_code) is not None:
                self._differ("exit", f"worker {slot}", f"ended by itself with {code}: {worker.log()[-2000:]}")
                self._start(slot)

    async def _restart_broker(self, down_s: float) -> None:
        await asyncio.to_thread(self._broker.kill)
        await asyncio.sleep(down_s)
        await asyncio.to_thread(self._broker.start)
        self.counts["broker_restarts"] += 1

    async def _broker_is_back(self) -> None:
        if self._restarting is not None:
            await self._restarting
            self._restarting = None

    # -- comparing -------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Wait until every task has ended, with at least one worker, and compare it."""
        await self._broker_is_back()
        if not self._workers:
            self._start(0)
        deadline = time.monotonic() + SETTLE_S
        while await self._compare_ended():
            self._check_workers()
            if time.monotonic() > deadline:
                for key, task in self._open.items():
                    statuses = [status["status"] for status in self._client.statuses(key[1], key[0])]
                    self._differ("task without an end", f"{key}", f"{task.content}: {statuses}")
                self._open.clear()
            await asyncio.sleep(0.1)
        self._tell(
            f"{self.counts['steps']} steps, {sum(len(log) for log in self._truth.logs)} records, "
            f"{self.counts['archives_compared']} archives compared, {self.counts['kills']} kills, "
            f"{self.counts['broker_restarts']} broker restarts, {len(self.differences)} differences"
        )
        self._on_settled()

    async def _compare_ended(self) -> int:
        """Compare the tasks that have ended; how many have not."""
        for key in list(self._open):
            ends = [s for s in self._client.statuses(key[1], key[0]) if s["status"] in ENDED]
            if ends:
                task = self._open.pop(key)
                self._ends[key] = Counter(_text(status) for status in ends)
                await asyncio.to_thread(self._compare, key, task, ends[0])
        return len(self._open)

    def _compare(self, key: tuple[str, str], task: steps.Task, status: dict[str, Any]) -> None:
        self.counts[f"tasks.{status['status']}"] += 1
        where = f"{key} {task.content}"
        if status["status"] == "cancelled":
            return
        partition = self._partition(task.account)
        if status["status"] == "failed":
            self._compare_failed(key, task, status)
            return
        as_of = status["as_of"]
        if as_of["next_offset"] < self._known_at[key]:
            detail = f"as_of {as_of}, but {self._known_at[key]} were acknowledged before the task"
            self._differ("barrier", where, detail)
        try:
            archive = read_archive(archive_file(status), status)
        except (AssertionError, OSError) as error:
            self._differ("archive", where, repr(error))
            return
        model = self._truth.model(task.account, partition, as_of["next_offset"])
        self.differences += compare_archive(archive, model, task.account, task.content, where)
        self.counts["archives_compared"] += 1
        self.counts["objects_compared"] += len(archive.ids)
        archive.path.unlink()

    def _compare_failed(self, key: tuple[str, str], task: steps.Task, status: dict[str, Any]) -> None:
        """Only an empty selection may fail. Its status has no as_of, so any point since may have been it."""
        where = f"{key} {task.content}"
        partition = self._partition(task.account)
        space = space_of(task.account, task.content)
        last = len(self._truth.logs[partition])
        model = self._truth.model
        points = range(self._known_at[key], last + 1)
        is_empty = any(not selected(model(task.account, partition, at), space, task.content) for at in points)
        if status["error"]["code"] != "empty_selection" or not is_empty:
            self._differ("failed", where, f"{status['error']}")

    async def _finish(self) -> None:
        """Stop all workers; then topics and state are as the model has them, and no task ended again."""
        await self._caught_up()
        for slot in list(self._workers):
            await self._end_worker(slot, "leaves")
        self.counts["rebalances"] = sum(log.read_text().count('"partitions_assigned"') for log in self._logs)
        for key, before in self._ends.items():
            ends = [s for s in self._client.statuses(key[1], key[0]) if s["status"] in ENDED]
            if len(ends) > 1:
                self.counts["tasks_ended_again"] += 1
                self._differ("ends", f"{key}", f"{[_text(end) for end in ends]}, of them then {before}")
        await self._compare_log()
        await self._compare_dead_letters()
        held = [
            await asyncio.to_thread(self._compare_state, path)
            for path in sorted(self._folder.glob("worker-*/state/partition-*.sqlite"))
        ]
        self.counts["states_compared"] = len(held)

    async def _caught_up(self) -> None:
        """Wait until the state of every partition has some worker that has applied the whole log."""

        def next_offset(path: Path) -> int:
            with PartitionView(path) as view:
                return view.next_offset()

        def is_there() -> bool:
            self._check_workers()
            for partition, log in enumerate(self._truth.logs):
                paths = [
                    database_path(self._folder / f"worker-{slot}" / "state", partition)
                    for slot in self._workers
                ]
                if max((next_offset(path) for path in paths if path.exists()), default=0) < len(log):
                    return False
            return True

        try:
            await kafka.eventually(is_there, SETTLE_S, "every record to be applied")
        except AssertionError as error:
            self._differ("state", "at the end", str(error))

    async def _compare_log(self) -> None:
        """The log is what was acknowledged, so the model has seen what the service has."""
        records = await kafka.read_topic(
            self._broker.bootstrap_servers, self._topics.events, timeout_s=SETTLE_S
        )
        found = {(record.partition, record.offset): record.value for record in records}
        sent = {
            (partition, offset): each.value
            for partition, log in enumerate(self._truth.logs)
            for offset, each in log.items()
        }
        assert found == sent, "the log of the broker is not what was acknowledged: the soak itself is wrong"

    async def _compare_dead_letters(self) -> None:
        """Every bad record at least once, byte for byte with its reason, and no other."""
        letters = await kafka.read_topic(
            self._broker.bootstrap_servers, self._topics.dead_letters, timeout_s=SETTLE_S
        )
        found = set()
        for letter in letters:
            headers = {name: value.decode() for name, value in letter.headers}
            place = int(headers["source-partition"]), int(headers["source-offset"])
            found.add((*place, headers["reason"], letter.value))
        wanted = {
            (partition, offset, sent.reason, sent.value)
            for partition, log in enumerate(self._truth.logs)
            for offset, sent in log.items()
            if sent.message is None
        }
        self.counts["dead_letters"] = len(letters)
        if found != wanted:
            detail = f"{len(wanted - found)} missing, {len(found - wanted)} not expected"
            self._differ("dead letters", "at the end", detail)

    def _compare_state(self, path: Path) -> int:
        """A database holds the model's objects and counters at its own next_offset. Objects that it holds."""
        with PartitionView(path) as view:
            partition, next_offset = int(view.meta["partition"]), view.next_offset()
            counted = Counter(view.counters())
            wanted = self._truth.counters(partition, next_offset)
            where = f"{path.parent.parent.name}, partition {partition}, next_offset {next_offset}"
            if +counted != +wanted:
                self._differ("counters", where, f"{dict(counted)} found, {dict(wanted)} expected")
            held = 0
            for space in view.spaces():
                sql = "SELECT object_id FROM objects WHERE space_id = ?"
                found = [object_id for (object_id,) in view.query(sql, (space.space_id,))]
                model = self._truth.model(space.key.account_id, partition, next_offset)
                objects = set(model.spaces.get(space.key, {}))
                lost = len(objects - set(found))
                extra = len(set(found) - objects) + len(found) - len(set(found))
                if lost or extra:
                    self._differ("state", f"{where}, {space.key}", f"{lost} lost, {extra} extra", lost, extra)
                held += len(found)
        self.counts["state_objects_compared"] += held
        return held

    def _partition(self, account: str) -> int:
        return partition_for(account, PARTITIONS, "murmur2")

    def _differ(self, what: str, where: str, detail: str, lost: int = 0, duplicated: int = 0) -> None:
        self.differences.append(Difference(what, where, detail, lost, duplicated))
        self._tell(f"DIFFERENCE: {what}: {where}: {detail}")


def _text(status: dict[str, Any]) -> str:
    return f"{status['status']} {status['time']} {status['error']}"

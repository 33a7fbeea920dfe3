"""Killed at any moment and started again, the service answers as if nothing had happened."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from stream_cluster.errors import StateError
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox import Broker
from stream_cluster.state.database import database_path
from stream_cluster.state.view import PartitionView
from tests.faults.record import Row
from tests.support.archives import read_archive
from tests.support.client import Client, archive_file, client_of, clustering
from tests.support.faces import face_messages, faces_folder
from tests.support.service import ServiceProcess, Topics, make_topics, overrides_of

KILLS = 20
BATCH_RECORDS = 32
SEED = 20260501


def _messages() -> tuple[str, list[bytes]]:
    """(account, messages): the real faces where they are, else as many generated ones."""
    if (folder := faces_folder()) is not None:
        return "lfw", face_messages(folder)
    options = GenerateOptions(events=6000, people=2500, dim=128, accounts=("lfw",))
    return "lfw", [record.value for record in generate_events(options)]


def _overrides(
    broker: Broker, topics: Topics, folder: Path, *, group: str, tasks_topic: str
) -> dict[str, object]:
    changes = {"ingest__batch_max_records": BATCH_RECORDS, "ingest__buffer_max_records": BATCH_RECORDS * 8}
    return {
        **overrides_of(broker, topics, folder, **changes),
        # A member that was killed stays in its group until its session ends; nothing is read from the group,
        # so a new one each time saves the wait.
        "kafka.group_id": group,
        "kafka.tasks_topic": tasks_topic,
        "log.level": "debug",
    }


def _next_offset(folder: Path) -> int:
    path = database_path(folder / "state", 0)
    if not path.exists():
        return 0
    try:
        with PartitionView(path) as view:
            return view.next_offset()
    except StateError as error:
        # Killed before the new database was committed: the next start makes it.
        if "no state yet" in str(error):
            return 0
        raise


def _live_and_be_killed(process: ServiceProcess, moment: random.Random) -> None:
    """Kill during start, or at any time during the first batches."""
    if moment.random() < 0.2:
        process.wait_for("service_starting")
        time.sleep(moment.uniform(0, 0.5))
    else:
        process.wait_for("batch_applied" if moment.random() < 0.8 else "partition_opened")
        time.sleep(moment.uniform(0, 0.12))
    process.kill()


async def _archive_bytes(client: Client, account: str, overrides: dict[str, object], log: Path) -> bytes:
    """Let the service finish its work and the task, and return the archive."""
    task = clustering(
        "after-the-kills", account, threshold=0.52, report={"columns": ["create_time", "source"]}
    )
    with ServiceProcess(overrides, log) as process:
        await client.submit(task)
        status = await client.ended("after-the-kills", account, timeout_s=60)
        assert status["status"] == "done", (status, process.log()[-2000:])
        process.terminate()
        assert process.wait(10)[0] == 0
    read_archive(archive_file(status), status)
    return archive_file(status).read_bytes()


@pytest.mark.fault(
    what="SIGKILL at twenty random moments of start and ingest, one after another",
    survives="everything: the archive has the bytes of an uninterrupted run",
    seen="as with any SIGKILL",
)
@pytest.mark.timeout(400)
async def test_twenty_kills_during_ingest_leave_the_archive_of_an_uninterrupted_run(
    broker: Broker, tmp_path: Path, row: Row
) -> None:
    print(f"seed {SEED}")
    moment = random.Random(SEED)
    account, values = _messages()
    topics = await make_topics(broker, "sigkill")
    # The two runs answer in different topics, so that each client sees its own.
    others = await make_topics(broker, "sigkill-uninterrupted")
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for folder in (killed, whole):
        folder.mkdir()
    async with client_of(broker, topics) as client:
        # A part of the stream for each life, so that no machine is done before the last kill.
        parts = [values[number :: KILLS + 1] for number in range(KILLS + 1)]
        there, seen = 0, [0]
        unfinished = 0
        for kill, part in enumerate(parts[:KILLS]):
            await client.produce_lines(account, part)
            there += len(part)
            overrides = _overrides(
                broker, topics, killed, group=f"{topics.events}-{kill}", tasks_topic=topics.tasks
            )
            with ServiceProcess(overrides, killed / f"{kill}.log") as process:
                _live_and_be_killed(process, moment)
            seen.append(_next_offset(killed))
            unfinished += seen[-1] < there
        print(f"next_offset after each kill: {seen}; {unfinished} of {KILLS} fell into ingest")
        assert seen == sorted(seen), "a kill took back what was durable"
        assert unfinished >= KILLS // 5, "the kills did not fall into ingest"
        await client.produce_lines(account, parts[KILLS])
        overrides = _overrides(broker, topics, killed, group=topics.events, tasks_topic=topics.tasks)
        began = time.monotonic()
        after_kills = await _archive_bytes(client, account, overrides, killed / "last.log")
        row.ready(began)
        row.count(kills=KILLS)
        status = await client.ended("after-the-kills", account)
        archive = read_archive(archive_file(status), status)
    async with client_of(broker, others) as client:
        overrides = {
            **_overrides(broker, topics, whole, group=others.events, tasks_topic=others.tasks),
            "kafka.results_topic": others.results,
        }
        uninterrupted = await _archive_bytes(client, account, overrides, whole / "whole.log")
        status = await client.ended("after-the-kills", account)
        expected = read_archive(archive_file(status), status).members
    assert _next_offset(killed) == _next_offset(whole) == len(values)
    assert after_kills == uninterrupted
    row.check(archive, expected)

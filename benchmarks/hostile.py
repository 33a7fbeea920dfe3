"""Input that is meant to hurt: equal descriptors, and rejections in a row.

    python -m benchmarks.hostile [--only KIND] [--identical 1000000] [--rejections 1000000] [--write FILE]

`identical` is one account whose objects all have the same descriptor, through a partition; then its first
object, to which the forest links all others, is deleted. `rejections` are records as they come from the
topic, none of them good: the generator's faults in turn, through a partition. Memory is what the process has
grown by.

`dead letters` are as many such records through a real broker and the service, a process of its own: the time
from the first send until the last is committed, its dead letter acknowledged before, and the memory of the
service.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from rich.console import Console

from benchmarks.deletes import make_partition
from benchmarks.environment import environment
from benchmarks.process import peak_memory_bytes, resident_memory_bytes
from benchmarks.report import write_report
from benchmarks.service_probe import read_commits
from benchmarks.service_run import create_topic, events_topic, send_events, start_service
from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.messages import Descriptor, Metadata, ObjectMessage, RawRecord
from stream_cluster.sandbox import Broker, start_broker

_BATCH = 1024
_TIME_US = 1_777_000_000_000_000
_DEADLINE_S = 1500.0
_LIMIT_BYTES = 8_192
"""Of a message to the service; larger ones are among the faults."""


def identical(folder: Path, count: int, dim: int) -> dict[str, Any]:
    """`count` objects with one descriptor, and the deletion of the first."""
    vector = np.random.default_rng(1).standard_normal(dim).astype(np.float32)
    partition = make_partition(folder)
    before, peak_before = resident_memory_bytes(), peak_memory_bytes()
    seconds: list[float] = []
    resident: list[int] = []
    while partition.next_offset < count:
        first = partition.next_offset
        messages = [_object(number, vector) for number in range(first, min(count, first + _BATCH))]
        began = time.perf_counter()
        partition.commit(partition.prepare_decoded(messages, first + len(messages)))
        seconds.append(time.perf_counter() - began)
        resident.append(resident_memory_bytes() - before)
    grown, peak = resident_memory_bytes() - before, peak_memory_bytes() - peak_before
    with partition.view() as view:
        (space,) = view.spaces()
        merged, pending = view.link_counts(space.space_id)
    deletion = ObjectMessage(
        account_id="demo",
        object_type="event",
        action="delete",
        object_ids=("object-000000000",),
        metadata=Metadata(),
        descriptors=(),
    )
    began = time.perf_counter()
    partition.commit(partition.prepare_decoded([deletion], partition.next_offset + 1))
    delete_s = time.perf_counter() - began
    with partition.view() as view:
        left = len(view.links(space.space_id, 0.5))
    partition.close()
    return {
        "objects": count,
        "objects_per_s": round(count / sum(seconds)),
        "batch_ms_p50": round(float(np.median(seconds)) * 1000, 1),
        "batch_ms_first_tenth": _mean_ms(seconds[: len(seconds) // 10]),
        "batch_ms_last_tenth": _mean_ms(seconds[-(len(seconds) // 10) :]),
        "batch_ms_max": round(max(seconds) * 1000, 1),
        "links_kept": merged + pending,
        "links_seen": space.links_seen,
        "memory_mb": round(grown / 1e6, 1),
        "memory_bytes_per_object_first_half": round(resident[len(resident) // 2] / (count / 2)),
        "memory_bytes_per_object": round(grown / count),
        "peak_memory_mb": round(peak / 1e6, 1),
        "delete_of_the_first_s": round(delete_s, 2),
        "links_kept_after_it": left,
    }


def _mean_ms(seconds: list[float]) -> float:
    return round(float(np.mean(seconds)) * 1000, 1) if seconds else 0.0


def _object(number: int, vector: np.ndarray[Any, np.dtype[np.float32]]) -> ObjectMessage:
    return ObjectMessage(
        account_id="demo",
        object_type="event",
        action="upsert",
        object_ids=(f"object-{number:09}",),
        metadata=Metadata(create_time_us=_TIME_US + number),
        descriptors=(Descriptor("face", 1, vector),),
    )


def _bad_values(too_large_bytes: int) -> list[bytes]:
    options = GenerateOptions(events=4000, dim=64, bad_share=1.0, too_large_bytes=too_large_bytes)
    # One partition has no wrong one, and one of a wrong dimension has nothing to differ from.
    faults = ("wrong_partition", "wrong_dimension", None)
    return [record.value for record in generate_events(options) if record.expected_reason not in faults]


def rejections(folder: Path, count: int) -> dict[str, Any]:
    """`count` bad records in a row."""
    partition = make_partition(folder, max_message_bytes=20_000)
    values = itertools.cycle(_bad_values(20_000))
    seconds, memory = 0.0, []
    rejected = 0
    while partition.next_offset < count:
        first = partition.next_offset
        batch = [
            RawRecord("events", 0, first + number, 0, b"demo", value, None)
            for number, value in enumerate(itertools.islice(values, min(_BATCH, count - first)))
        ]
        began = time.perf_counter()
        prepared = partition.prepare(batch, first + len(batch))
        rejected += len(prepared.rejections)
        partition.commit(prepared)
        seconds += time.perf_counter() - began
        memory.append(resident_memory_bytes())
    partition.close()
    tenth = len(memory) // 10
    return {
        "records": count,
        "rejected": rejected,
        "records_per_s": round(count / seconds),
        "memory_mb_after_a_tenth": round(memory[tenth] / 1e6, 1),
        "memory_mb_at_the_end": round(memory[-1] / 1e6, 1),
    }


def dead_letters(folder: Path, count: int, broker: Broker) -> dict[str, Any]:
    """`count` bad records in a row through a broker and the service.

    Raises:
        SystemExit: the service ended, or did not come to the end in time.
    """
    name = "hostile"
    values = itertools.islice(itertools.cycle(_bad_values(2 * _LIMIT_BYTES)), count)
    events = [(b"demo", value) for value in values]
    create_topic(broker, events_topic(name))
    measured, notes = start_service(
        broker, folder, name, {"KAFKA__MAX_MESSAGE_BYTES": str(_LIMIT_BYTES), "STATE__PAGE_CACHE_MB": "8"}
    )
    process = measured.process
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 5, "acks": "all"})
    memory: list[tuple[int, int]] = []
    try:
        sending = threading.Thread(target=send_events, args=(producer, events_topic(name), events, None))
        began = time.time()
        sending.start()
        done = 0
        while done < count:
            time.sleep(1)
            if process.poll() is not None or time.time() - began > _DEADLINE_S:
                raise SystemExit(f"{done} of {count} records after {time.time() - began:.0f} s")
            commits = read_commits(notes)
            done = commits[-1].next_offset if commits else 0
            memory.append((done, resident_memory_bytes(process.pid)))
        sending.join()
        seconds = commits[-1].time_s - began
    finally:
        process.send_signal(signal.SIGTERM)
        usage = measured.wait()
    if usage.returncode != 0:
        raise SystemExit(f"the service ended with status {usage.returncode}")
    return {
        "records": count,
        "dead_letters": _messages(broker, f"{name}-dead-letter"),
        "seconds": round(seconds, 1),
        "records_per_s": round(count / seconds),
        "memory_mb_after_a_tenth": round(next(held for at, held in memory if at >= count / 10) / 1e6, 1),
        "memory_mb_at_the_end": round(memory[-1][1] / 1e6, 1),
        "peak_memory_mb": round(usage.peak_memory_bytes / 1e6, 1),
        "cpu_s": usage.cpu_s,
    }


def _messages(broker: Broker, topic: str) -> int:
    """Committed records in a topic; the markers of transactions have offsets too, so they are read."""
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": "count", "enable.partition.eof": True}
    )
    numbers = consumer.list_topics(topic, timeout=60).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in numbers])
    count = ended = 0
    while ended < len(numbers):
        message = consumer.poll(60)
        if message is None:
            raise SystemExit(f"{topic}: no answer for a minute after {count} records")
        error = message.error()
        if error is None:
            count += 1
        elif error.code() == KafkaError._PARTITION_EOF:
            ended += 1
        else:
            raise SystemExit(f"{topic}: {error}")
    consumer.close()
    return count


KINDS = ("rejections", "identical", "dead letters")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hostile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=KINDS, action="append", help="one of the kinds; else all of them")
    parser.add_argument("--note", help="what a reader of the result should know of the machine")
    parser.add_argument("--identical", type=int, default=1_000_000)
    parser.add_argument("--rejections", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--write", type=Path, help="result as JSON")
    options = parser.parse_args()
    measured_on = environment()
    parameters = {"dim": options.dim} | ({} if options.note is None else {"note": options.note})
    for kind in options.only or KINDS:
        with tempfile.TemporaryDirectory(prefix="stream-cluster-hostile-") as name:
            if kind == "rejections":
                found = rejections(Path(name), options.rejections)
            elif kind == "identical":
                found = identical(Path(name), options.identical, options.dim)
            else:
                with start_broker() as broker:
                    found = dead_letters(Path(name), options.rejections, broker)
        Console().print({kind: found})
        write_report(
            options.write,
            "hostile",
            "make bench-hostile",
            parameters=parameters,
            environment=measured_on,
            results={kind: found},
            keep=options.only is not None or kind != KINDS[0],
        )


if __name__ == "__main__":
    main()

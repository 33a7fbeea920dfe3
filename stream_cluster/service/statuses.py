"""Task statuses on the results topic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stream_cluster.faults import fault_point
from stream_cluster.messages import TaskStatus, encode_status, format_time
from stream_cluster.service.clock import now_ms, now_us
from stream_cluster.service.outputs import Outputs
from stream_cluster.state.tasks import TaskState

_HEADERS = [("content-type", b"application/json")]


def now_text() -> str:
    """The present as statuses carry it."""
    return format_time(now_us() // 1000 * 1000)


def make_status(account_id: str, task_id: str, status: TaskState, progress: float, **more: Any) -> TaskStatus:
    """A status as of now; `more` are its other fields."""
    return TaskStatus(
        task_id=task_id, account_id=account_id, status=status, progress=progress, time=now_text(), **more
    )


class Statuses:
    """Writes statuses, keyed by account like every topic, and waits until the brokers have them."""

    def __init__(self, topic: str, on_sent: Callable[[TaskStatus], None] = lambda _: None) -> None:
        """`on_sent` is told of each status that the brokers have."""
        self._on_sent = on_sent
        self._topic = topic

    async def send(
        self, status: TaskStatus, outputs: Outputs, *, give_up: Callable[[], bool] = lambda: False
    ) -> None:
        """Return when the status is durable; while the brokers do not answer, try again until `give_up`.

        `outputs` are those of the partition of its account.

        Raises:
            BrokerUnavailable: gave up.
            Cancelled: the partition is no longer ours.
        """
        value, key = encode_status(status), status.account_id.encode()
        fault_point("status_produce")
        await outputs.write(
            lambda producer: producer.send_and_wait(
                self._topic, value, key=key, headers=_HEADERS, timestamp_ms=now_ms()
            ),
            self._topic,
            give_up=give_up,
        )
        self._on_sent(status)

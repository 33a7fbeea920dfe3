"""The network between worker and broker: cut, silent, slow. Session time-outs are of seconds, so that
minutes need not pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_cluster.sandbox import LocalBroker, start_local_broker
from stream_cluster.sandbox.broker import BrokerOptions, RouteClosed
from tests.conftest import no_broker
from tests.faults.record import Row
from tests.faults.stream import RECOVERY_S, SHORT_SESSION
from tests.faults.workers import answered, caught_up, generated, is_answered, now, rebalances
from tests.support.client import client_of, clustering
from tests.support.kafka import eventually
from tests.support.proxy import Proxy
from tests.support.service import Worker, make_topics, running_service
from tests.support.topics import group_is_left

LISTENER = "PROXIED"
HALF = 400


@pytest.fixture(scope="module")
def broker_behind_proxy() -> Iterator[tuple[LocalBroker, Proxy]]:
    """A broker with a second listener that clients reach through a proxy only."""
    with Proxy() as proxy:
        options = BrokerOptions(extra_listeners={LISTENER: "PLAINTEXT"}, advertised={LISTENER: proxy.address})
        try:
            broker = start_local_broker(options, lambda _: None)
        except RouteClosed as reason:
            no_broker(reason)
            return
        with broker:
            proxy.point_at(broker.addresses(LISTENER))
            yield broker, proxy


@pytest.fixture
def network(broker_behind_proxy: tuple[LocalBroker, Proxy]) -> Iterator[tuple[LocalBroker, Proxy]]:
    """The same, with a good network at the beginning."""
    broker, proxy = broker_behind_proxy
    proxy.mend()
    yield broker, proxy
    proxy.mend()


def _changes(proxy: Proxy, **more: Any) -> dict[str, Any]:
    return {
        **SHORT_SESSION,
        "kafka__bootstrap_servers": proxy.address,
        "kafka__request_timeout_ms": 4000,
        "http__ready_max_lag_records": 0,
        **more,
    }


@pytest.mark.fault(
    what="the network between worker and broker is cut for seconds, with a task under way",
    survives="everything; the clients connect again by themselves",
    seen="`not_acknowledged` or `not_answered` while it lasts, `/readyz` still answers",
    short=True,
)
async def test_a_cut_network_is_waited_for(
    network: tuple[LocalBroker, Proxy], tmp_path: Path, row: Row
) -> None:
    broker, proxy = network
    records = generated(2 * HALF)
    topics = await make_topics(broker, "cut")
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, **_changes(proxy)) as worker,
    ):
        await client.produce(records[:HALF])
        await worker.applied(HALF)
        proxy.cut()
        await client.produce(records[HALF:])
        await client.submit(clustering("sent meanwhile", threshold=0.55))
        connections = proxy.connections
        await worker.until(lambda: proxy.connections >= connections + 5, RECOVERY_S, "attempts to connect")
        assert sum(worker.records().values()) == HALF
        proxy.mend()
        await caught_up(worker, row, len(records), now())
        await is_answered(client, records, row, "sent meanwhile")
        row.count(rebalances=rebalances(worker))


@pytest.mark.fault(
    what="the network is silent for longer than the session time-out: connections stay open and nothing "
    "comes through",
    survives="everything; the group gives the worker up, and it joins again",
    seen="`/readyz` fails with `joining the consumer group` or a lag; `stream_cluster_rebalances_total` "
    "afterwards",
)
async def test_a_silence_beyond_the_session_ends_in_a_new_membership(
    network: tuple[LocalBroker, Proxy], tmp_path: Path, row: Row
) -> None:
    broker, proxy = network
    records = generated(2 * HALF)
    topics = await make_topics(broker, "silence")
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, **_changes(proxy)) as worker,
    ):
        await client.produce(records[:HALF])
        await worker.applied(HALF)
        proxy.silence()
        await client.produce(records[HALF:])
        await group_is_left(broker.bootstrap_servers, topics.events)
        proxy.mend()
        await caught_up(worker, row, len(records), now())
        await worker.until(lambda: rebalances(worker) >= 1, RECOVERY_S, "a rebalance")
        await answered(client, records, row, "after the silence")
        row.count(rebalances=rebalances(worker))


@pytest.mark.fault(
    what="a slow broker: every packet 50 ms late, and 256 KiB a second",
    survives="everything; ingest goes as fast as the network, nobody is thrown out of the group",
    seen="`stream_cluster_lag_records` rises, `stream_cluster_rebalances_total` does not",
)
async def test_a_slow_broker_slows_ingest_and_nothing_else(
    network: tuple[LocalBroker, Proxy], tmp_path: Path, row: Row
) -> None:
    broker, proxy = network
    records = generated(2 * HALF)
    topics = await make_topics(broker, "slow")
    changes = _changes(proxy, kafka__session_timeout_ms=6000, kafka__request_timeout_ms=20_000)
    async with (
        client_of(broker, topics) as client,
        running_service(broker, topics, tmp_path, **changes) as worker,
    ):
        proxy.slow(0.05, 256 * 1024)
        await client.produce(records)
        began = now()
        await _has_lag(worker)
        await caught_up(worker, row, len(records), began)
        await answered(client, records, row, "slowly")
        assert rebalances(worker) == 0


async def _has_lag(worker: Worker) -> None:
    async def lag() -> bool:
        await worker.get("/metrics")
        return worker.sample("lag_records", partition="0") > 0

    await eventually(lag, RECOVERY_S, "a lag")

"""Kafka clients made from the settings, and the topics they need."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.abc import AbstractTokenProvider, ConsumerRebalanceListener
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    InconsistentGroupProtocolError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    TopicAlreadyExistsError,
    UnknownMemberIdError,
    UnknownTopicOrPartitionError,
    for_code,
)

from stream_cluster.config import Settings
from stream_cluster.config.settings import KafkaSettings
from stream_cluster.errors import BrokerUnavailable, ConfigError
from stream_cluster.service.logs import get_logger
from stream_cluster.service.trouble import trouble_of

_T = TypeVar("_T")
_RETRY_S = 0.5
_FETCH_WAIT_MS = 100
_MEMBER_S = 20.0
_log = get_logger(__name__)

Standing = Literal["owner", "given_up", "unknown"]
"""What the group says of a worker and a partition; unknown while it balances or does not answer."""


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """OAUTHBEARER tokens by the client-credentials grant (RFC 6749, section 4.4), renewed before they end."""

    def __init__(self, settings: KafkaSettings) -> None:
        """`settings` name the token endpoint, the client and its secret."""
        self._settings = settings
        self._token = ""
        self._renew_at = 0.0

    async def token(self) -> str:
        """A token that is valid for at least half of its life time."""
        if time.monotonic() >= self._renew_at:
            await self._renew()
        return self._token

    async def _renew(self) -> None:
        form = {"grant_type": "client_credentials"}
        if self._settings.oauth_scope:
            form["scope"] = self._settings.oauth_scope
        auth = aiohttp.BasicAuth(
            self._settings.oauth_client_id or "", self._settings.oauth_client_secret or ""
        )
        url = self._settings.oauth_token_url or ""
        timeout = aiohttp.ClientTimeout(total=self._settings.request_timeout_ms / 1000)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=form, auth=auth) as response,
            ):
                response.raise_for_status()
                answer = await response.json()
                self._token = str(answer["access_token"])
        except (aiohttp.ClientError, TimeoutError, KeyError, ValueError) as error:
            raise BrokerUnavailable(f"kafka.oauth_token_url {url}: no token ({error!r})") from error
        self._renew_at = time.monotonic() + float(answer.get("expires_in", 300)) / 2


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes.

    Raises:
        ConfigError: a certificate or key file cannot be read.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "client_id": settings.client_id,
        "request_timeout_ms": settings.request_timeout_ms,
        "security_protocol": settings.security_protocol,
    }
    if settings.security_protocol in ("SSL", "SASL_SSL"):
        options["ssl_context"] = _ssl_context(settings)
    if settings.security_protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.sasl_mechanism
        if settings.sasl_mechanism == "OAUTHBEARER":
            options["sasl_oauth_token_provider"] = ClientCredentials(settings)
        else:
            options["sasl_plain_username"] = settings.sasl_username
            options["sasl_plain_password"] = settings.sasl_password
    return options


def _ssl_context(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file)
        context.check_hostname = settings.ssl_check_hostname
        if settings.ssl_cert_file:
            context.load_cert_chain(
                settings.ssl_cert_file, settings.ssl_key_file, password=settings.ssl_key_password
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"kafka.ssl_ca_file, ssl_cert_file or ssl_key_file cannot be used: {error}"
        ) from error
    return context


async def start_client(client: _T, settings: KafkaSettings) -> _T:
    """Start an aiokafka client, trying again until `connect_timeout_s` has passed.

    Raises:
        BrokerUnavailable: no broker answered in that time.
        ConfigError: the consumer group has members that place partitions in another way.
    """
    deadline = time.monotonic() + settings.connect_timeout_s
    told = False
    while True:
        try:
            await client.start()  # type: ignore[attr-defined]
        except InconsistentGroupProtocolError as error:
            raise foreign_members(settings) from error
        except (KafkaConnectionError, NodeNotReadyError, OSError) as error:
            if time.monotonic() >= deadline:
                await client.stop()  # type: ignore[attr-defined]
                trouble = await trouble_of(settings, connection_options(settings))
                raise BrokerUnavailable(
                    f"kafka.bootstrap_servers {settings.bootstrap_servers}: no broker answered within "
                    f"{settings.connect_timeout_s:g} s ({trouble})"
                ) from error
            if not told:
                _log.warning(
                    "broker_unavailable", bootstrap_servers=settings.bootstrap_servers, retrying=True
                )
                told = True
            await asyncio.sleep(_RETRY_S)
        else:
            return client


def foreign_members(settings: KafkaSettings) -> ConfigError:
    """Why the group cannot be joined, when the brokers say that its members have no protocol in common."""
    return ConfigError(
        f"kafka.group_id {settings.group_id}: the group has members that are no workers of this service, or "
        "of a release that placed partitions in another way; end them first"
    )


def make_consumer(settings: KafkaSettings, *, group: bool, **overrides: Any) -> AIOKafkaConsumer:
    """A consumer that never commits by itself: member of the group, or on its own."""
    options: dict[str, Any] = {
        **connection_options(settings),
        "group_id": settings.group_id if group else None,
        "enable_auto_commit": False,
        # Positions come from the state; a position that the log no longer has must be an error.
        "auto_offset_reset": "none" if group else "earliest",
        # A broker answers one connection's requests in order, so every question about offsets waits for the
        # fetch under way: at most this long when nothing arrives.
        "fetch_max_wait_ms": _FETCH_WAIT_MS,
        "fetch_max_bytes": settings.fetch_max_bytes,
        "max_partition_fetch_bytes": settings.max_partition_fetch_bytes,
        "session_timeout_ms": settings.session_timeout_ms,
        "heartbeat_interval_ms": settings.heartbeat_interval_ms,
        "isolation_level": "read_committed",
    }
    if group and settings.group_instance_id:
        options["group_instance_id"] = settings.group_instance_id
    return AIOKafkaConsumer(**{**options, **overrides})


def make_producer(settings: KafkaSettings, **overrides: Any) -> AIOKafkaProducer:
    """A producer whose acknowledged records are on all in-sync replicas, once each."""
    return AIOKafkaProducer(
        **connection_options(settings),
        acks="all",
        enable_idempotence=True,
        # A dead letter is its original and some headers, so room is left above the largest original.
        max_request_size=settings.max_message_bytes + 64 * 1024,
        **overrides,
    )


async def ensure_topics(
    settings: Settings,
    topics: Iterable[str],
    consumer: AIOKafkaConsumer,
    *,
    partitions: int | None = None,
    configs: Mapping[str, str] | None = None,
) -> None:
    """Check that topics exist; create absent ones when `kafka.create_topics` is set.

    They get `partitions`, else `kafka.partitions`, and the topic's own `configs`.

    Raises:
        ConfigError: a topic is absent and may not be, or cannot be, created.
        BrokerUnavailable: no broker answered.
    """
    kafka = settings.kafka
    # Asked of a consumer: the admin client needs a broker that offers its API, which a mock one does not.
    absent = sorted(set(topics) - set(await consumer.topics()))
    if not absent:
        return
    if not kafka.create_topics:
        raise ConfigError(
            f"topic {', '.join(absent)} does not exist on {kafka.bootstrap_servers}; "
            "create it, or set kafka.create_topics = true"
        )
    admin = await start_client(AIOKafkaAdminClient(**connection_options(kafka)), kafka)
    try:
        count = partitions or kafka.partitions
        wanted = [
            NewTopic(name, count, kafka.replication_factor, topic_configs=dict(configs or {}))
            for name in absent
        ]
        answer = await admin.create_topics(wanted)
    except KafkaError as error:
        raise BrokerUnavailable(f"cannot create topics: {error}") from error
    finally:
        await admin.close()
    for name, code, *detail in answer.topic_errors:
        kind = for_code(code)
        if code and kind is not TopicAlreadyExistsError:  # another worker may have been faster
            text = next((part for part in detail if part), "") or kind.description
            raise ConfigError(f"topic {name} cannot be created: {text}")
    _log.info("topics_created", topics=absent, partitions=count)


async def partition_count(producer: AIOKafkaProducer, topic: str, timeout_s: float) -> int:
    """Number of partitions of a topic; waits for metadata of a topic that was just created.

    Raises:
        ConfigError: the topic does not exist.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(UnknownTopicOrPartitionError, KafkaTimeoutError, TimeoutError):
            # It waits for an absent topic as long as for the answer to a request.
            async with asyncio.timeout(timeout_s):
                if partitions := await producer.partitions_for(topic):
                    return len(partitions)
        if time.monotonic() > deadline:
            raise ConfigError(f"topic {topic} does not exist")
        await asyncio.sleep(0.1)


async def until_acknowledged(
    send: Callable[[], Awaitable[object]], topic: str, give_up: Callable[[], bool]
) -> None:
    """Send, again and again while the brokers do not acknowledge, until `give_up` says so.

    What was sent more than once may be there more than once.

    Raises:
        BrokerUnavailable: gave up.
        MessageSizeTooLargeError: the topic does not take a message of that size.
    """
    while True:
        try:
            await send()
        except MessageSizeTooLargeError:
            raise
        except KafkaError as error:
            if give_up():
                raise BrokerUnavailable(f"topic {topic}: {error!r}") from error
            _log.warning("not_acknowledged", topic=topic, error=repr(error), retrying=True)
            await asyncio.sleep(_RETRY_S)
        else:
            return


async def until_answered(ask: Callable[[], Awaitable[_T]]) -> _T:
    """The answer of the brokers to a question that changes nothing, asked again while they do not answer."""
    while True:
        try:
            return await ask()
        except KafkaError as error:
            _log.warning("not_answered", error=repr(error), retrying=True)
            await asyncio.sleep(_RETRY_S)


class RebalanceListener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """Hands rebalances on. aiokafka logs and swallows what a listener raises, so `fail` is told of it."""

    def __init__(
        self,
        assigned: Callable[[set[TopicPartition]], Awaitable[None]],
        revoked: Callable[[set[TopicPartition]], Awaitable[None]],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._assigned = assigned
        self._revoked = revoked
        self._fail = fail

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """After a rebalance: the partitions that are ours now."""
        await self._guard(self._assigned(assigned))

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Before a rebalance: the partitions that were ours."""
        await self._guard(self._revoked(revoked))

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as error:
            self._fail(error)
            raise


def generation_of(consumer: AIOKafkaConsumer) -> int:
    """Of the consumer group as this member last joined it, one higher by each rebalance; 0 when in none."""
    coordinator = getattr(consumer, "_coordinator", None)
    return max(0, int(getattr(coordinator, "generation", 0)))


async def standing_in_group(
    consumer: AIOKafkaConsumer, partition: TopicPartition, next_offset: int, generation: int
) -> Standing:
    """Whether the group still has this consumer as the owner of the partition, as it had in `generation`.

    Asked by committing an offset: the brokers refuse that of whoever was given up meanwhile.
    """
    # A member that joins again may have another generation before its listener knows what that brings.
    if generation_of(consumer) != generation:
        return "unknown"
    try:
        async with asyncio.timeout(_MEMBER_S):
            await consumer.commit({partition: next_offset})
    except CommitFailedError as error:
        is_refused = isinstance(error.__cause__, UnknownMemberIdError | IllegalGenerationError)
        return "given_up" if is_refused else "unknown"
    except (KafkaError, ValueError, TimeoutError):
        return "unknown"
    return "owner" if generation_of(consumer) == generation else "unknown"


async def is_member(consumer: AIOKafkaConsumer, partition: TopicPartition, next_offset: int) -> bool:
    """Whether the group has this consumer as the owner of the partition, in its present generation."""
    generation = generation_of(consumer)
    return await standing_in_group(consumer, partition, next_offset, generation) == "owner"


async def high_watermarks(
    settings: KafkaSettings, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int]:
    """The offset after the last record of each partition, in a transaction that is still open too.

    Raises:
        BrokerUnavailable: no broker answered.
    """
    uncommitted = make_consumer(settings, group=False, isolation_level="read_uncommitted")
    consumer = await start_client(uncommitted, settings)
    try:
        ends = await until_answered(lambda: consumer.end_offsets(list(partitions)))
    finally:
        await consumer.stop()
    return {partition: int(end) for partition, end in ends.items()}

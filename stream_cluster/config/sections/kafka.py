"""The connection to Kafka."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from stream_cluster.config.sections.base import MIB, SECRET, Section

TopicName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]


class KafkaSettings(Section, frozen=True, kw_only=True):
    """The connection to Kafka, its topics, and the client's limits."""

    bootstrap_servers: Annotated[str, Meta(description="First brokers to ask, as host:port,host:port.")] = (
        "localhost:9092"
    )
    client_id: Annotated[str, Meta(min_length=1, description="Name of this client in the brokers' logs.")] = (
        "stream-cluster"
    )
    group_id: Annotated[
        str, Meta(min_length=1, description="Consumer group whose members share the partitions.")
    ] = "stream-cluster"
    group_instance_id: Annotated[
        Annotated[str, Meta(pattern="^[a-zA-Z0-9._-]{1,249}$")] | None,
        Meta(
            description="A name of this worker alone, the same after a restart: its partitions wait for it "
            "as long as session_timeout_ms."
        ),
    ] = None
    events_topic: Annotated[TopicName, Meta(description="Topic of objects with descriptors.")] = "events"
    tasks_topic: Annotated[TopicName, Meta(description="Topic of task requests.")] = "clustering-tasks"
    results_topic: Annotated[TopicName, Meta(description="Topic of task statuses.")] = "clustering-results"
    dead_letter_topic: Annotated[TopicName, Meta(description="Topic of rejected records.")] = (
        "events-dead-letter"
    )
    updates_topic: Annotated[
        TopicName,
        Meta(description="Topic of cluster updates, with as many partitions as the events topic."),
    ] = "cluster-updates"
    transactions: Annotated[
        bool,
        Meta(
            description="Write results, dead letters and updates in transactions, so that a worker that lost "
            "a partition can write nothing for it. Off: for brokers without transactions."
        ),
    ] = True
    create_topics: Annotated[bool, Meta(description="Create absent topics at start.")] = False
    partitions: Annotated[
        int, Meta(ge=1, le=100_000, description="Partitions of a topic created at start.")
    ] = 12
    replication_factor: Annotated[
        int, Meta(ge=1, le=100, description="Copies of a topic created at start.")
    ] = 3
    partitioner: Annotated[
        Literal["murmur2", "crc32"],
        Meta(
            description="How producers map a key to a partition: murmur2 (Java, aiokafka) or "
            "crc32 (librdkafka's `consistent`)."
        ),
    ] = "murmur2"
    security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        Meta(description="Encryption and authentication of the connection."),
    ] = "PLAINTEXT"
    sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None,
        Meta(description="How to authenticate when security_protocol is SASL_*."),
    ] = None
    sasl_username: Annotated[str | None, Meta(description="User of PLAIN and SCRAM.")] = None
    sasl_password: Annotated[
        str | None, Meta(description="Password of PLAIN and SCRAM; prefer sasl_password_file.", extra=SECRET)
    ] = None
    sasl_password_file: Annotated[str | None, Meta(description="File whose content is sasl_password.")] = None
    oauth_token_url: Annotated[
        str | None, Meta(description="Token endpoint of the client-credentials grant, for OAUTHBEARER.")
    ] = None
    oauth_client_id: Annotated[str | None, Meta(description="Client id for OAUTHBEARER.")] = None
    oauth_client_secret: Annotated[
        str | None,
        Meta(description="Client secret for OAUTHBEARER; prefer oauth_client_secret_file.", extra=SECRET),
    ] = None
    oauth_client_secret_file: Annotated[
        str | None, Meta(description="File whose content is oauth_client_secret.")
    ] = None
    oauth_scope: Annotated[str | None, Meta(description="Scope to ask of the token endpoint.")] = None
    ssl_ca_file: Annotated[
        str | None, Meta(description="PEM file of the authorities to trust; the system's when absent.")
    ] = None
    ssl_cert_file: Annotated[str | None, Meta(description="PEM file of the client certificate.")] = None
    ssl_key_file: Annotated[
        str | None, Meta(description="PEM file of the client key, when not in ssl_cert_file.")
    ] = None
    ssl_key_password: Annotated[str | None, Meta(description="Password of the client key.", extra=SECRET)] = (
        None
    )
    ssl_check_hostname: Annotated[
        bool, Meta(description="Require the broker's certificate to carry its host name.")
    ] = True
    session_timeout_ms: Annotated[
        int, Meta(ge=1_000, le=1_800_000, description="Silence after which the group gives a member up.")
    ] = 45_000
    heartbeat_interval_ms: Annotated[
        int,
        Meta(
            ge=100,
            le=600_000,
            description="Pause between heartbeats; at most a third of the session timeout.",
        ),
    ] = 3_000
    request_timeout_ms: Annotated[
        int, Meta(ge=1_000, le=600_000, description="Wait for the answer to one request.")
    ] = 40_000
    fetch_max_bytes: Annotated[
        int, Meta(ge=1_024, le=2**31 - 1, description="Most bytes of one fetch response.")
    ] = 50 * MIB
    max_partition_fetch_bytes: Annotated[
        int, Meta(ge=1_024, le=2**31 - 1, description="Most bytes of one partition in a fetch response.")
    ] = 4 * MIB
    connect_timeout_s: Annotated[
        float, Meta(gt=0, le=86_400, description="How long start-up waits for the first broker to answer.")
    ] = 30.0
    max_message_bytes: Annotated[
        int, Meta(ge=1_024, le=2**30, description="A larger record value is rejected as too_large.")
    ] = 10 * MIB

"""Every setting with its type, range, default and one-line description; the only place they are written.

The description, range and default of a field make the documentation table, the messages of a bad value, and
the output of `check-config`. A secret is marked in `Meta.extra` and is masked wherever settings are shown.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from stream_cluster.config.image_roots import ImageRoot
from stream_cluster.config.similarity import SimilaritySettings
from stream_cluster.model import DescriptorType

TopicName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
SECRET = {"secret": True}
MIB = 1024 * 1024


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections."""


class KafkaSettings(_Section, frozen=True, kw_only=True):
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


class IngestSettings(_Section, frozen=True, kw_only=True):
    """Micro-batching of objects, and how their descriptors are read."""

    batch_max_records: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Most records of one micro-batch.")
    ] = 1024
    linger_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="How long a batch that is not full waits for more records.")
    ] = 20
    buffer_max_records: Annotated[
        int, Meta(ge=1, le=10_000_000, description="Waiting records of a partition above which it is paused.")
    ] = 4096
    uint8_offset: Annotated[
        int, Meta(ge=0, le=255, description="Subtracted from each value of uint8 and sdk descriptors.")
    ] = 128


class DescriptorVersion(_Section, frozen=True, kw_only=True):
    """Descriptor version of a task that names none."""

    face: Annotated[
        Annotated[int, Meta(ge=0, le=2**32 - 1)] | None,
        Meta(description="Version of a face task that names none; when absent the newest with objects."),
    ] = None
    body: Annotated[
        Annotated[int, Meta(ge=0, le=2**32 - 1)] | None,
        Meta(description="Version of a body task that names none; when absent the newest with objects."),
    ] = None


class MatchingSettings(_Section, frozen=True, kw_only=True):
    """How links are found."""

    engine: Annotated[
        Literal["auto", "exact", "cells", "hnsw"],
        Meta(description="Matcher of a space; auto is exact until another is faster on this machine."),
    ] = "auto"
    descriptor_version: DescriptorVersion = DescriptorVersion()
    # Exact matching was faster at every size of benchmarks/results/crossover.json, 200,000 at most. Its time
    # grows with the rows, that of HNSW hardly: they would meet at about 1.2 million, where HNSW misses links
    # and needs six times the memory, so auto leaves a wide margin.
    hnsw_after: Annotated[
        int, Meta(ge=1, description="Objects of a space below which auto never uses hnsw.")
    ] = 2_000_000
    # Above it, auto takes what costs least on this machine (`matching.costs`). Below, exact matching keeps up
    # with thousands of events a second on slow machines too, and misses nothing.
    cells_after: Annotated[
        int, Meta(ge=1, description="Objects of a space below which auto never uses cells.")
    ] = 200_000
    target_recall: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of the links above the default threshold that cells have to find.",
        ),
    ] = 0.995
    cells_budget_share: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Share of a space that a query should be compared with at most; more is reported.",
        ),
    ] = 0.05
    cells_sample_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Comparisons of cells to measure recall / those to find links."),
    ] = 0.1
    rematch_engine: Annotated[
        Literal["auto", "exact", "cells"],
        Meta(
            description="How selections are matched again; auto is exact unless that takes rematch_exact_s."
        ),
    ] = "auto"
    rematch_exact_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Seconds of exact matching above which a re-match uses cells."),
    ] = 120.0
    second_chance_share: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="Share of the time that goes into finding links that cells missed; none of it where "
            "cluster updates are told.",
        ),
    ] = 0.1
    map_codes: Annotated[
        bool,
        Meta(
            description="Whether codes in cells lie in a mapped file of the state directory, not in memory."
        ),
    ] = False
    hnsw_m: Annotated[int, Meta(ge=2, le=128, description="Links per node of the HNSW graph.")] = 16
    hnsw_ef_construction: Annotated[
        int, Meta(ge=2, le=10_000, description="Candidates kept while a node is inserted.")
    ] = 200
    hnsw_ef_search: Annotated[
        int, Meta(ge=1, le=100_000, description="Least candidates kept in a search.")
    ] = 64
    recall_sample_share: Annotated[
        float,
        Meta(ge=0, le=1, description="Share of new objects of HNSW spaces that are matched exactly too."),
    ] = 0.01
    threads: Annotated[int, Meta(ge=0, le=1024, description="Threads of the matchers; 0 uses all cores.")] = 0


class StateSettings(_Section, frozen=True, kw_only=True):
    """The durable state."""

    directory: Annotated[
        str, Meta(min_length=1, description="Directory of the databases; one process at a time.")
    ] = "./state"
    synchronous: Annotated[
        Literal["full", "normal"],
        Meta(description="full survives a power cut; normal may lose the last batches, never consistency."),
    ] = "full"
    page_cache_mb: Annotated[
        int, Meta(ge=1, le=65_536, description="SQLite's page cache per database, in MiB.")
    ] = 16
    vacuum_interval_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="Least pause between two rewrites of a database after deletions; 0 never rewrites.",
        ),
    ] = 86_400.0


_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
Age = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,5}[smhdw]$")]


class RetentionSettings(_Section, frozen=True, kw_only=True):
    """How long objects are kept."""

    face: Annotated[
        Age | None,
        Meta(description="Age, such as 90d, at which faces are deleted; else they are kept."),
    ] = None
    body: Annotated[
        Age | None,
        Meta(description="Age, such as 90d, at which bodies are deleted; else they are kept."),
    ] = None
    interval_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Pause between two searches for objects past their age.")
    ] = 60.0

    @property
    def ages_us(self) -> dict[DescriptorType, int]:
        """Greatest age in microseconds by descriptor type; types that are kept are not in it."""
        texts: dict[DescriptorType, str | None] = {"face": self.face, "body": self.body}
        return {
            descriptor_type: int(text[:-1]) * _UNITS_S[text[-1]] * 1_000_000
            for descriptor_type, text in texts.items()
            if text is not None
        }


class UpdateSettings(_Section, frozen=True, kw_only=True):
    """Cluster updates: what each new object does to the clusters at the default threshold."""

    enabled: Annotated[bool, Meta(description="Produce cluster updates to kafka.updates_topic.")] = False
    outbox_max_messages: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000_000,
            description="Updates of a partition that wait for the brokers, at which its ingest waits too.",
        ),
    ] = 100_000


class TaskSettings(_Section, frozen=True, kw_only=True):
    """How tasks run."""

    concurrency: Annotated[int, Meta(ge=1, le=256, description="Tasks that run at the same time.")] = 1
    progress_interval_s: Annotated[
        float, Meta(gt=0, le=3_600, description="Least pause between two progress messages of a task.")
    ] = 1.0
    default_deadline_s: Annotated[
        float, Meta(gt=0, le=31_536_000, description="Deadline of a task that names none.")
    ] = 3600.0
    history_s: Annotated[
        int,
        Meta(
            ge=60,
            le=315_360_000,
            description="How long a task is remembered after its end when it has no archive (any more); "
            "until then its id is not used again.",
        ),
    ] = 2_592_000


class S3Settings(_Section, frozen=True, kw_only=True):
    """A bucket for the archives, of S3 or of a store that speaks its protocol."""

    bucket: Annotated[
        str | None, Meta(description="Bucket of the result archives, instead of results.directory.")
    ] = None
    prefix: Annotated[str, Meta(description="What the names of the archives begin with in the bucket.")] = ""
    endpoint: Annotated[
        str | None, Meta(description="http(s) address of the store; that of AWS when absent.")
    ] = None
    region: Annotated[str, Meta(min_length=1, description="Region of the bucket.")] = "us-east-1"
    access_key_id: Annotated[
        str | None,
        Meta(
            description="Access key; absent: AWS_ACCESS_KEY_ID and the other variables of AWS, or the role "
            "of the machine."
        ),
    ] = None
    secret_access_key: Annotated[
        str | None,
        Meta(description="Secret of the access key; prefer secret_access_key_file.", extra=SECRET),
    ] = None
    secret_access_key_file: Annotated[
        str | None, Meta(description="File whose content is secret_access_key.")
    ] = None
    timeout_s: Annotated[
        float, Meta(gt=0, le=3_600, description="Wait for the answer to one request to the store.")
    ] = 30.0
    retry_s: Annotated[
        float,
        Meta(
            ge=0, le=3_600, description="How long a request that fails is tried again before the task fails."
        ),
    ] = 60.0


class BackupS3Settings(S3Settings, frozen=True, kw_only=True):
    """A bucket for the backups, of S3 or of a store that speaks its protocol, with conditional writes."""

    bucket: Annotated[str | None, Meta(description="Bucket of the backups, instead of backup.directory.")] = (
        None
    )
    prefix: Annotated[str, Meta(description="What the names of the backups begin with in the bucket.")] = ""
    retry_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3_600,
            description="How long a request that fails is tried again before the backup fails.",
        ),
    ] = 60.0


class BackupSettings(_Section, frozen=True, kw_only=True):
    """Backups of the state. There are none unless `directory` or `s3.bucket` is given."""

    directory: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Directory of the backups, which workers may share."),
    ] = None
    interval_s: Annotated[
        float, Meta(gt=0, le=31_536_000, description="Pause between two backups of a partition.")
    ] = 3_600.0
    keep: Annotated[int, Meta(ge=1, le=10_000, description="Backups of a partition that are kept.")] = 3
    max_age_s: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None,
        Meta(
            description="Age at which a backup is deleted if there is a newer one, and with it what was "
            "deleted from the state since; absent: only backup.keep counts."
        ),
    ] = 604_800
    final_timeout_s: Annotated[
        float,
        Meta(
            ge=0, le=86_400, description="How long a stop waits for the last backups; 0 makes none at a stop."
        ),
    ] = 60.0
    replace_behind_records: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None,
        Meta(
            description="A database that is this far behind the newest backup is replaced by it when its "
            "partition is opened; absent: however far, the log is read."
        ),
    ] = 200_000
    s3: BackupS3Settings = BackupS3Settings()

    @property
    def enabled(self) -> bool:
        """Whether there is a place for backups."""
        return self.directory is not None or self.s3.bucket is not None


class ResultSettings(_Section, frozen=True, kw_only=True):
    """Where archives go, and for how long."""

    directory: Annotated[str, Meta(min_length=1, description="Directory of the result archives.")] = (
        "./results"
    )
    ttl_s: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None,
        Meta(
            description="Seconds to keep the archive of a task that names no result_ttl_s; absent: until it "
            "is deleted."
        ),
    ] = None
    sweep_interval_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Pause between two looks for archives to remove.")
    ] = 60.0
    presign_s: Annotated[
        Annotated[int, Meta(ge=1, le=604_800)] | None,
        Meta(
            description="How long the result_url of a status gives access to an archive in a bucket; absent: "
            "result_url is archive.url."
        ),
    ] = None
    s3: S3Settings = S3Settings()


class CallbackSettings(_Section, frozen=True, kw_only=True):
    """HTTP calls at the end of tasks."""

    allowed_hosts: Annotated[
        str,
        Meta(
            description="Hosts that a callback_url may name, as host,host:port; a host without a port allows "
            "the port of its scheme. Nothing is allowed when empty."
        ),
    ] = ""
    secret: Annotated[
        str | None, Meta(description="Key of the signatures; prefer secret_file.", extra=SECRET)
    ] = None
    secret_file: Annotated[str | None, Meta(description="File whose content is secret.")] = None
    timeout_s: Annotated[float, Meta(gt=0, le=600, description="Wait for the answer to one call.")] = 10.0
    attempts: Annotated[int, Meta(ge=1, le=100, description="Calls before a callback is given up.")] = 8
    backoff_s: Annotated[
        float,
        Meta(gt=0, le=3_600, description="Pause after the first failed call; it doubles, to 5 minutes."),
    ] = 1.0


class ImageSettings(_Section, frozen=True, kw_only=True):
    """Where the images of `save_images` are, and how much of them is read."""

    roots: Annotated[
        tuple[ImageRoot, ...],
        Meta(description="Places that references are looked up in; docs/images.md describes the tables."),
    ] = ()
    image_max_bytes: Annotated[
        int, Meta(ge=1, le=2**30, description="A larger image is left out as too_large.")
    ] = 8 * MIB
    image_timeout_s: Annotated[
        float, Meta(gt=0, le=3_600, description="An image that takes longer is left out as timeout.")
    ] = 10.0
    total_max_bytes: Annotated[
        int, Meta(ge=1, description="Most bytes of images in an archive; over_total_limit counts the rest.")
    ] = 4096 * MIB
    total_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=31_536_000,
            description="How long a task saves images; over_total_limit counts the rest.",
        ),
    ] = 1800.0
    concurrency: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="Images that a task reads at the same time, and most that it has in memory.",
        ),
    ] = 16


class PageSettings(_Section, frozen=True, kw_only=True):
    """The page in an archive, report.html."""

    enabled: Annotated[bool, Meta(description="Put report.html into archives whose tasks do not say.")] = True
    max_bytes: Annotated[
        int,
        Meta(
            ge=256 * 1024,
            le=2**30,
            description="Most bytes of report.html, which are held in memory too; what does not fit is left "
            "out, and the page says so.",
        ),
    ] = 24 * MIB
    thumbnail_px: Annotated[
        int, Meta(ge=16, le=512, description="Longer side of the pictures that report.html holds itself.")
    ] = 96
    cluster_members: Annotated[
        int, Meta(ge=2, le=1_000_000, description="Most members of one cluster that report.html lists.")
    ] = 500


class ChainingSettings(_Section, frozen=True, kw_only=True):
    """When clusters are warned of that may be several which chain."""

    largest_share: Annotated[
        float, Meta(gt=0, le=1, description="Share of the selection above which a cluster is warned of.")
    ] = 0.05
    bridge_margin: Annotated[
        float,
        Meta(ge=0, le=1, description="How far above the threshold, as a cosine, a link counts as a bridge."),
    ] = 0.03
    bridge_objects: Annotated[
        int, Meta(ge=1, description="Objects on either side of a link that make it a bridge.")
    ] = 5


class HttpSettings(_Section, frozen=True, kw_only=True):
    """Health, metrics and the status page."""

    host: Annotated[str, Meta(min_length=1, description="Address to listen on.")] = "0.0.0.0"  # noqa: S104 - a container's probes come from outside  # nosec B104
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")] = 8080
    live_stall_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Standstill of the loop or the engine after which /livez fails."),
    ] = 60.0
    ready_max_lag_records: Annotated[
        int, Meta(ge=0, description="Most records behind the log's end at which /readyz succeeds.")
    ] = 10_000
    status_page: Annotated[
        bool, Meta(description="Serve /status and /status.json. Whoever reaches the port sees them.")
    ] = False
    status_page_ids: Annotated[
        bool,
        Meta(
            description="Show ids of accounts and tasks, and where archives are, on the status page; else "
            "numbers stand for them."
        ),
    ] = True


class LogSettings(_Section, frozen=True, kw_only=True):
    """Log lines."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity that is written.")
    ] = "info"
    format: Annotated[
        Literal["json", "text"], Meta(description="One JSON object a line, or text for people.")
    ] = "json"


class Settings(_Section, frozen=True, kw_only=True):
    """All settings of one process. Built by `load_settings`, which also checks fields against each other."""

    kafka: KafkaSettings = KafkaSettings()
    ingest: IngestSettings = IngestSettings()
    similarity: SimilaritySettings = SimilaritySettings()
    matching: MatchingSettings = MatchingSettings()
    state: StateSettings = StateSettings()
    backup: BackupSettings = BackupSettings()
    retention: RetentionSettings = RetentionSettings()
    updates: UpdateSettings = UpdateSettings()
    tasks: TaskSettings = TaskSettings()
    results: ResultSettings = ResultSettings()
    images: ImageSettings = ImageSettings()
    page: PageSettings = PageSettings()
    chaining: ChainingSettings = ChainingSettings()
    callbacks: CallbackSettings = CallbackSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

"""Checks of settings against each other; ranges of single fields stand in sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from stream_cluster.config.fields import fields
from stream_cluster.config.image_roots import HttpRoot, ImageRoot, S3Root
from stream_cluster.config.settings import KafkaSettings, S3Settings, Settings
from stream_cluster.config.similarity import scale_problems
from stream_cluster.errors import ConfigError


def check(settings: Settings, sources: Mapping[str, str]) -> None:
    """Raise one ConfigError that lists every contradiction and where its settings were given."""
    problems = [
        f"{_where(keys, sources)}: {problem}"
        for part in (
            *(_topics, _servers, _sasl, _tls, _timing, _similarity, _updates, _engine),
            *(_images, _results, _backup, _callbacks),
        )
        for keys, problem in part(settings)
    ]
    if problems:
        raise ConfigError("\n".join(problems))


Problem = tuple[tuple[str, ...], str]
"""Dotted keys that contradict each other, and: found …, expected …"""


def _where(keys: tuple[str, ...], sources: Mapping[str, str]) -> str:
    return " and ".join(sources.get(key, f"{key} (default; {fields()[key].env})") for key in keys)


def _topics(settings: Settings) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for name in ("events_topic", "tasks_topic", "results_topic", "dead_letter_topic", "updates_topic"):
        key, topic = f"kafka.{name}", getattr(settings.kafka, name)
        if topic in {".", ".."}:
            yield (key,), f"found {topic!r}, expected a legal topic name"
        if topic in seen:
            yield (seen[topic], key), f"found {topic!r} twice, expected different topics"
        seen.setdefault(topic, key)


def _servers(settings: Settings) -> Iterator[Problem]:
    for server in settings.kafka.bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        legal = port.isascii() and port.isdigit() and 1 <= int(port[:6]) <= 65_535
        if not (host and legal and "/" not in host):
            yield ("kafka.bootstrap_servers",), f"found {server!r}, expected host:port"


def _sasl(settings: Settings) -> Iterator[Problem]:
    kafka = settings.kafka
    if not kafka.security_protocol.startswith("SASL"):
        if kafka.sasl_mechanism is not None:
            found = f"found {kafka.sasl_mechanism} over {kafka.security_protocol}, expected SASL_*"
            yield ("kafka.sasl_mechanism", "kafka.security_protocol"), found
        return
    if kafka.sasl_mechanism is None:
        yield ("kafka.sasl_mechanism",), f"found none, expected one because of {kafka.security_protocol}"
    elif kafka.sasl_mechanism == "OAUTHBEARER":
        yield from _required(kafka, "oauth_token_url", "oauth_client_id", "oauth_client_secret")
        url = urlsplit(kafka.oauth_token_url or "https://host")
        if url.scheme not in {"http", "https"} or not url.netloc:
            yield ("kafka.oauth_token_url",), f"found {kafka.oauth_token_url!r}, expected an http(s) URL"
    else:
        yield from _required(kafka, "sasl_username", "sasl_password")


def _required(kafka: KafkaSettings, *names: str) -> Iterator[Problem]:
    for name in names:
        if not getattr(kafka, name):
            yield (
                (f"kafka.{name}",),
                f"found none, expected one because of sasl_mechanism {kafka.sasl_mechanism}",
            )


def _tls(settings: Settings) -> Iterator[Problem]:
    kafka = settings.kafka
    if not kafka.security_protocol.endswith("SSL"):
        for name in ("ssl_ca_file", "ssl_cert_file", "ssl_key_file", "ssl_key_password"):
            if getattr(kafka, name) is not None:
                found = f"found a file or password over {kafka.security_protocol}, expected SSL or SASL_SSL"
                yield (f"kafka.{name}", "kafka.security_protocol"), found
        return
    for name in ("ssl_key_file", "ssl_key_password"):
        if getattr(kafka, name) is not None and kafka.ssl_cert_file is None:
            yield (
                (f"kafka.{name}", "kafka.ssl_cert_file"),
                "found a key without its certificate, expected both",
            )


def _timing(settings: Settings) -> Iterator[Problem]:
    kafka, ingest = settings.kafka, settings.ingest
    if kafka.heartbeat_interval_ms * 3 > kafka.session_timeout_ms:
        found = f"found {kafka.heartbeat_interval_ms}, expected at most a third of {kafka.session_timeout_ms}"
        yield ("kafka.heartbeat_interval_ms", "kafka.session_timeout_ms"), found
    if kafka.max_partition_fetch_bytes > kafka.fetch_max_bytes:
        found = f"found {kafka.max_partition_fetch_bytes}, expected at most {kafka.fetch_max_bytes}"
        yield ("kafka.max_partition_fetch_bytes", "kafka.fetch_max_bytes"), found
    if ingest.buffer_max_records < ingest.batch_max_records:
        found = (
            f"found {ingest.buffer_max_records}, expected at least one batch of {ingest.batch_max_records}"
        )
        yield ("ingest.buffer_max_records", "ingest.batch_max_records"), found


def _similarity(settings: Settings) -> Iterator[Problem]:
    for name, of_type in (("face", settings.similarity.face), ("body", settings.similarity.body)):
        for field, problem in scale_problems(of_type):
            yield (f"similarity.{name}.{field}",), problem
        for version, of_version in of_type.versions.items():
            for field, problem in scale_problems(of_version):
                yield (f"similarity.{name}.versions",), f"version {version}: {field}: {problem}"


def _updates(settings: Settings) -> Iterator[Problem]:
    """Links at or below the floor are not kept, so clusters below it cannot be followed."""
    if not settings.updates.enabled:
        return
    expected = "expected at least the floor, because of updates.enabled"
    for name, of_type in (("face", settings.similarity.face), ("body", settings.similarity.body)):
        keys = (f"similarity.{name}.default_threshold", f"similarity.{name}.floor", "updates.enabled")
        if of_type.default_threshold < of_type.floor:
            yield keys, f"found {of_type.default_threshold:g} below {of_type.floor:g}, {expected}"
        for version, one in of_type.versions.items():
            if one.default_threshold < one.floor:
                found = f"found default_threshold {one.default_threshold:g} below floor {one.floor:g}"
                yield (
                    (f"similarity.{name}.versions", "updates.enabled"),
                    (f"version {version}: {found}, {expected}"),
                )


def _engine(settings: Settings) -> Iterator[Problem]:
    matching = settings.matching
    if matching.hnsw_ef_construction < matching.hnsw_m:
        # hnswlib would raise it silently.
        found = f"found {matching.hnsw_ef_construction}, expected at least hnsw_m = {matching.hnsw_m}"
        yield ("matching.hnsw_ef_construction", "matching.hnsw_m"), found


def _images(settings: Settings) -> Iterator[Problem]:
    seen = set()
    for root in settings.images.roots:
        problems = list(_root_problems(root))
        if root.prefix in seen:
            problems.append("found the prefix of another root, expected one root for each")
        seen.add(root.prefix)
        for problem in problems:
            yield ("images.roots",), f"root {root.prefix!r}: {problem}"


def _root_problems(root: ImageRoot) -> Iterator[str]:
    names = root.prefix.split("/")
    if root.prefix and (names.pop() or any(name.strip(" .") == "" for name in names)):
        yield f"prefix: found {root.prefix!r}, expected names that each end in a slash"
    if isinstance(root, HttpRoot) and not _is_base_address(root.url):
        yield "url: expected an http(s) address without user, password, query and fragment"
    if isinstance(root, S3Root):
        if root.endpoint is not None and not _is_base_address(root.endpoint):
            yield "endpoint: expected an http(s) address without user, password, query and fragment"
        if (root.access_key_id is None) != (root.secret_access_key_file is None):
            yield "found one of access_key_id and secret_access_key_file, expected both or none"


def _is_base_address(text: str) -> bool:
    try:
        url = urlsplit(text)
        _ = url.port  # raises when it is none
    except ValueError:
        return False
    plain = text.isprintable() and text.isascii() and not {" ", "?", "#", "@"}.intersection(text)
    return url.scheme in {"http", "https"} and bool(url.hostname) and plain


def _results(settings: Settings) -> Iterator[Problem]:
    results = settings.results
    yield from _bucket(results.s3, "results.s3")
    if results.presign_s is not None and results.s3.bucket is None:
        found = "found an access time without a bucket, expected results.s3.bucket"
        yield ("results.presign_s", "results.s3.bucket"), found


def _backup(settings: Settings) -> Iterator[Problem]:
    backup = settings.backup
    yield from _bucket(backup.s3, "backup.s3")
    if backup.directory is not None and backup.s3.bucket is not None:
        yield ("backup.directory", "backup.s3.bucket"), "found both, expected one of them"


def _bucket(s3: S3Settings, section: str) -> Iterator[Problem]:
    if s3.bucket is None:
        for name in ("endpoint", "access_key_id", "secret_access_key"):
            if getattr(s3, name) is not None:
                yield (f"{section}.{name}", f"{section}.bucket"), "found no bucket, expected its name"
    if (s3.access_key_id is None) != (s3.secret_access_key is None):
        keys = (f"{section}.access_key_id", f"{section}.secret_access_key")
        yield keys, "found one of them, expected both or none"
    if s3.endpoint is not None and not _is_base_address(s3.endpoint):
        found = "expected an http(s) address without user, password, query and fragment"
        yield (f"{section}.endpoint",), found


def _callbacks(settings: Settings) -> Iterator[Problem]:
    callbacks = settings.callbacks
    for entry in filter(None, (part.strip() for part in callbacks.allowed_hosts.split(","))):
        if not _is_host(entry):
            yield ("callbacks.allowed_hosts",), f"found {entry!r}, expected host or host:port"
    if callbacks.allowed_hosts.strip(" ,") and not callbacks.secret:
        found = "found allowed hosts without a secret, expected one to sign the calls with"
        yield ("callbacks.secret", "callbacks.allowed_hosts"), found


def _is_host(entry: str) -> bool:
    """Whether it is a host with or without a port; an IPv6 address stands in brackets."""
    try:
        parts = urlsplit(f"//{entry}")
        return bool(parts.hostname) and parts.netloc == entry and "@" not in entry and parts.port != 0
    except ValueError:
        return False

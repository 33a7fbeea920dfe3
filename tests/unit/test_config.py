"""Settings: precedence, tracing of sources, and messages that name what, where and the nearest name."""

from __future__ import annotations

import json

import msgspec
import pytest

from stream_cluster.config import Settings, describe, field_table, load_settings, load_with_sources
from stream_cluster.config.image_roots import DirectoryRoot, HttpRoot, S3Root, directory_roots
from stream_cluster.errors import ConfigError

P = "STREAM_CLUSTER_"


def problem(environ=None, overrides=None, path=None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_settings(path, environ or {}, overrides or {})
    return str(caught.value)


def test_without_anything_given_the_defaults_hold():
    assert load_settings(None, {}) == Settings()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.toml", '[kafka]\nclient_id = "file"\ngroup_id = "file"\npartitions = 5\ncreate_topics = true\n'),
        (
            "c.yaml",
            "kafka:\n  client_id: file\n  group_id: file\n  partitions: 5\n  create_topics: true\nlog:\n",
        ),
    ],
)
def test_the_last_of_defaults_file_environment_overrides_wins(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    environ = {P + "KAFKA__GROUP_ID": "env", P + "KAFKA__PARTITIONS": "6"}
    loaded = load_with_sources(path, environ, {"kafka.partitions": 7, "http.port": None})
    kafka = loaded.settings.kafka
    assert (kafka.client_id, kafka.group_id, kafka.partitions, kafka.create_topics) == (
        "file",
        "env",
        7,
        True,
    )
    assert loaded.settings.http.port == 8080
    assert dict(loaded.sources) == {
        "kafka.client_id": f"{path}:kafka.client_id",
        "kafka.create_topics": f"{path}:kafka.create_topics",
        "kafka.group_id": P + "KAFKA__GROUP_ID",
        "kafka.partitions": "option kafka.partitions",
    }


def test_settings_are_frozen():
    with pytest.raises(AttributeError):
        Settings().http.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("variable", "text", "section", "name", "value"),
    [
        ("KAFKA__CREATE_TOPICS", "true", "kafka", "create_topics", True),
        ("KAFKA__SSL_CHECK_HOSTNAME", "0", "kafka", "ssl_check_hostname", False),
        ("MATCHING__RECALL_SAMPLE_SHARE", "0.5", "matching", "recall_sample_share", 0.5),
        ("LOG__LEVEL", "debug", "log", "level", "debug"),
        ("KAFKA__OAUTH_SCOPE", "", "kafka", "oauth_scope", None),
        ("KAFKA__GROUP_ID", "007", "kafka", "group_id", "007"),
    ],
)
def test_environment_values_are_parsed_to_the_type_of_their_setting(variable, text, section, name, value):
    settings = load_settings(None, {P + variable: text})
    assert getattr(getattr(settings, section), name) == value


def test_nested_thresholds_can_be_set_from_every_source(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[similarity.face]\ndefault_threshold = 0.6\n")
    settings = load_settings(path, {P + "SIMILARITY__BODY__DEFAULT_THRESHOLD": "0.7"})
    assert settings.similarity.face.default_threshold == 0.6
    assert settings.similarity.body.default_threshold == 0.7


def test_unknown_keys_are_errors_that_name_the_nearest_and_all_are_listed(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text("kafak:\n  x: 1\nkafka:\n  bootstrap_server: a:1\n")
    message = problem({P + "HTTP__PROT": "1", P + "INGEST_LINGER_MS": "1"}, {"port": 1}, path)
    assert message.splitlines() == [
        f"{path}:kafak: unknown setting; did you mean kafka?",
        f"{path}:kafka.bootstrap_server: unknown setting; did you mean kafka.bootstrap_servers?",
        f"{P}HTTP__PROT: unknown setting; did you mean {P}HTTP__PORT?",
        f"{P}INGEST_LINGER_MS: unknown setting; did you mean {P}INGEST__LINGER_MS?",
        "option port: unknown setting; did you mean http.port?",
    ]


def test_variables_that_are_not_settings_are_let_through():
    names = ("CONFIG", "TEST_BROKER", "KERNEL", "SERVICE_HOST", "PORT_8080_TCP")
    environ = {P + name: "x" for name in names} | {P + "HTTP_PORT": "tcp://10.0.0.1:80", "KAFKA__X": "1"}
    assert load_settings(None, environ) == Settings()


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("HTTP__PORT", "70000", "found '70000', expected integer, at least 0 and at most 65535"),
        ("HTTP__PORT", "", "found '', expected integer, at least 0 and at most 65535"),
        ("SIMILARITY__FACE__FLOOR", "nan", "found 'nan', expected number, at least -1 and below 1"),
        ("MATCHING__ENGINE", "fast", "found 'fast', expected one of auto, cells, exact, hnsw"),
        ("KAFKA__CREATE_TOPICS", "maybe", "found 'maybe', expected true or false"),
        ("KAFKA__EVENTS_TOPIC", "a b", "found 'a b', expected text matching ^[A-Za-z0-9._-]{1,249}$"),
        ("STATE__DIRECTORY", "", "found '', expected text that is not empty"),
    ],
)
def test_a_bad_value_says_what_was_found_and_expected_and_where(variable, text, expected):
    assert problem({P + variable: text}) == f"{P}{variable}: {expected}"


def test_a_file_gives_values_in_their_own_type(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('kafka = 3\n[http]\nport = "8080"\nlive_stall_s = inf\n')
    message = problem(path=path)
    assert f"{path}:kafka: found 3, expected a table of settings" in message
    assert f"{path}:http.port: found '8080', expected integer" in message
    assert f"{path}:http.live_stall_s: found inf, expected number" in message


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.toml", b"[kafka", "cannot be parsed"),
        ("c.yaml", b"a: [", "cannot be parsed"),
        ("c.yaml", b"http: {port: 1}\nhttp: {port: 2}", "key 'http' given twice"),
        ("c.yaml", b"- 1", "found list, expected a table"),
        ("c.yaml", b"!!python/object:os.system {}", "cannot be parsed"),
        ("c.json", b"{}", "expected .toml, .yaml or .yml"),
        ("c.toml", b"\xff", "not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_parsed_is_named(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    message = problem(path=path)
    assert str(path) in message
    assert expected in message


def test_a_missing_file_is_named(tmp_path):
    assert "cannot be read: No such file" in problem(path=tmp_path / "none.toml")


SCRAM = {
    "kafka.security_protocol": "SASL_PLAINTEXT",
    "kafka.sasl_mechanism": "SCRAM-SHA-512",
    "kafka.sasl_username": "u",
}


def test_a_secret_is_read_from_its_file_and_never_shown(tmp_path):
    secret = tmp_path / "password"
    secret.write_text("s3cret\n")
    loaded = load_with_sources(None, {}, {**SCRAM, "kafka.sasl_password_file": secret})
    assert loaded.settings.kafka.sasl_password == "s3cret"
    shown = describe(loaded.settings, loaded.sources)
    assert "s3cret" not in repr(shown)
    row = next(row for row in shown if row.key == "kafka.sasl_password")
    assert row.value == "********"
    assert row.source == f"option kafka.sasl_password_file ({secret})"


def test_a_secret_file_that_is_missing_or_empty_or_doubled_is_an_error(tmp_path):
    empty = tmp_path / "empty"
    empty.write_text("\n")
    key = "kafka.sasl_password_file"
    assert problem(overrides={**SCRAM, key: "/nonexistent"}).startswith(
        f"option {key}: /nonexistent cannot be read"
    )
    assert "expected a secret" in problem(overrides={**SCRAM, key: empty})
    assert "found both" in problem({P + "KAFKA__SASL_PASSWORD": "hidden"}, {**SCRAM, key: empty})


def test_a_certificate_that_cannot_be_read_is_named():
    message = problem(overrides={"kafka.security_protocol": "SSL", "kafka.ssl_ca_file": "/nonexistent"})
    assert message.startswith("option kafka.ssl_ca_file: /nonexistent cannot be read")


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"kafka.sasl_mechanism": "PLAIN"}, "found PLAIN over PLAINTEXT"),
        (
            {"kafka.security_protocol": "SASL_SSL"},
            "kafka.sasl_mechanism (default; STREAM_CLUSTER_KAFKA__SASL_MECHANISM)",
        ),
        (SCRAM, "kafka.sasl_password (default; STREAM_CLUSTER_KAFKA__SASL_PASSWORD): found none"),
        ({**SCRAM, "kafka.sasl_mechanism": "OAUTHBEARER"}, "kafka.oauth_token_url"),
        (
            {**SCRAM, "kafka.sasl_mechanism": "OAUTHBEARER", "kafka.oauth_token_url": "ftp://x"},
            "expected an http(s) URL",
        ),
        ({"kafka.ssl_key_password": "k"}, "expected SSL or SASL_SSL"),
        ({"kafka.security_protocol": "SSL", "kafka.ssl_key_password": "k"}, "a key without its certificate"),
        ({"kafka.events_topic": "clustering-tasks"}, "expected different topics"),
        ({"kafka.events_topic": "cluster-updates"}, "expected different topics"),
        (
            {"updates.enabled": True, "similarity.body.default_threshold": 0.4},
            "found 0.4 below 0.45, expected at least the floor, because of updates.enabled",
        ),
        (
            {
                "updates.enabled": True,
                "similarity.face.versions": '{"7": {"default_threshold": 0.3, "floor": 0.31}}',
            },
            "version 7: found default_threshold 0.3 below floor 0.31",
        ),
        ({"kafka.events_topic": ".."}, "expected a legal topic name"),
        ({"kafka.bootstrap_servers": "a:9092,b"}, "found 'b', expected host:port"),
        ({"kafka.heartbeat_interval_ms": 30_000}, "at most a third of 45000"),
        ({"kafka.fetch_max_bytes": 2048}, "expected at most 2048"),
        ({"ingest.buffer_max_records": 10}, "at least one batch of 1024"),
        ({"matching.hnsw_ef_construction": 8}, "at least hnsw_m = 16"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(overrides, expected):
    message = problem(overrides=overrides)
    assert expected in message
    assert next(iter(overrides)) in message or "default" in message


def test_a_threshold_below_the_floor_is_legal():
    settings = load_settings(None, {}, {"similarity.face.default_threshold": 0.1})
    assert settings.similarity.face.default_threshold == 0.1


def test_the_table_covers_every_setting_once_and_matches_what_is_in_force():
    table = field_table()
    rows = describe(Settings())
    assert [doc.key for doc in table] == [row.key for row in rows]
    assert len({doc.key for doc in table}) == len(table) > 50
    assert all(doc.description.endswith(".") and doc.expected for doc in table)
    assert {doc.key for doc in table if doc.secret} == {
        "kafka.sasl_password",
        "kafka.oauth_client_secret",
        "kafka.ssl_key_password",
        "backup.s3.secret_access_key",
        "results.s3.secret_access_key",
        "callbacks.secret",
    }
    assert all(row.value == row.default and row.source == "default" for row in rows)


def test_every_default_obeys_its_own_range():
    assert msgspec.convert(msgspec.to_builtins(Settings()), Settings) == Settings()


ROOTS = [
    {"kind": "directory", "path": "/photos"},
    {"kind": "s3", "prefix": "old/", "bucket": "archive", "endpoint": "https://s3.example.org"},
    {"kind": "http", "prefix": "cam7/", "url": "https://cam7.example.org/images", "allow_private": True},
]
ROOTS_TOML = """
[[images.roots]]
kind = "directory"
path = "/photos"

[[images.roots]]
kind = "s3"
prefix = "old/"
bucket = "archive"
endpoint = "https://s3.example.org"

[[images.roots]]
kind = "http"
prefix = "cam7/"
url = "https://cam7.example.org/images"
allow_private = true
"""


def test_image_roots_come_from_a_file_the_environment_or_an_override_alike(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(ROOTS_TOML)
    expected = (
        DirectoryRoot(path="/photos"),
        S3Root(prefix="old/", bucket="archive", endpoint="https://s3.example.org"),
        HttpRoot(prefix="cam7/", url="https://cam7.example.org/images", allow_private=True),
    )
    assert load_settings(path, {}).images.roots == expected
    assert load_settings(None, {P + "IMAGES__ROOTS": json.dumps(ROOTS)}).images.roots == expected
    loaded = load_with_sources(None, {}, {"images.roots": ROOTS})
    assert loaded.settings.images.roots == expected
    row = next(row for row in describe(loaded.settings, loaded.sources) if row.key == "images.roots")
    assert (row.value[0], row.default) == (
        {"kind": "directory", "prefix": "", "per_account": False, "path": "/photos"},
        [],
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/photos", "expected list of tables in JSON ("),
        ("{}", "expected list of tables in JSON (Expected `array`, got `object`)"),
        ('[{"kind": "ftp"}]', "Invalid value 'ftp' - at `$[0].kind`"),
        ('[{"path": "/photos"}]', "missing required field `kind` - at `$[0]`"),
        ('[{"kind": "directory"}]', "missing required field `path` - at `$[0]`"),
        ('[{"kind": "directory", "pth": "/photos"}]', "unknown field `pth` - at `$[0]`"),
    ],
)
def test_image_roots_that_cannot_be_read_are_told_with_their_place(text, expected):
    message = problem({P + "IMAGES__ROOTS": text})
    assert message.startswith(f"{P}IMAGES__ROOTS: ")
    assert expected in message


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        ({"prefix": "cam7"}, "prefix: found 'cam7', expected names that each end in a slash"),
        ({"prefix": "/"}, "prefix: found '/'"),
        ({"prefix": "../"}, "prefix: found '../'"),
        ({}, "root '': found the prefix of another root, expected one root for each"),
        ({"kind": "http", "url": "ftp://host/"}, "url: expected an http(s) address"),
        ({"kind": "http", "url": "http://user:secret@host/"}, "url: expected an http(s) address"),
        ({"kind": "http", "url": "http://host/?q"}, "url: expected an http(s) address"),
        ({"kind": "http", "url": "http://host:port/"}, "url: expected an http(s) address"),
        ({"kind": "s3", "bucket": "b", "endpoint": "host:9000"}, "endpoint: expected an http(s) address"),
        ({"kind": "s3", "bucket": "b", "access_key_id": "k"}, "found one of access_key_id and secret_access"),
        ({"kind": "http", "url": "http://h", "bearer_token_file": "/nonexistent"}, "cannot be read"),
    ],
)
def test_image_roots_that_contradict_themselves_or_each_other_are_refused(root, expected):
    base = {"kind": "directory"} if "kind" not in root else {}
    base |= {"path": "/photos"} if "kind" not in root else {}
    message = problem(overrides={"images.roots": [{"kind": "directory", "path": "/all"}, {**base, **root}]})
    assert "option images.roots" in message
    assert expected in message
    assert "secret@" not in message


def test_an_empty_secret_of_an_image_root_is_an_error(tmp_path):
    (tmp_path / "token").write_text("\n")
    root = {"kind": "http", "url": "http://h", "bearer_token_file": str(tmp_path / "token")}
    assert "bearer_token_file: found an empty file" in problem(overrides={"images.roots": [root]})


@pytest.mark.parametrize(
    ("given", "prefix", "path"),
    [
        ("photos", "", "photos"),
        ("cam7/=photos", "cam7/", "photos"),
        ("a/b/=/x=y", "a/b/", "/x=y"),
        ("/data/a=b", "", "/data/a=b"),
        ("/data/=b", "", "/data/=b"),
        ("./x/=b", "", "./x/=b"),
        ("a=b", "", "a=b"),
    ],
)
def test_a_root_of_the_command_line_is_a_directory_or_a_prefix_and_a_directory(given, prefix, path):
    assert directory_roots([given]) == [
        {"kind": "directory", "prefix": prefix, "per_account": False, "path": path}
    ]

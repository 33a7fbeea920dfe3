from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from stream_cluster import __version__
from stream_cluster.cli.failures import exit_code
from stream_cluster.config import field_table
from stream_cluster.config.settings import MatchingSettings
from stream_cluster.errors import (
    BrokerUnavailable,
    Cancelled,
    ConfigError,
    InputError,
    LogGap,
    StateCorrupt,
    StateLocked,
    TaskError,
)
from stream_cluster.matching import SpaceMatcher
from stream_cluster.messages import DecodeRules, RawRecord
from stream_cluster.state.database import database_path
from stream_cluster.state.partition import Partition, PartitionIdentity
from stream_cluster.state.tasks import StoredTask
from tests.support.cli import COMMAND, invoke
from tests.support.files import event_lines

COMMANDS = {
    "run",
    "cluster",
    "produce",
    "erase",
    "generate",
    "inspect",
    "schema",
    "check-config",
    "task submit",
    "task watch",
    "task cancel",
}


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch):
    for name in list(os.environ):
        if name.startswith("STREAM_CLUSTER_"):
            monkeypatch.delenv(name)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_help_of_every_command_shows_an_example(command):
    result = invoke(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"stream-cluster {command.split()[0]}" in result.stdout.split("Examples")[1]


def test_the_help_lists_every_command_and_the_exit_codes():
    text = invoke("--help").stdout
    assert all(command.split()[0] in text for command in COMMANDS)
    assert "Exit codes: 0 done" in text


def test_the_version_is_printed():
    assert invoke("--version").stdout == f"stream-cluster {__version__}\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (InputError("x"), 2),
        (TaskError("bad_request", "x"), 2),
        (TaskError("empty_selection", "x"), 1),
        (BrokerUnavailable("x"), 3),
        (StateCorrupt("x"), 4),
        (StateLocked("x"), 4),
        (LogGap("x"), 5),
        (KeyboardInterrupt(), 130),
        (Cancelled("x"), 130),
        (ValueError("x"), 1),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert exit_code(error) == code


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (ConfigError("no topic"), "error: no topic"),
        (KeyError("x"), "error: unexpected KeyError: 'x'; --debug shows where"),
    ],
)
def test_a_traceback_is_shown_only_with_debug(monkeypatch, error, shown):
    def fail(*_):
        raise error

    monkeypatch.setattr("stream_cluster.config.load_with_sources", fail)
    result = invoke("check-config")
    assert result.exit_code == exit_code(error)
    assert result.stderr == f"{shown}\n"
    assert "Traceback" in invoke("--debug", "check-config").stderr
    assert "Traceback" in invoke("check-config", env={"STREAM_CLUSTER_DEBUG": "1"}).stderr


def test_a_reader_that_leaves_early_is_no_error():
    generate = subprocess.Popen(
        [*COMMAND, "generate", "--events", "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert generate.stdout is not None
    assert generate.stderr is not None
    generate.stdout.readline()
    generate.stdout.close()
    assert generate.stderr.read() == b""
    generate.stderr.close()
    assert generate.wait(timeout=30) == 1


def test_light_commands_do_not_load_the_engine():
    code = (
        "import sys; from stream_cluster.cli import main; sys.argv[1:] = ['schema', '--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert not {'scipy', 'aiokafka', 'hnswlib', 'aiohttp'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([*COMMAND[:2], code], check=True, stdout=subprocess.DEVNULL, timeout=60)


# -- check-config, schema, generate ----------------------------------------------------------------------


def test_check_config_tells_every_setting_its_source_and_no_secret(tmp_path, monkeypatch):
    config = tmp_path / "settings.toml"
    config.write_text(
        '[kafka]\ngroup_id = "mine"\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "PLAIN"\n'
        'sasl_username = "me"\nsasl_password = "hush-hush"\n'
    )
    monkeypatch.setenv("STREAM_CLUSTER_LOG__LEVEL", "debug")
    table = invoke("check-config", "--config", config)
    printed = invoke("check-config", "--config", config, "--json")
    assert table.exit_code == printed.exit_code == 0
    assert "hush-hush" not in table.stdout + printed.stdout
    settings = {item["key"]: item for item in json.loads(printed.stdout)}
    assert list(settings) == [field.key for field in field_table()]
    assert settings["kafka.group_id"]["source"] == f"{config}:kafka.group_id"
    assert settings["log.level"]["value"] == "debug"
    assert settings["log.level"]["source"] == "STREAM_CLUSTER_LOG__LEVEL"
    assert settings["http.port"]["source"] == "default"
    for key in settings:
        assert key in table.stdout


def test_check_config_refuses_what_the_service_would_refuse(tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text("[kafka]\ngroup_ids = 1\n")
    result = invoke("check-config", "--config", config)
    assert result.exit_code == 2
    assert "did you mean kafka.group_id?" in result.stderr


def test_the_config_file_can_come_from_the_environment(tmp_path):
    config = tmp_path / "settings.toml"
    config.write_text("[http]\nport = 1234\n")
    result = invoke("check-config", "--json", env={"STREAM_CLUSTER_CONFIG": str(config)})
    assert {"http.port": 1234}.items() <= {i["key"]: i["value"] for i in json.loads(result.stdout)}.items()


def test_check_config_shows_a_list_as_the_environment_would_have_it():
    roots = '[{"kind": "directory", "prefix": "", "per_account": false, "path": "p"}]'
    result = invoke("check-config", env={"STREAM_CLUSTER_IMAGES__ROOTS": roots})
    assert roots in result.stdout


def test_schema_prints_json_schema_or_asyncapi_and_writes_files(tmp_path):
    assert set(json.loads(invoke("schema").stdout)) == {"cluster_update", "object", "task", "task_status"}
    path = tmp_path / "asyncapi.json"
    result = invoke(
        "schema", "--asyncapi", "--output", path, env={"STREAM_CLUSTER_KAFKA__EVENTS_TOPIC": "seen"}
    )
    assert (result.exit_code, result.stdout) == (0, "")
    document = json.loads(path.read_text())
    assert document["asyncapi"] == "3.0.0"
    assert document["channels"]["objects"]["address"] == "seen"
    assert invoke("schema", "--asyncapi", "--json-schema").exit_code == 2
    assert invoke("schema", "--output", tmp_path).exit_code == 2


def test_generate_passes_every_option_on(tmp_path):
    path, truth = tmp_path / "events.jsonl", tmp_path / "people.csv"
    options = ["--events", 40, "--accounts", "a,b", "--dim", 8, "--descriptor", "both", "--seed", 3]
    options += ["--bad-share", 0.25, "--faults", "zero_vector,undecodable", "--no-metadata"]
    options += ["--descriptor-version", 9, "--encoding", "int8", "--cameras", 2, "--people", 3]
    result = invoke("generate", *options, "--output", path, "--truth", truth)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == f"40 events, 9 of them broken: {path}\n"
    expected = event_lines(
        events=40,
        accounts=("a", "b"),
        dim=8,
        descriptor="both",
        seed=3,
        bad_share=0.25,
        faults=("undecodable", "zero_vector"),
        metadata=False,
        version=9,
        encoding="int8",
        cameras=2,
        people=3,
        same_person_cosine=0.7,
    )
    assert path.read_bytes().splitlines() == expected
    assert len(truth.read_text().splitlines()) == 32


def test_generate_refuses_unknown_faults():
    result = invoke("generate", "--faults", "nonsense")
    assert result.exit_code == 2
    assert "found nonsense" in result.stderr


# -- options of the commands that use Kafka, before they connect ------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task", "submit", "--account", "a", "--threshold", "7"], "--threshold: found 7"),
        (["task", "submit", "--account", "a", "--timeout-s", "7"], "no effect without --wait"),
        (["task", "submit", "--account", "a", "--callback-url", "ftp://x"], "expected an http or https URL"),
        (["task", "submit", "--account", "a", "--deadline-s", "nan"], "not finite"),
        (["task", "submit", "--account", "a", "--deadline-s", "0"], "deadline_s"),
        (["task", "submit", "--account", "a", "--columns", "x"], "no column 'x' of events"),
        (["task", "cancel", "a/b", "--account", "a"], "task_id"),
        (["task", "watch", "t", "--account", "a", "--timeout-s", "-1"], "--timeout-s: found -1"),
        (["produce", "absent.jsonl"], "absent.jsonl: cannot be read"),
        (["produce", "-", "--rate", "0"], "--rate: found 0"),
        (["produce", "-", "--topic", "a b"], "kafka.events_topic"),
    ],
)
def test_wrong_options_are_told_before_a_broker_is_asked(arguments, message):
    result = invoke(*arguments, "--bootstrap-servers", "127.0.0.1:1")
    assert result.exit_code == 2
    assert message in result.stderr


def test_no_broker_is_code_3_and_one_line():
    env = {"STREAM_CLUSTER_KAFKA__CONNECT_TIMEOUT_S": "0.2"}
    result = invoke("task", "submit", "--account", "a", "--bootstrap-servers", "127.0.0.1:1", env=env)
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1].startswith(
        "error: kafka.bootstrap_servers 127.0.0.1:1: no broker answered within 0.2 s"
    )
    assert result.stdout == ""


def test_ctrl_c_ends_the_wait_for_a_broker():
    process = subprocess.Popen(
        [*COMMAND, "produce", "-", "--bootstrap-servers", "127.0.0.1:1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert b"broker_unavailable" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert err.splitlines()[-1] == b"interrupted; what was sent is acknowledged"


# -- inspect ---------------------------------------------------------------------------------------------


@pytest.fixture
def state(tmp_path):
    """A state directory of two partitions, the second empty, as a running service has it."""
    partitions = [
        Partition(
            database_path(tmp_path, number),
            PartitionIdentity("events", number, 2, "murmur2"),
            DecodeRules(None, 100_000, 128),
            lambda dim, _: SpaceMatcher(dim, MatchingSettings()),
            0.45,
        )
        for number in (0, 1)
    ]
    lines = [*event_lines(), b"broken"]
    records = [RawRecord("events", 0, offset, 0, None, line, None) for offset, line in enumerate(lines)]
    partitions[0].apply(records[:30])
    partitions[0].apply(records[30:])
    task = StoredTask("demo", "t", "pending", b"{}", 0, 61)
    partitions[0].add_task(task, {("clustering-tasks", 3): 17})
    yield tmp_path
    for partition in partitions:
        partition.close()


def test_inspect_tells_what_a_state_directory_holds_while_it_is_in_use(state):
    result = invoke("inspect", state, "--json")
    assert result.exit_code == 0, result.stderr
    first, second = json.loads(result.stdout)["partitions"]
    assert (first["topic"], first["partition"], first["partitions"]) == ("events", 0, 2)
    assert {"topic": "events", "partition": 0, "next_offset": 61} in first["next_offsets"]
    assert {"topic": "clustering-tasks", "partition": 3, "next_offset": 17} in first["next_offsets"]
    [space] = first["spaces"]
    assert (space["account_id"], space["dim"], space["rows"]) == ("demo", 16, 60)
    assert (space["objects"], space["deleted"]) == (60, 0)
    assert space["code_bytes"] == 60 * 16
    assert space["floor_cosine"] == pytest.approx(0.45)
    assert 0 < space["forest_links"]["pending"] <= space["links_seen"]
    assert {"result": "rejected", "reason": "undecodable", "records": 1} in first["records"]
    assert first["tasks"] == {"pending": 1}
    assert first["database_bytes"] + first["wal_bytes"] > 0
    assert second["spaces"] == []


def test_inspect_shows_the_same_to_people(state):
    text = invoke("inspect", state).stdout
    assert "events/0 of 2, by murmur2" in text
    assert "next offset of clustering-tasks/3" in text
    assert "demo" in text
    assert "rejected (undecodable)" in text


def test_inspect_refuses_a_damaged_database_and_names_it(state):
    path = database_path(state, 7)
    path.write_bytes(b"not a database at all" * 100)
    result = invoke("inspect", state)
    assert result.exit_code == 4
    assert str(path) in result.stderr


def test_inspect_refuses_a_directory_that_is_none(tmp_path):
    assert invoke("inspect", tmp_path / "absent").exit_code == 2
    result = invoke("inspect", tmp_path)
    assert result.exit_code == 2
    assert "found no partition-*.sqlite" in result.stderr

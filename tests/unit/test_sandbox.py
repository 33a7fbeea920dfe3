"""The choice of a broker, with fake routes; the jars' cache; the settings of a local Kafka."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from stream_cluster.errors import BrokerUnavailable, ConfigError
from stream_cluster.sandbox import Broker, BrokerOptions, start_broker
from stream_cluster.sandbox import jars as cache
from stream_cluster.sandbox.broker import BrokerKind, Report, RouteClosed
from stream_cluster.sandbox.choice import Route, Routes
from stream_cluster.sandbox.container import environment
from stream_cluster.sandbox.external import ADDRESS_VARIABLE, addresses, start_external
from stream_cluster.sandbox.mock import start_mock
from stream_cluster.sandbox.properties import assign_ports, free_ports, render, server_properties

KINDS: list[BrokerKind] = ["external", "docker", "maven", "mock"]


class FakeBroker(Broker):
    kind: ClassVar[BrokerKind] = "maven"

    def stop(self) -> None:
        self.description = "stopped"


def fake_routes(opened: set[str], tried: list[str]) -> Routes:
    """Routes of which only those in `opened` work; each writes down that it was tried."""

    def route(name: BrokerKind) -> Route:
        def start(options: BrokerOptions, report: Report) -> Broker:
            tried.append(name)
            if name not in opened:
                raise RouteClosed(f"no {name} here")
            broker = FakeBroker("host:1", f"fake {name}")
            broker.kind = name  # type: ignore[misc]
            return broker

        return start

    return Routes(
        external=route("external"), docker=route("docker"), maven=route("maven"), mock=route("mock")
    )


@pytest.mark.parametrize("first", range(4))
def test_first_open_route_wins_and_later_ones_are_not_tried(first: int) -> None:
    tried: list[str] = []
    lines: list[str] = []
    routes = fake_routes(set(KINDS[first:]), tried)
    broker = start_broker(allow_mock=True, routes=routes, report=lines.append)
    assert broker.kind == KINDS[first]
    assert tried == KINDS[: first + 1]
    assert lines == [f"broker is {KINDS[first]}: fake {KINDS[first]} at host:1"]
    assert broker.is_real == (KINDS[first] != "mock")


def test_mock_is_not_tried_unless_allowed_and_the_error_lists_every_reason() -> None:
    tried: list[str] = []
    with pytest.raises(BrokerUnavailable) as error:
        start_broker(routes=fake_routes({"mock"}, tried), report=lambda _: None)
    assert tried == ["external", "docker", "maven"]
    assert all(f"no {kind} here" in str(error.value) for kind in tried)
    assert "mock" not in str(error.value)


def test_context_manager_stops_the_broker() -> None:
    with start_broker(routes=fake_routes({"docker"}, []), report=lambda _: None) as broker:
        assert broker.description == "fake docker"
    assert broker.description == "stopped"


def test_address_in_the_environment_is_used_as_it_is() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        lines: list[str] = []
        options = BrokerOptions(brokers=3)
        broker = start_external(options, lines.append, environ={ADDRESS_VARIABLE: address})
        broker.stop()
        socket.create_connection(server.getsockname()).close()
    assert (broker.kind, broker.bootstrap_servers) == ("external", address)
    assert "do not apply" in lines[0]


def test_address_where_nothing_listens_is_an_error_and_no_reason_to_go_on() -> None:
    port = free_ports(1)[0]
    with pytest.raises(BrokerUnavailable, match=f"127.0.0.1:{port}"):
        start_external(BrokerOptions(), print, environ={ADDRESS_VARIABLE: f"127.0.0.1:{port}"})


def test_no_address_closes_the_route() -> None:
    with pytest.raises(RouteClosed, match=ADDRESS_VARIABLE):
        start_external(BrokerOptions(), print, environ={})


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:0", "host:65536", "host:x", "a:1,", "h:²"])
def test_wrong_address_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="host:port"):
        addresses(text)


def test_addresses_are_split_at_commas() -> None:
    assert addresses("a:1, [::1]:2") == [("a", 1), ("::1", 2)]


def test_mock_cluster_starts_and_ends() -> None:
    lines: list[str] = []
    with start_mock(BrokerOptions(brokers=2), lines.append) as broker:
        assert not broker.is_real
        assert len(addresses(broker.bootstrap_servers)) == 2
        for address in addresses(broker.bootstrap_servers):
            socket.create_connection(address, 5).close()
    assert "no real broker" in lines[0]
    with pytest.raises(RouteClosed):
        start_mock(BrokerOptions(extra_properties={"a": "b"}), lines.append)


# --- The cache of jars ---


def filled_folder(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / f"kafka_2.13-{cache.KAFKA_VERSION}.jar").write_bytes(b"kafka")
    (folder / "scala.jar").write_bytes(b"scala!")
    return folder


def test_only_a_folder_with_every_listed_jar_in_full_is_complete(tmp_path: Path) -> None:
    assert not cache.is_complete(tmp_path / "absent")
    folder = filled_folder(tmp_path / "jars")
    assert not cache.is_complete(folder)
    cache.write_marker(folder)
    assert cache.is_complete(folder)
    (folder / "scala.jar").write_bytes(b"scal")
    assert not cache.is_complete(folder)
    (folder / "scala.jar").unlink()
    assert not cache.is_complete(folder)


@pytest.mark.parametrize("marker", ["", "{", "{}", "[]", "null", '["scala.jar"]', '{"scala.jar": 5}'])
def test_damaged_marker_makes_the_folder_incomplete(tmp_path: Path, marker: str) -> None:
    folder = filled_folder(tmp_path / "jars")
    (folder / cache.MARKER).write_text(marker)
    assert not cache.is_complete(folder)


def test_marker_is_not_written_without_kafka_among_the_jars(tmp_path: Path) -> None:
    (tmp_path / "scala.jar").write_bytes(b"")
    with pytest.raises(RouteClosed, match="no Kafka"):
        cache.write_marker(tmp_path)
    assert not (tmp_path / cache.MARKER).exists()


def test_damaged_folder_is_replaced_and_a_complete_one_is_left(tmp_path: Path) -> None:
    damaged = filled_folder(tmp_path / "kafka")
    fresh = filled_folder(tmp_path / "fresh")
    cache.write_marker(fresh)
    cache.install(fresh, damaged)
    assert cache.is_complete(damaged)
    assert not fresh.exists()
    late = filled_folder(tmp_path / "late")
    cache.write_marker(late)
    (late / "only-in-late.jar").write_bytes(b"")
    cache.install(late, damaged)
    assert not (damaged / "only-in-late.jar").exists()
    assert not list(tmp_path.glob(".damaged-*"))


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(stat.S_IRWXU)


@pytest.fixture
def path_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH, in front of the system's own tools but not its Java or Maven."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


JAVA_17 = """echo 'openjdk version "17.0.15" 2025-04-15' >&2"""
KAFKA_JAR = f"kafka_2.13-{cache.KAFKA_VERSION}.jar"


def test_jars_are_downloaded_once(path_folder: Path, cache_home: Path) -> None:
    script = f"""
for argument in "$@"; do case $argument in -DoutputDirectory=*) out=${{argument#*=}};; esac; done
/bin/mkdir "$out" && echo jar > "$out/{KAFKA_JAR}" && echo run >> {path_folder}/runs"""
    program(path_folder, "mvn", script)
    lines: list[str] = []
    folder = cache.ensure_jars(lines.append)
    assert folder == cache_home / "stream-cluster" / f"kafka-{cache.KAFKA_VERSION}"
    assert cache.ensure_jars(lines.append) == folder
    assert (path_folder / "runs").read_text() == "run\n"
    assert len(lines) == 1
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


def test_download_that_fails_leaves_nothing_and_shows_mavens_words(
    path_folder: Path, cache_home: Path
) -> None:
    program(path_folder, "mvn", "echo '[ERROR] unknown host' && exit 1")
    with pytest.raises(RouteClosed, match="unknown host"):
        cache.ensure_jars(lambda _: None)
    assert list((cache_home / "stream-cluster").iterdir()) == []


def test_route_is_closed_without_java_or_without_maven(path_folder: Path, cache_home: Path) -> None:
    with pytest.raises(RouteClosed, match="no java program"):
        cache.require_jars_or_maven()
    program(path_folder, "java", """echo 'openjdk version "11.0.2"' >&2""")
    with pytest.raises(RouteClosed, match="version 11"):
        cache.require_jars_or_maven()
    program(path_folder, "java", JAVA_17)
    with pytest.raises(RouteClosed, match="no mvn program"):
        cache.require_jars_or_maven()
    cache.write_marker(filled_folder(cache.jar_folder()))
    cache.require_jars_or_maven()


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ('openjdk version "26-ea"', 26),
        ("command not found", None),
    ],
)
def test_java_version_is_read(text: str, major: int | None) -> None:
    assert cache.java_major(text) == major


# --- Settings ---


def test_own_properties_win_over_those_of_the_launcher(tmp_path: Path) -> None:
    options = BrokerOptions(message_max_bytes=2**27, extra_properties={"num.io.threads": "9", "x": "y"})
    found = server_properties(1, assign_ports(options), tmp_path, options)
    assert found["num.io.threads"] == "9"
    assert found["x"] == "y"
    assert found["message.max.bytes"] == str(2**27)
    # A request carries the batch and more; with Kafka's own 100 MiB it would be refused.
    assert int(found["socket.request.max.bytes"]) > 2**27


def test_every_broker_and_listener_has_a_port_of_its_own(tmp_path: Path) -> None:
    options = BrokerOptions(brokers=3, extra_listeners={"SECURE": "SASL_SSL"})
    nodes = assign_ports(options)
    assert len({port for node in nodes for port in node.by_listener.values()}) == 9
    second = server_properties(2, nodes, tmp_path, options)
    assert second["controller.quorum.voters"] == ",".join(
        f"{number}@{node.address('CONTROLLER')}" for number, node in enumerate(nodes, 1)
    )
    assert f"SECURE://{nodes[1].address('SECURE')}" in second["advertised.listeners"]
    assert "CONTROLLER" not in second["advertised.listeners"]
    assert "SECURE:SASL_SSL" in second["listener.security.protocol.map"]
    assert second["offsets.topic.replication.factor"] == "3"


def test_values_of_properties_are_escaped() -> None:
    assert render({"a": "C:\\x", "b": "one\ntwo", "c": " led"}) == "a=C:\\\\x\nb=one\\ntwo\nc=\\ led\n"


def test_container_gets_the_same_settings_as_variables() -> None:
    found = environment(BrokerOptions(message_max_bytes=5000, extra_properties={"a.b_c-d": "e"}))
    assert found["KAFKA_A_B__C___D"] == "e"
    assert found["KAFKA_MESSAGE_MAX_BYTES"] == "5000"
    assert found["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


@pytest.mark.parametrize(
    ("wrong", "word"),
    [
        ({"brokers": 0}, "brokers"),
        ({"message_max_bytes": 1}, "message_max_bytes"),
        ({"extra_listeners": {"Controller": "PLAINTEXT"}}, "CONTROLLER"),
    ],
)
def test_options_that_cannot_work_are_refused(wrong: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        BrokerOptions(**wrong)  # type: ignore[arg-type]


# --- The guarded process ---

LAUNCHER = """
import sys, time
from pathlib import Path
from stream_cluster.sandbox.process import GuardedProcess
folder = Path(sys.argv[1])
process = GuardedProcess(["sleep", "60"], folder=folder, log_path=folder / "log")
print(process.pid, flush=True)
time.sleep(60)
"""


def test_guarded_process_and_its_folder_go_when_the_launcher_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "parent" / "node"
    folder.mkdir(parents=True)
    command = [sys.executable, "-c", LAUNCHER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        os.kill(pid, 0)
        # Frozen or not, it has to go.
        os.kill(pid, signal.SIGSTOP)
        launcher.kill()
    deadline = time.monotonic() + 10
    while folder.parent.exists() or running(pid):
        assert time.monotonic() < deadline, "the process or its folder outlived the launcher"
        time.sleep(0.01)


def running(pid: int) -> bool:
    """Whether the process exists and is not just waiting to be collected."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False

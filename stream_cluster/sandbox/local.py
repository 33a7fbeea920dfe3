"""Apache Kafka as local processes in KRaft mode, from the jars of Maven Central."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from stream_cluster.errors import BrokerUnavailable
from stream_cluster.sandbox import jars
from stream_cluster.sandbox.broker import Broker, BrokerKind, BrokerOptions, Report, RouteClosed
from stream_cluster.sandbox.process import GuardedProcess
from stream_cluster.sandbox.properties import NodePorts, assign_ports, render, server_properties

STARTED = b"Kafka Server started"
"""Logged once the broker is registered and its listeners take requests: a port that accepts is not enough."""

LOG_TAIL_LINES = 15
CLUSTER_ID = "c3RyZWFtLWNsdXN0ZXItMQ"
"""Any 16 bytes in base64; fixed, because each broker has a data folder and ports of its own."""

_LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR" shutdownHook="disable">
  <Appenders>
    <Console name="out" target="SYSTEM_OUT">
      <PatternLayout pattern="%d{yyyy-MM-dd'T'HH:mm:ss.SSS} %p %m (%c{1})%n"/>
    </Console>
  </Appenders>
  <Loggers>
    <Logger name="kafka.server.KafkaRaftServer" level="INFO"/>
    <Root level="WARN"><AppenderRef ref="out"/></Root>
  </Loggers>
</Configuration>
"""


class Node:
    """One broker, which is a controller too: its folder, and its process while it runs."""

    def __init__(self, java: Path, classpath: str, folder: Path, ports: NodePorts) -> None:
        self.ports = ports
        self.folder = folder
        self.log_path = folder / "kafka.log"
        self._java = java
        self._classpath = classpath
        self._process: GuardedProcess | None = None
        self._log_start = 0

    def prepare(self, properties: dict[str, str]) -> None:
        """Write the settings and format the data folder. Raises RouteClosed."""
        (self.folder / "server.properties").write_text(render(properties), encoding="utf-8")
        (self.folder / "log4j2.xml").write_text(_LOG4J, encoding="utf-8")
        command = self._command("-Xmx128m", "-XX:TieredStopAtLevel=1", "kafka.tools.StorageTool", "format")
        command += ["-t", CLUSTER_ID, "-c", str(self.folder / "server.properties")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        if result.returncode != 0:
            raise RouteClosed(f"kafka.tools.StorageTool refused:\n{tail(result.stdout + result.stderr)}")

    def start(self, heap_max_mib: int) -> None:
        """Start the process; `wait_until_serving` tells when it is of use."""
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        properties = str(self.folder / "server.properties")
        heap = ["-Xms128m", f"-Xmx{heap_max_mib}m", "-XX:+ExitOnOutOfMemoryError"]
        self._process = GuardedProcess(
            self._command(*heap, "kafka.Kafka", properties), folder=self.folder, log_path=self.log_path
        )

    def _command(self, *arguments: str) -> list[str]:
        log4j = f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}"
        # One collector thread: on a few cores G1's helpers cost the tests more than its pauses save.
        return [str(self._java), "-XX:+UseSerialGC", log4j, "-cp", self._classpath, *arguments]

    def wait_until_serving(self, deadline: float) -> None:
        """Return when the broker takes requests. Raises BrokerUnavailable with the end of its log."""
        while STARTED not in self.new_log():
            self.check()
            if time.monotonic() > deadline:
                raise BrokerUnavailable(f"Kafka did not start in time; {self._log_tail()}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raise BrokerUnavailable when the process has ended by itself."""
        if self._process is not None and (code := self._process.exit_code) is not None:
            raise BrokerUnavailable(f"Kafka ended with exit code {code}; {self._log_tail()}")

    def new_log(self) -> bytes:
        """What has been logged since the last start."""
        with self.log_path.open("rb") as log:
            log.seek(self._log_start)
            return log.read()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self._process is not None:
            self._process.send(number)

    def kill(self) -> None:
        """End the process at once; the folder stays."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def _log_tail(self) -> str:
        return f"the end of {self.log_path}:\n{tail(self.new_log().decode(errors='replace'))}"


def tail(text: str) -> str:
    """The last lines of a text, indented."""
    return "\n".join(f"    {line}" for line in text.strip().splitlines()[-LOG_TAIL_LINES:])


class LocalBroker(Broker):
    """Kafka processes of our own, which tests may kill, freeze and start again.

    Their data lives in a temporary folder that `stop` removes. They die with this process.
    """

    kind: ClassVar[BrokerKind] = "maven"

    def __init__(self, nodes: Sequence[Node], options: BrokerOptions, folder: Path) -> None:
        bootstrap = ",".join(node.ports.address("PLAINTEXT") for node in nodes)
        many = f", {len(nodes)} brokers" if len(nodes) > 1 else ""
        text = f"Apache Kafka {jars.KAFKA_VERSION} from Maven Central, KRaft mode, local process{many}"
        super().__init__(bootstrap, text)
        self._nodes = list(nodes)
        self._options = options
        self._folder = folder

    @property
    def log_path(self) -> Path:
        """Log of the first broker."""
        return self._nodes[0].log_path

    def addresses(self, listener: str) -> str:
        """host:port of every broker's listener of that name, joined by commas. Raises KeyError."""
        return ",".join(node.ports.address(listener) for node in self._nodes)

    def check(self) -> None:
        """Raise BrokerUnavailable with the end of the log when a process has ended that nobody killed."""
        for node in self._nodes:
            node.check()

    def kill(self, node: int | None = None) -> None:
        """End one broker (numbered from 0), or all, at once with SIGKILL. The data stays."""
        for each in self._chosen(node):
            each.kill()

    def restart(self, node: int | None = None) -> None:
        """Kill what runs and start it again on the same ports and data; return when it serves."""
        self.kill(node)
        self.start(node)

    def start(self, node: int | None = None) -> None:
        """Start brokers that do not run; return when they serve. Raises BrokerUnavailable."""
        deadline = time.monotonic() + self._options.start_timeout_s
        for each in self._chosen(node):
            each.start(self._options.heap_max_mib)
        for each in self._chosen(node):
            each.wait_until_serving(deadline)

    def pause(self, node: int | None = None) -> None:
        """Freeze brokers (SIGSTOP): their ports accept and nothing answers."""
        for each in self._chosen(node):
            each.signal(signal.SIGSTOP)

    def resume(self, node: int | None = None) -> None:
        """Let frozen brokers go on (SIGCONT)."""
        for each in self._chosen(node):
            each.signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill the brokers, as their data is thrown away anyway, and remove the folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _chosen(self, node: int | None) -> list[Node]:
        return self._nodes if node is None else [self._nodes[node]]


def start_local_broker(options: BrokerOptions, report: Report) -> LocalBroker:
    """Apache Kafka in processes of its own, its jars downloaded first if need be.

    Raises RouteClosed when Java, Maven or the download fail, or Kafka does not come up.
    """
    java = jars.find_java()
    classpath = str(jars.ensure_jars(report) / "*")
    folder = Path(tempfile.mkdtemp(prefix="stream-cluster-kafka-"))
    began = time.monotonic()
    nodes: list[Node] = []
    try:
        ports = assign_ports(options)
        for number, node_ports in enumerate(ports, 1):
            node_folder = folder / f"broker-{number}"
            node_folder.mkdir()
            nodes.append(Node(java, classpath, node_folder, node_ports))
            nodes[-1].prepare(server_properties(number, ports, node_folder / "data", options))
        broker = LocalBroker(nodes, options, folder)
        broker.start()
    except BaseException as error:
        for node in nodes:
            node.kill()
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, (BrokerUnavailable, OSError, subprocess.SubprocessError)):
            raise RouteClosed(str(error)) from error
        raise
    report(f"Kafka started in {time.monotonic() - began:.1f} s; its log is {broker.log_path}")
    return broker

"""`make demo`: the main job from beginning to end, with the commands a user would type.

Starts a broker and the service, streams generated camera events, submits a task through its topic, and ends
with the archive's path as the last line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from stream_cluster.config.settings import KafkaSettings
from stream_cluster.errors import StreamClusterError
from stream_cluster.sandbox.choice import start_broker
from stream_cluster.sandbox.mock import MockBroker
from stream_cluster.sandbox.properties import free_ports

OUTPUT = Path("demo-output")
_EVENTS = 4000
_MOCK_EVENTS = 1000  # a mock cluster keeps no more than 5 MiB a partition
_ACCOUNT = "demo"
_READY_TIMEOUT_S = 60.0

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Run the demo in the present directory. Returns the exit status."""
    began = time.monotonic()
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir()
    try:
        with contextlib.ExitStack() as running:
            broker = running.enter_context(start_broker(allow_mock=True, report=_say))
            if isinstance(broker, MockBroker):
                kafka = KafkaSettings()
                broker.create_topics(
                    [kafka.events_topic, kafka.tasks_topic, kafka.results_topic, kafka.dead_letter_topic]
                )
            running.enter_context(_service(broker.bootstrap_servers, transactions=broker.is_real))
            events = OUTPUT / "events.jsonl.gz"
            truth = OUTPUT / "people.csv"
            _command(
                "generate",
                "--events",
                str(_EVENTS if broker.is_real else _MOCK_EVENTS),
                "--output",
                str(events),
                "--truth",
                str(truth),
            )
            _command("produce", str(events), "--config", str(OUTPUT / "demo.toml"))
            archive = _submit()
            _command("inspect", str(OUTPUT / "state"))
    except (StreamClusterError, subprocess.CalledProcessError, TimeoutError) as error:
        console.print(f"demo failed: {error}\nthe service's log is {OUTPUT / 'service.log'}", style="red")
        return 1
    except KeyboardInterrupt:
        console.print("\ndemo stopped")
        return 130
    _show(archive)
    _say(f"took {time.monotonic() - began:.1f} s; look into the archive, or run the same without a broker:")
    _say(f"  stream-cluster cluster {events} --threshold 0.55 --output again.zip")
    print(archive)  # noqa: T201 - the last line is for scripts
    return 0


def _say(text: str) -> None:
    console.print(text, style="dim")


def _program() -> str:
    """The installed command that belongs to this interpreter."""
    return str(Path(sys.executable).with_name("stream-cluster"))


def _command(*arguments: str, capture: bool = False) -> str:
    """Run a `stream-cluster` command and show what was typed.

    Raises:
        CalledProcessError: it failed.
    """
    console.print(f"\n$ stream-cluster {' '.join(arguments)}", style="bold")
    done = subprocess.run(
        [_program(), *arguments], check=True, stdout=subprocess.PIPE if capture else None, text=True
    )
    return done.stdout or ""


@contextlib.contextmanager
def _service(bootstrap_servers: str, *, transactions: bool) -> Iterator[None]:
    """The service as a process of its own, ready; a mock cluster has no transactions."""
    port = free_ports(1)[0]
    config = OUTPUT / "demo.toml"
    config.write_text(
        f"""[kafka]
bootstrap_servers = "{bootstrap_servers}"
group_id = "stream-cluster-demo-{os.getpid()}"
transactions = {str(transactions).lower()}
create_topics = true
partitions = 4
replication_factor = 1

[state]
directory = "{OUTPUT / "state"}"

[results]
directory = "{OUTPUT / "results"}"

[http]
host = "127.0.0.1"
port = {port}
"""
    )
    arguments = ["run", "--config", str(config)]
    console.print(f"\n$ stream-cluster {' '.join(arguments)} &", style="bold")
    with (OUTPUT / "service.log").open("wb") as log:
        # A session of its own: Ctrl-C reaches the demo alone, which then stops the service in order.
        process = subprocess.Popen([_program(), *arguments], stderr=log, start_new_session=True)
    try:
        _wait_until_ready(process, f"http://127.0.0.1:{port}")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait_until_ready(process: subprocess.Popen[bytes], http: str) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    answer = "no answer"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise StreamClusterError(f"the service ended with status {process.returncode}")
        try:
            with urllib.request.urlopen(f"{http}/readyz", timeout=2) as response:  # noqa: S310 - our own  # nosec B310
                response.read()
            _say(f"the service is ready; metrics are at {http}/metrics while it runs")
            return
        except urllib.error.HTTPError as error:
            answer = error.read().decode().strip()
        except OSError as error:
            answer = str(error)
        time.sleep(0.2)
    raise TimeoutError(f"the service was not ready within {_READY_TIMEOUT_S:.0f} s: {answer}")


def _submit() -> Path:
    """Submit the task and wait for it. Returns the archive's path."""
    location = _command(
        "task", "submit",
        "--account", _ACCOUNT,
        "--descriptor-type", "face",
        "--threshold", "0.55",
        "--columns", "create_time,source,track_id",
        "--config", str(OUTPUT / "demo.toml"),
        "--wait",
        "--timeout-s", "120",
        capture=True,
    )  # fmt: skip
    sys.stdout.write(location)
    url = location.strip().splitlines()[-1]
    return Path(url.removeprefix("file://"))


def _show(archive: Path) -> None:
    """The largest clusters of an archive."""
    with zipfile.ZipFile(archive) as zipped:
        manifest = json.loads(zipped.read("manifest.json"))
        lines = zipped.read("clusters.jsonl").splitlines()[:5]
    counts = manifest["counts"]
    table = Table(title=f"{counts['selected']} objects in {counts['clusters']} clusters, the largest of them")
    for column in ("cluster", "size", "stable id (its oldest member)"):
        table.add_column(column)
    for line in lines:
        cluster = json.loads(line)
        table.add_row(str(cluster["cluster"]), str(cluster["size"]), cluster["id"])
    console.print()
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())

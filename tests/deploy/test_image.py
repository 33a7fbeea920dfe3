"""The image without a Docker engine: the commands of its Dockerfile in an empty folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from deploy import build
from stream_cluster import __version__
from stream_cluster.config import load_settings

ROOT = build.ROOT
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SOURCE, TARGET = "/src", "/opt/stream-cluster"


class Step(NamedTuple):
    """An instruction of a Dockerfile."""

    word: str
    text: str


def stages() -> list[list[Step]]:
    """The instructions of each stage, continued lines joined."""
    joined = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Step]] = []
    for line in joined.splitlines():
        word, _, text = line.strip().partition(" ")
        if word == "FROM":
            found.append([])
        if word and found:
            found[-1].append(Step(word, text.strip()))
    return found


def of(stage: list[Step], word: str) -> list[str]:
    """What the instructions of one kind say."""
    return [step.text for step in stage if step.word == word]


BUILD, FINAL = stages()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the stage `build` leaves in /opt/stream-cluster, made by its own commands elsewhere."""
    folder = tmp_path_factory.mktemp("image")
    source, target = folder / "src", folder / "opt"
    source.mkdir()
    # Nothing of this environment, and nothing of the machine but its programs.
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    for step in BUILD:
        text = step.text.replace(SOURCE, str(source)).replace(TARGET, str(target))
        if step.word == "ENV":
            environment |= dict(re.findall(r"(\w+)=(\S+)", text))
        elif step.word == "COPY":
            copy(text.split(), source)
        elif step.word == "RUN" and "apt-get" not in text:
            subprocess.run(["sh", "-eu", "-c", text], cwd=source, env=environment, check=True, timeout=600)
    # Only what the last stage takes over may be needed.
    shutil.rmtree(source)
    return target


def copy(arguments: list[str], folder: Path) -> None:
    """COPY of files that git knows, as a clone has them."""
    *names, to = arguments
    for name in names:
        listed = subprocess.run(
            ["git", "ls-files", name], cwd=ROOT, capture_output=True, text=True, check=True
        )
        files = listed.stdout.split() or ([name] if (ROOT / name).is_file() else [])
        assert files, f"COPY {name}: no such file"
        for file in files:
            place = (
                folder / to / Path(file).relative_to(name if (ROOT / name).is_dir() else Path(file).parent)
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file, place)


def run(installed: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program of the image, in an empty environment."""
    return subprocess.run(
        [str(installed / "bin" / arguments[0]), *arguments[1:]],
        env={"PATH": "/nonexistent", **environment},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)
def test_the_commands_of_the_dockerfile_make_a_program_that_runs(installed: Path) -> None:
    version = run(installed, "stream-cluster", "--version")
    assert (version.returncode, version.stdout.split()[-1]) == (0, __version__), version.stderr
    checked = run(installed, "stream-cluster", "check-config")
    assert checked.returncode == 0, checked.stderr
    engines = "import hnswlib, stream_cluster.matching._kernel as kernel; print(kernel.__name__)"
    assert run(installed, "python", "-c", engines).returncode == 0


@pytest.mark.timeout(900)
def test_the_installed_program_clusters_a_file(installed: Path, tmp_path: Path) -> None:
    events, archive = tmp_path / "events.jsonl", tmp_path / "faces.zip"
    made = run(
        installed, "stream-cluster", "generate", "--events", "200", "--dim", "64", "--output", str(events)
    )
    assert made.returncode == 0, made.stderr
    done = run(installed, "stream-cluster", "cluster", str(events), "--output", str(archive))
    assert done.returncode == 0, done.stderr
    assert archive.stat().st_size > 1000


@pytest.mark.timeout(900)
def test_the_installed_hnswlib_was_not_built_for_this_processor_alone(installed: Path) -> None:
    if shutil.which("objdump") is None or os.uname().machine != "x86_64":
        pytest.skip("needs objdump and an x86-64 processor")
    (library,) = installed.glob("lib/python*/site-packages/hnswlib*.so")
    code = subprocess.run(
        ["objdump", "--disassemble", "--no-show-raw-insn", str(library)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert len(code) > 100_000
    assert re.findall(r"%[yz]mm\d+", code) == []


def test_only_functions_that_are_chosen_at_run_time_are_built_with_more_than_the_baseline() -> None:
    """Code of a header that is built into a file for AVX could be the copy that the linker keeps for all."""
    objects = sorted((ROOT / "build").glob("cp*/**/tile_*.o"))
    if shutil.which("nm") is None or not objects:
        pytest.skip("needs nm, and the objects of `make setup`")
    for path in objects:
        listed = subprocess.run(
            ["nm", "--defined-only", str(path)], capture_output=True, text=True, check=True
        )
        shared = [line for line in listed.stdout.splitlines() if re.search(r" [WVu] ", line)]
        assert shared == [], path.name


@pytest.mark.timeout(900)
def test_the_image_has_no_pip_and_no_tests_of_libraries(installed: Path) -> None:
    assert not (installed / "bin" / "pip").exists()
    assert list(installed.rglob("tests")) == []


def test_no_build_asks_for_the_processor_it_runs_on() -> None:
    for name in ("CMakeLists.txt", "pyproject.toml", "Dockerfile"):
        assert "march=native" not in (ROOT / name).read_text(encoding="utf-8"), name
    assert any("HNSWLIB_NO_NATIVE=1" in text for text in of(BUILD, "ENV"))


def test_the_final_stage_has_no_compiler_and_is_not_root() -> None:
    assert not any("apt-get" in text or "pip" in text for text in of(FINAL, "RUN"))
    assert of(FINAL, "USER") == ["10001:10001"]
    assert of(FINAL, "COPY") == [f"--from=build {TARGET} {TARGET}"]
    assert of(FINAL, "ENTRYPOINT") == ['["stream-cluster"]']
    assert of(FINAL, "STOPSIGNAL") == ["SIGTERM"]
    assert "/livez" in "".join(of(FINAL, "HEALTHCHECK"))


def test_every_image_is_named_by_its_version() -> None:
    images = re.findall(r"^ARG PYTHON=(.+)$", DOCKERFILE, re.MULTILINE)
    images += [service["image"].rpartition(":")[2] for service in COMPOSE["services"].values()]
    assert len(images) == 6
    assert all(re.fullmatch(r"v?\d+\.\d+\.\d+(-\S+)?", tag) for tag in images), images


def test_the_environment_of_the_image_is_settings() -> None:
    environment = dict(re.findall(r"(STREAM_CLUSTER_\w+)=(\S+)", " ".join(of(FINAL, "ENV"))))
    settings = load_settings(None, environment)
    for directory in (settings.state.directory, settings.results.directory):
        assert directory.startswith(f"{of(FINAL, 'VOLUME')[0]}/")


def test_the_lock_of_the_image_is_part_of_the_lock_of_development() -> None:
    def pinned(name: str) -> dict[str, str]:
        text = (ROOT / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^([\w.-]+(?:\[[^]]*\])?)==(\S+)", text, re.MULTILINE))

    image, development = pinned("requirements-run.lock"), pinned("requirements.lock")
    assert image.items() <= development.items()
    assert "pytest" not in image
    declared = re.search(
        r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL
    )
    assert declared is not None
    assert set(re.findall(r'"([\w-]+)', declared[1])) <= {name.partition("[")[0] for name in image}


def test_the_build_context_holds_what_is_copied_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in lines if line.startswith("!")}
    copied = {name.removeprefix("./") for text in of(BUILD, "COPY") for name in text.split()[:-1]}
    assert "*" in lines
    assert allowed == copied


# -- compose.yaml --------------------------------------------------------------------------------------


def test_compose_mounts_files_that_exist_and_volumes_that_it_names() -> None:
    for name, service in COMPOSE["services"].items():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], (
                name,
                mount,
            )


def test_the_settings_of_compose_load_and_its_stop_is_long_enough() -> None:
    service = COMPOSE["services"]["service"]
    settings = load_settings(None, service["environment"])
    assert settings.kafka.bootstrap_servers == "kafka:9092"
    assert (
        "PLAINTEXT://kafka:9092" in COMPOSE["services"]["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    )
    assert service["ports"] == [f"127.0.0.1:8080:{settings.http.port}"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]


def test_compose_provisions_prometheus_and_grafana_with_what_is_committed() -> None:
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yaml").read_text(encoding="utf-8"))
    assert scrape["scrape_configs"][0]["static_configs"] == [{"targets": ["service:8080"]}]
    assert scrape["rule_files"] == ["alerts.yaml"]
    folder = ROOT / "deploy/compose/grafana"
    (source,) = yaml.safe_load((folder / "datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards/stream-cluster.yaml").read_text())["providers"]
    assert f"./dashboards:{provider['options']['path']}:ro" in COMPOSE["services"]["grafana"]["volumes"]

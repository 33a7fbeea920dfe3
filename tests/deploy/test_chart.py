"""The Helm chart, checked without a Kubernetes: rendered, validated, scored, and loaded by the service."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.main import get_command

from deploy import build
from stream_cluster.cli import app
from stream_cluster.config import Settings, load_settings
from tests.support.chart import (
    CI_FILES,
    Manifest,
    every_ci_file,
    helm,
    manifests,
    needs_tools,
    only,
    pods,
    rendered,
    schema_problems,
)

SECRETS = "/etc/stream-cluster/secrets"
VALUES = yaml.safe_load((build.CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((build.CHART / "values.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _tools() -> None:
    needs_tools("helm", "kube-score", "helm-docs")


def test_generated_files_are_up_to_date() -> None:
    stale = [str(path.relative_to(build.ROOT)) for path in build.outdated()]
    assert stale == [], "run `make deploy-files` and look at the difference"


@every_ci_file
def test_helm_lint_is_satisfied(values: Path) -> None:
    done = helm("lint", "--strict", str(build.CHART), "--values", str(values))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kubernetes", build.KUBERNETES_VERSIONS)
@every_ci_file
def test_manifests_are_valid_in_every_version_of_kubernetes(values: Path, kubernetes: str) -> None:
    found = rendered(values, kubernetes)
    assert len(found) >= 5
    problems = [problem for manifest in found for problem in schema_problems(manifest, kubernetes)]
    assert problems == []


def test_a_field_that_kubernetes_does_not_know_is_noticed() -> None:
    manifest = copy.deepcopy(only(rendered(CI_FILES[0]), "StatefulSet"))
    manifest["spec"]["template"]["spec"]["terminationGracePeriodSecond"] = 1
    assert any("terminationGracePeriodSecond" in problem for problem in schema_problems(manifest, "1.30.0"))


@every_ci_file
def test_kube_score_has_nothing_critical_to_say(values: Path) -> None:
    # What is left out: a limit of the CPU would throttle heartbeats; when to pull is the
    # user's choice, and with a digest it makes no difference.
    left_out = ["container-image-pull-policy"]
    if not VALUES["networkPolicy"]["enabled"] or "minimal" in values.stem:
        left_out.append("pod-networkpolicy")
    command = [
        build.tool("kube-score"),
        "score",
        "-",
        "--ignore-container-cpu-limit",
        "--kubernetes-version",
        "v1.30",
    ]
    command += [f"--ignore-test={name}" for name in left_out]
    text = build.render("--values", str(values))
    done = subprocess.run(
        [*command, "--output-format", "ci"], input=text, capture_output=True, text=True, check=False
    )
    critical = [line for line in done.stdout.splitlines() if line.startswith("[CRITICAL]")]
    assert (done.returncode, critical) == (0, []), done.stdout + done.stderr


# -- settings ------------------------------------------------------------------------------------------


def settings_of(found: list[Manifest], folder: Path) -> Settings:
    """The settings of a worker as it would load them: ConfigMap, environment and mounted secrets."""
    (container,) = only(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    for mount in container["volumeMounts"]:
        if mount["mountPath"].startswith(SECRETS):
            (folder / Path(mount["mountPath"]).name).mkdir(parents=True, exist_ok=True)
    (config_map,) = [m for m in found if m["kind"] == "ConfigMap" and "stream-cluster.yaml" in m["data"]]
    text = config_map["data"]["stream-cluster.yaml"]
    for path in re.findall(rf"{SECRETS}/(\S+)", text):
        # Fails where the values name a file of a Secret that they do not mount.
        (folder / path).write_text("secret", encoding="utf-8")
    file = folder / "stream-cluster.yaml"
    file.write_text(text.replace(SECRETS, str(folder)), encoding="utf-8")
    environment = {}
    for variable in container["env"]:
        if "value" in variable:
            environment[variable["name"]] = variable["value"].replace("$(POD_NAME)", "sc-stream-cluster-0")
        elif "resourceFieldRef" in variable["valueFrom"]:
            environment[variable["name"]] = "2"
        elif "secretKeyRef" in variable["valueFrom"]:
            environment[variable["name"]] = "secret"
    assert environment.pop("STREAM_CLUSTER_CONFIG") == "/etc/stream-cluster/config/stream-cluster.yaml"
    return load_settings(file, environment)


@every_ci_file
def test_the_service_loads_its_settings(values: Path, tmp_path: Path) -> None:
    found = rendered(values)
    settings = settings_of(found, tmp_path)
    given = yaml.safe_load(values.read_text(encoding="utf-8")).get("config", {})
    assert settings.kafka.bootstrap_servers == given.get("kafka", {}).get("bootstrap_servers", "kafka:9092")
    (container,) = only(found, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == settings.http.port
    # Both must be on a volume: nothing else can be written.
    mounts = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    for directory in (settings.state.directory, settings.results.directory):
        assert any(directory == mount or directory.startswith(mount + "/") for mount in mounts), directory


def test_large_numbers_reach_the_service_as_they_are(tmp_path: Path) -> None:
    (values,) = [path for path in CI_FILES if path.stem == "production-values"]
    settings = settings_of(rendered(values), tmp_path)
    assert settings.matching.hnsw_after == 5_000_000
    assert settings.results.ttl_s == 604_800


def test_each_worker_is_named_after_its_pod_in_its_group_too_unless_unwanted(tmp_path: Path) -> None:
    settings = settings_of(manifests(), tmp_path)
    assert settings.kafka.client_id == "sc-stream-cluster-0"
    assert settings.kafka.group_instance_id == "sc-stream-cluster-0"
    unwanted = settings_of(manifests("--set", "staticMembership=false"), tmp_path)
    assert unwanted.kafka.client_id == "sc-stream-cluster-0"
    assert unwanted.kafka.group_instance_id is None


def test_a_gap_is_accepted_only_when_the_values_say_so() -> None:
    def arguments(*options: str) -> list[str]:
        (container,) = only(manifests(*options), "StatefulSet")["spec"]["template"]["spec"]["containers"]
        return list(container["args"])

    assert arguments() == ["run"]
    assert arguments("--set", "acceptGap=true") == ["run", "--accept-gap"]


def test_threads_are_those_that_are_requested_unless_the_settings_say_otherwise(tmp_path: Path) -> None:
    assert settings_of(manifests(), tmp_path).matching.threads == 2
    assert settings_of(manifests("--set", "config.matching.threads=3"), tmp_path).matching.threads == 3


def test_other_settings_are_other_pods() -> None:
    def checksum(*arguments: str) -> str:
        template = only(manifests(*arguments), "StatefulSet")["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/config"])

    assert checksum() == checksum("--set", "replicas=2")
    assert checksum() != checksum("--set", "config.tasks.concurrency=2")


# -- values --------------------------------------------------------------------------------------------


def misspelt(values: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, copy of the values) with one key misspelt after the other, where the chart knows the keys."""
    if isinstance(values, list):
        for index, item in enumerate(values):
            for where, changed in misspelt(item, f"{path}[{index}]"):
                yield where, [*values[:index], changed, *values[index + 1 :]]
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        yield f"{path}.{key}", {(f"{name}x" if name == key else name): item for name, item in values.items()}
        for where, changed in misspelt(value, f"{path}.{key}"):
            yield where, {**values, key: changed}


# Kubernetes' own objects, and texts under names of the user's choice.
FREE = re.compile(
    r"\.(env|extraVolumes|extraVolumeMounts|tolerations|affinity)\[?.*\]?\..*|\.networkPolicy\.(egress|metricsFrom)\[.*"
    r"|\.(podAnnotations|podLabels|nodeSelector)\..*|\.\w+\.(labels|extraLabels|annotations|requests|limits)\..*"
)


@every_ci_file
def test_every_key_of_a_ci_file_is_refused_when_it_is_misspelt(values: Path) -> None:
    given = yaml.safe_load(values.read_text(encoding="utf-8"))
    validator = jsonschema.Draft7Validator(SCHEMA)
    assert list(validator.iter_errors(given)) == []
    accepted = [
        path
        for path, changed in misspelt(given)
        if not FREE.fullmatch(path.replace(".alerts.limits", ".alerts.bounds"))
        and validator.is_valid(changed)
    ]
    assert accepted == []


@pytest.mark.parametrize(
    "change",
    [
        "replica=2",
        "config.kafka.boostrap_servers=a:1",
        "config.kafkas.group_id=a",
        "storage.sise=1Gi",
        "replicas=-1",
    ],
)
def test_helm_refuses_values_that_it_does_not_know(change: str) -> None:
    done = helm("template", "sc", str(build.CHART), "--kube-version", "1.30.0", "--set", change)
    assert done.returncode != 0
    assert "values don't meet the specifications of the schema" in done.stderr


def test_a_ci_file_with_a_misspelt_key_fails(tmp_path: Path) -> None:
    (values,) = [path for path in CI_FILES if path.stem == "production-values"]
    broken = tmp_path / "values.yaml"
    broken.write_text(values.read_text(encoding="utf-8").replace("bootstrap_servers:", "boostrap_servers:"))
    done = helm("lint", "--strict", str(build.CHART), "--values", str(broken))
    assert done.returncode != 0
    assert "boostrap_servers" in done.stdout + done.stderr


def test_default_values_fit_the_schema_and_the_schema_names_no_other_keys() -> None:
    assert list(jsonschema.Draft7Validator(SCHEMA).iter_errors(VALUES)) == []
    assert set(SCHEMA["properties"]) == set(VALUES) | {"global"}


# -- operation -----------------------------------------------------------------------------------------


@every_ci_file
def test_every_pod_is_restricted(values: Path) -> None:
    found = list(pods(rendered(values)))
    assert {kind for kind, _ in found} >= {"StatefulSet", "Pod"}
    for _, pod in found:
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] >= 10_000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in pod["containers"]:
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_the_start_may_take_as_long_as_the_values_say() -> None:
    pod = only(manifests("--set", "probes.startup.timeoutSeconds=903"), "StatefulSet")["spec"]["template"][
        "spec"
    ]
    probe = pod["containers"][0]["startupProbe"]
    assert probe["failureThreshold"] * probe["periodSeconds"] >= 903


@every_ci_file
def test_the_grace_of_a_stop_is_longer_than_its_drain(values: Path, tmp_path: Path) -> None:
    found = rendered(values)
    settings = settings_of(found, tmp_path)
    grace_s = only(found, "StatefulSet")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    # Brokers that do not answer hold up a stop for one request; a batch and the caches take seconds.
    backup_s = settings.backup.final_timeout_s if settings.backup.enabled else 0
    assert grace_s >= settings.kafka.request_timeout_ms / 1000 + backup_s + 30


def test_a_scheduled_task_is_submitted_once_with_options_that_exist() -> None:
    (values,) = [path for path in CI_FILES if path.stem == "scheduled-values"]
    submit = get_command(app).commands["task"].commands["submit"]
    known = {option for parameter in submit.params for option in parameter.opts}
    jobs = [manifest for manifest in rendered(values) if manifest["kind"] == "CronJob"]
    assert len(jobs) == 2
    for job in jobs:
        (container,) = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        arguments = container["args"]
        assert arguments[:2] == ["task", "submit"]
        assert {word for word in arguments if word.startswith("--")} <= known
        assert arguments[arguments.index("--task-id") + 1] == "$(JOB_NAME)"
        assert len(job["metadata"]["name"]) <= 52


def test_the_topics_are_those_of_the_settings() -> None:
    (values,) = [path for path in CI_FILES if path.stem == "autoscaled-values"]
    topics = {m["spec"]["topicName"]: m["spec"] for m in rendered(values) if m["kind"] == "KafkaTopic"}
    kafka = Settings().kafka
    assert set(topics) == {
        "Faces_Events",
        kafka.tasks_topic,
        kafka.results_topic,
        kafka.dead_letter_topic,
        kafka.updates_topic,
    }
    assert topics[kafka.updates_topic]["partitions"] == topics["Faces_Events"]["partitions"] == 24
    assert (
        topics[kafka.dead_letter_topic]["config"]["max.message.bytes"] == kafka.max_message_bytes + 64 * 1024
    )


def test_the_autoscaler_asks_for_the_group_and_topic_of_the_settings() -> None:
    (values,) = [path for path in CI_FILES if path.stem == "autoscaled-values"]
    found = rendered(values)
    (trigger,) = only(found, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["topic"] == "Faces_Events"
    assert trigger["metadata"]["consumerGroup"] == Settings().kafka.group_id
    assert "replicas" not in only(found, "StatefulSet")["spec"]


def test_dashboards_and_alerts_come_out_of_the_chart_as_they_are() -> None:
    found = manifests("--set", "alerts.enabled=true,dashboards.enabled=true")
    sources = {
        path.name: path.read_text(encoding="utf-8") for path in (build.ROOT / "dashboards").glob("*.json")
    }
    copies = {path.name: path.read_bytes() for path in (build.CHART / "dashboards").glob("*.json")}
    assert copies == {name: text.encode() for name, text in sources.items()}
    maps = [m["data"] for m in found if "grafana_dashboard" in m["metadata"]["labels"]]
    shown = {name.removeprefix("stream-cluster-"): text for data in maps for name, text in data.items()}
    assert shown == {name: text.rstrip("\n") for name, text in sources.items()}
    rules = only(found, "PrometheusRule")["spec"]
    assert rules == yaml.safe_load((build.ROOT / "deploy/prometheus/alerts.yaml").read_text(encoding="utf-8"))


def test_alerts_can_be_left_out_and_labelled() -> None:
    (values,) = [path for path in CI_FILES if path.stem == "production-values"]
    (group,) = only(rendered(values), "PrometheusRule")["spec"]["groups"]
    assert "StreamClusterRecallLow" not in {rule["alert"] for rule in group["rules"]}
    assert {rule["labels"]["team"] for rule in group["rules"]} == {"vision"}
    for rule in group["rules"]:
        expected = f"https://docs.example.com/stream-cluster/runbooks#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == expected


def test_every_limit_of_the_values_is_used_by_an_alert() -> None:
    text = (build.CHART / "files" / "alerts.yaml").read_text(encoding="utf-8")
    body = text[text.index("groups:") :]
    assert set(re.findall(r"@(\w+)@", body)) == set(VALUES["alerts"]["limits"]) | {"runbook"}


def test_the_notes_tell_the_next_commands(tmp_path: Path) -> None:
    # Only an installation shows the notes, and that asks for a Kubernetes; so a manifest takes them.
    chart = tmp_path / "helm"
    shutil.copytree(build.CHART, chart)
    notes = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (chart / "templates" / "_notes.tpl").write_text(
        f'{{{{ define "notes" }}}}{notes}{{{{ end }}}}', encoding="utf-8"
    )
    (chart / "templates" / "notes.yaml").write_text(
        'notes: {{ include "notes" . | quote }}\n', encoding="utf-8"
    )
    found = yaml.safe_load(build.render("--show-only", "templates/notes.yaml", chart=chart))["notes"]
    assert "kubectl -n vision rollout status statefulset/sc-stream-cluster" in found
    assert "helm -n vision test sc" in found
    assert "stream-cluster task submit --account ACCOUNT" in found
    assert "Archives are on the volume of the worker" in found


def test_every_value_is_described() -> None:
    text = (build.CHART / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) \| (\w+) \| (.+?) \|(.*)\|$", text, re.MULTILINE)
    assert len(rows) > 60
    bare = [key for key, _, _, description in rows if not description.strip()]
    # What a Pod or a label has is told by Kubernetes.
    assert [
        key for key in bare if not re.match(r"resources\.|probes\.(live|readi)ness|dashboards\.labels", key)
    ] == []

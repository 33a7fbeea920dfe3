"""Metrics, alerts, dashboards, runbooks and tests of alerts agree on their names."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Set
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest

from deploy import build
from stream_cluster.service.metrics import Metrics
from tests.support.chart import needs_tools
from tests.unit.test_docs import exposed

ROOT = build.ROOT
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yaml"
ALERT_TESTS = ROOT / "deploy" / "prometheus" / "alerts_test.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]
]
NAMES = [rule["alert"] for rule in RULES]
OF_THE_PROCESS = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
}


def expressions() -> list[tuple[str, str]]:
    """(place, expression) of every panel and every alert."""
    found = [(f"alert {rule['alert']}", rule["expr"]) for rule in RULES]
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            found += [
                (f"{path.name}: {panel['title']}", target["expr"]) for target in panel.get("targets", [])
            ]
    return found


def unknown_metrics(known: Set[str]) -> dict[str, set[str]]:
    """Place → metrics that are named there and that do not exist."""
    unknown: dict[str, set[str]] = {}
    for place, expr in expressions():
        if names := set(re.findall(r"\b(?:stream_cluster|process)_\w+", expr)) - known:
            unknown.setdefault(place, set()).update(names)
    return unknown


def test_every_metric_of_a_panel_or_an_alert_exists() -> None:
    assert len(expressions()) > 60
    assert unknown_metrics(exposed() | OF_THE_PROCESS) == {}
    families = {sample.name for family in Metrics().registry.collect() for sample in family.samples}
    assert families >= OF_THE_PROCESS


def test_a_metric_that_is_renamed_is_noticed_wherever_it_is_used() -> None:
    known = exposed() | OF_THE_PROCESS
    used = set(re.findall(r"\bstream_cluster_\w+", " ".join(expr for _, expr in expressions())))
    assert len(used) > 30
    for name in used:
        places = {place for place, expr in expressions() if re.search(rf"\b{name}\b", expr)}
        assert unknown_metrics((known - {name}) | {f"{name}_renamed"}) == {place: {name} for place in places}


def test_labels_of_a_query_are_labels_of_its_metric() -> None:
    labels = {
        sample.name: set(sample.labels)
        for family in Metrics().registry.collect()
        for sample in family.samples
    }
    of_scrape = {"job", "instance"}
    # Set while it runs, by partition or engine.
    late = {"stream_cluster_lag_records": {"partition"}, "stream_cluster_lag_seconds": {"partition"}}
    late |= {"stream_cluster_spaces": {"engine"}}
    late |= {
        name: {"partition"}
        for name in ("stream_cluster_backup_age_seconds", "stream_cluster_backup_size_bytes")
    }
    late |= {
        name: {"directory"} for name in ("stream_cluster_disk_free_bytes", "stream_cluster_disk_size_bytes")
    }
    for place, expr in expressions():
        for name, matchers in re.findall(r"\b(stream_cluster_\w+)\{([^}]*)\}", expr):
            asked = set(re.findall(r"(\w+)\s*(?:=|!)", matchers))
            assert asked <= labels.get(name, set()) | late.get(name, set()) | of_scrape, (place, name)


def test_the_limit_of_a_clusters_share_is_a_bound_of_its_histogram() -> None:
    bounds = {
        sample.labels["le"]
        for family in Metrics().registry.collect()
        for sample in family.samples
        if sample.name == "stream_cluster_largest_cluster_share_bucket"
    }
    schema = json.loads((build.CHART / "values.schema.json").read_text(encoding="utf-8"))
    limits = schema["properties"]["alerts"]["properties"]["limits"]["properties"]["clusterShare"]["enum"]
    assert {str(limit) for limit in limits} <= bounds


def test_every_panel_asks_a_question_and_has_unit_description_and_colours() -> None:
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        panels = json.loads(path.read_text(encoding="utf-8"))["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        for panel in panels:
            if panel["type"] == "row":
                continue
            defaults = panel["fieldConfig"]["defaults"]
            assert panel["title"].endswith("?")
            assert len(panel["description"]) > 20, panel["title"]
            assert defaults["unit"]
            assert defaults["thresholds"]["steps"][0]["value"] is None, panel["title"]
            assert all(step["color"] for step in defaults["thresholds"]["steps"])


def test_panels_do_not_overlap() -> None:
    for path in sorted((ROOT / "dashboards").glob("*.json")):
        taken: set[tuple[int, int]] = set()
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            place = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            }
            assert not cells & taken, (path.name, panel["title"])
            assert place["x"] + place["w"] <= 24
            taken |= cells


def test_every_alert_has_a_runbook_with_four_parts() -> None:
    sections = re.split(r"^## (?=StreamCluster)", RUNBOOKS.read_text(encoding="utf-8"), flags=re.MULTILINE)[
        1:
    ]
    assert [section.splitlines()[0] for section in sections] == NAMES
    for section in sections:
        parts = re.findall(r"^\*\*(\w+)\.\*\* \S", section, re.MULTILINE)
        assert parts == ["Meaning", "Impact", "Diagnosis", "Mitigation"], section.splitlines()[0]
    for rule in RULES:
        assert rule["annotations"]["runbook_url"] == f"docs/runbooks.md#{rule['alert'].lower()}"


def test_every_alert_fires_in_a_test_of_its_own_and_stays_silent_in_it_before() -> None:
    tests = [
        test
        for group in yaml.safe_load(ALERT_TESTS.read_text(encoding="utf-8"))["tests"]
        for test in group["alert_rule_test"]
    ]
    firing = [test["alertname"] for test in tests if test.get("exp_alerts")]
    assert sorted(set(firing)) == sorted(NAMES)
    silent = {test["alertname"] for test in tests if not test.get("exp_alerts")}
    # That its series without an alert stay silent is told by the list of those that fire.
    assert silent >= set(NAMES) - {"StreamClusterRecallLow"}


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run promtool in the folder of the alerts."""
    needs_tools("promtool")
    return subprocess.run(
        [build.tool("promtool"), *arguments], cwd=ALERTS.parent, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "rules", "alerts.yaml"),
        ("check", "config", "prometheus.yaml"),
        ("test", "rules", "alerts_test.yaml"),
    ],
    ids=" ".join,
)
def test_promtool_is_satisfied(arguments: tuple[str, ...]) -> None:
    done = promtool(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_notices_an_alert_that_asks_for_another_metric(tmp_path: Path) -> None:
    changed = ALERTS.read_text(encoding="utf-8").replace(
        "stream_cluster_lag_records", "stream_cluster_backlog"
    )
    (tmp_path / "alerts.yaml").write_text(changed, encoding="utf-8")
    (tmp_path / "alerts_test.yaml").write_bytes(ALERT_TESTS.read_bytes())
    done = promtool("test", "rules", str(tmp_path / "alerts_test.yaml"))
    assert done.returncode != 0
    assert "StreamClusterLagGrowing" in done.stdout + done.stderr


def test_metrics_page_tells_promtool_nothing_but_the_truth() -> None:
    needs_tools("promtool")
    page = generate_latest(Metrics().registry)
    done = subprocess.run(
        [build.tool("promtool"), "check", "metrics"], input=page, capture_output=True, check=False
    )
    said = [line for line in done.stderr.decode().splitlines() if line.startswith("stream_cluster_")]
    assert said == []

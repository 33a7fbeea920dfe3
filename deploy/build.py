"""Writes the files that are made from others: `make deploy-files`. Needs the programs of `deploy/tools.sh`.

| file | made from |
|---|---|
| `dashboards/*.json`, and their copies in the chart | `deploy/dashboards/*.yaml` |
| the definitions in `deploy/helm/values.schema.json` | the settings of the service |
| `deploy/helm/README.md` | the comments of `values.yaml`, by helm-docs |
| `deploy/prometheus/alerts.yaml` | `deploy/helm/files/alerts.yaml` with the limits of `values.yaml` |
| `deploy/examples/*.yaml` | the chart, rendered |
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import yaml

from deploy.dashboards import dashboards
from stream_cluster.config import Settings

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy" / "helm"
KUBERNETES_VERSIONS = ("1.30.0", "1.33.0", "1.36.0")
"""Oldest, middle and newest version that the chart is checked for."""

_EXAMPLES = {"default.yaml": "default-values.yaml", "production.yaml": "production-values.yaml"}


def tool(name: str) -> str:
    """Path of a program of `deploy/tools.sh`. Raises FileNotFoundError."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise FileNotFoundError(f"{name}: found none in {path.parent}, expected it from deploy/tools.sh")
    return str(path)


def render(*arguments: str, chart: Path = CHART, kubernetes: str = KUBERNETES_VERSIONS[-1]) -> str:
    """Manifests of the chart. Raises CalledProcessError with what helm says."""
    command = [
        tool("helm"),
        "template",
        "sc",
        str(chart),
        "--namespace",
        "vision",
        "--kube-version",
        kubernetes,
    ]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout


def files() -> dict[Path, str]:
    """Every generated file and the text that it should have."""
    found: dict[Path, str] = {CHART / "values.schema.json": _schema()}
    for name, text in dashboards().items():
        found[ROOT / "dashboards" / name] = text
        found[CHART / "dashboards" / name] = text
    with tempfile.TemporaryDirectory() as folder:
        # The chart as it will be: what is rendered is made of what is generated.
        chart = Path(folder) / "helm"
        shutil.copytree(CHART, chart)
        for path, text in found.items():
            if path.is_relative_to(CHART):
                (chart / path.relative_to(CHART)).write_text(text, encoding="utf-8")
        found[CHART / "README.md"] = _readme(chart)
        found[ROOT / "deploy" / "prometheus" / "alerts.yaml"] = _alerts(chart)
        for name, values in _EXAMPLES.items():
            # Dashboards stand in a folder of their own already.
            arguments = ("--values", str(chart / "ci" / values), "--set", "dashboards.enabled=false")
            found[ROOT / "deploy" / "examples" / name] = render(*arguments, chart=chart)
    return found


def _schema() -> str:
    path = CHART / "values.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    schema["definitions"] = settings_definitions()
    return json.dumps(schema, indent=2) + "\n"


def settings_definitions() -> dict[str, Any]:
    """JSON Schema (draft 7, which every Helm 3 knows) of the settings, unknown names refused."""
    _, components = msgspec.json.schema_components([Settings], ref_template="#/definitions/{name}")
    adapted: dict[str, Any] = _adapt(components)
    return adapted


def _adapt(node: Any) -> Any:
    """msgspec's schema (2020-12) as draft 7, without defaults: the service has them."""
    if isinstance(node, list):
        return [_adapt(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {key: value for key, value in node.items() if key not in {"default", "discriminator"}}
    if "prefixItems" in kept:
        kept["items"] = kept.pop("prefixItems")
    properties = kept.pop("properties", None)
    adapted = {key: _adapt(value) for key, value in kept.items()}
    if properties is not None:
        # Not through `_adapt` as a whole: a setting may be called `default`.
        adapted["properties"] = {name: _adapt(value) for name, value in properties.items()}
    return adapted


def _readme(chart: Path) -> str:
    """Written into the chart that is given, which is a copy, and returned."""
    command = [tool("helm-docs"), "--chart-search-root", str(chart), "--log-level", "error"]
    subprocess.run([*command, "--document-dependency-values=false"], check=True, capture_output=True)
    return (chart / "README.md").read_text(encoding="utf-8")


def _alerts(chart: Path) -> str:
    """The rules alone, with the limits of `values.yaml`, for a Prometheus without an operator."""
    only_rules = ("--set", "alerts.enabled=true", "--show-only", "templates/prometheusrule.yaml")
    rules = {"groups": yaml.safe_load(render(*only_rules, chart=chart))["spec"]["groups"]}
    head = "# Written by `make deploy-files` from files/alerts.yaml and values.yaml of the chart.\n"
    return head + yaml.safe_dump(rules, sort_keys=False, width=110)


def outdated() -> dict[Path, str]:
    """Generated files that differ from what they should be, with the text that they should have."""
    return {
        path: text
        for path, text in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def main() -> None:
    """The command."""
    for path, text in outdated().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(ROOT)}: written\n")


if __name__ == "__main__":
    main()

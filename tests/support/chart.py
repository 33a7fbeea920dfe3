"""The chart as Kubernetes would see it: rendered, and held against the schemas of Kubernetes itself."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import yaml
from referencing.jsonschema import DRAFT202012

from deploy import build
from tests.conftest import in_ci
from tests.support.custom_resources import CUSTOM_RESOURCES

CI_FILES = sorted((build.CHART / "ci").glob("*-values.yaml"))
Manifest = dict[str, Any]

every_ci_file = pytest.mark.parametrize("values", CI_FILES, ids=lambda path: path.stem)


def needs_tools(*names: str) -> None:
    """Skip where the programs of `deploy/tools.sh` are not there; in CI, fail."""
    try:
        for name in names:
            build.tool(name)
    except FileNotFoundError as reason:
        if in_ci():
            pytest.fail(f"CI is set, so the programs are required; {reason}", pytrace=False)
        pytest.skip(str(reason))


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm; the caller looks at the exit code."""
    return subprocess.run([build.tool("helm"), *arguments], capture_output=True, text=True, check=False)


@functools.cache
def manifests(*arguments: str, kubernetes: str = build.KUBERNETES_VERSIONS[-1]) -> list[Manifest]:
    """What helm makes with these options."""
    text = build.render(*arguments, kubernetes=kubernetes)
    return [document for document in yaml.safe_load_all(text) if document]


def rendered(values: Path, kubernetes: str = build.KUBERNETES_VERSIONS[-1]) -> list[Manifest]:
    """What helm makes of a values file."""
    return manifests("--values", str(values), kubernetes=kubernetes)


def only(found: list[Manifest], kind: str) -> Manifest:
    """The one manifest of a kind."""
    (one,) = [manifest for manifest in found if manifest["kind"] == kind]
    return one


def pods(found: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(kind, pod spec) of everything that makes pods."""
    for manifest in found:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Pod":
                yield "Pod", spec
            case "StatefulSet":
                yield "StatefulSet", spec["template"]["spec"]
            case "CronJob":
                yield "CronJob", spec["jobTemplate"]["spec"]["template"]["spec"]


def schema_problems(manifest: Manifest, kubernetes: str) -> list[str]:
    """What is wrong with a manifest: an unknown field, a wrong type, a missing field."""
    validator = _validator(manifest["apiVersion"], manifest["kind"], kubernetes)
    name = f"{manifest['kind']} {manifest['metadata']['name']}"
    return [f"{name}: {error.json_path}: {error.message}" for error in validator.iter_errors(manifest)]


@functools.cache
def _validator(api_version: str, kind: str, kubernetes: str) -> Any:
    if (schema := CUSTOM_RESOURCES.get((api_version, kind))) is not None:
        return jsonschema.Draft202012Validator(schema)
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    folder = _schemas(kubernetes)
    schema = json.loads((folder / f"{kind.lower()}-{group}.json").read_text(encoding="utf-8"))
    return jsonschema.Draft202012Validator(schema, registry=_registry(folder))


def _schemas(kubernetes: str) -> Path:
    # The package's own function reads megabytes for each manifest, so only its files are used.
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        needs_tools("kubernetes-validate")
        raise AssertionError("kubernetes-validate is not a package")
    return Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema" / f"v{kubernetes}-local-strict"


@functools.cache
def _registry(folder: Path) -> referencing.Registry[Any]:
    definitions = json.loads((folder / "_definitions.json").read_text(encoding="utf-8"))
    resource = referencing.Resource.from_contents(definitions, default_specification=DRAFT202012)
    registry: referencing.Registry[Any] = referencing.Registry().with_resources(
        [("_definitions.json", resource), (definitions.get("$id", "file://_definitions.json"), resource)]
    )
    return registry

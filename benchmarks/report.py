"""What every benchmark leaves behind: its command, its parameters, the machine, and the results, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_report(
    path: Path | None,
    name: str,
    command: str,
    *,
    parameters: Mapping[str, Any],
    environment: Mapping[str, Any],
    results: Mapping[str, Any],
    keep: bool = False,
    **more: Any,
) -> None:
    """Write it; with no path, do nothing.

    `environment`: as `benchmarks.environment` gave it before the measurement. `more` stands before it.
    `keep` adds the results to those of the file, if there is one: the file's parameters and environment stay,
    and `added` says of each later run what it measured, and where. A run may write again and again.
    """
    if path is None:
        return
    if keep and path.exists():
        report = json.loads(path.read_text())
        report["results"] |= results
        if report["environment"] != environment:
            later = {"results": list(results), "parameters": dict(parameters), **more}
            # What this run wrote before is in its results again; of what others measured, what stands.
            others = [one for one in report.get("added", []) if one["environment"] != environment]
            stand = [
                one | {"results": [name for name in one["results"] if name not in results]} for one in others
            ]
            kept = [one for one in stand if one["results"]]
            report["added"] = [*kept, {**later, "environment": dict(environment)}]
        path.write_text(json.dumps(report, indent=2) + "\n")
        return
    report = {
        "benchmark": name,
        "command": command,
        "parameters": dict(parameters),
        **more,
        "environment": dict(environment),
        "results": dict(results),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")

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
    **more: Any,
) -> None:
    """Write it; with no path, do nothing.

    `environment`: as `benchmarks.environment` gave it before the measurement. `more` stands before it.
    """
    if path is None:
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

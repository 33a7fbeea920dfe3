"""Committed results of benchmarks, and how their figures are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "benchmarks" / "results"


def leaves(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted name and value of each figure."""
    for name, item in value.items():
        if isinstance(item, dict):
            yield from leaves(item, f"{prefix}{name}.")
        elif not (isinstance(item, list) and item and isinstance(item[0], dict)):  # those are for the file
            yield prefix + name, item


def figure(name: str, value: Any) -> str:
    """A value for people; its name tells the unit."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and name.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return ", ".join(str(item) for item in value) if isinstance(value, list) else str(value)

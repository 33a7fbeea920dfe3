"""Grafana dashboards from the panels of `deploy/dashboards/*.yaml`.

In a query `%w` stands for the selector of the workers that were chosen on the page, and `%r` for the interval
of a rate.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SOURCES = Path(__file__).resolve().parent / "dashboards"

_WORKERS = 'job=~"$job", instance=~"$worker"'
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH = 24
_STAT_HEIGHT, _SERIES_HEIGHT = 4, 8


def dashboards() -> dict[str, str]:
    """File name → JSON text of every dashboard."""
    return {
        f"{path.stem}.json": json.dumps(_dashboard(path.stem, _load(path)), indent=2) + "\n"
        for path in sorted(SOURCES.glob("*.yaml"))
    }


def query(expr: str) -> str:
    """A query as Grafana has it."""
    return expr.replace("%w", _WORKERS).replace("%r", "$__rate_interval")


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def _dashboard(name: str, source: dict[str, Any]) -> dict[str, Any]:
    return {
        "uid": f"stream-cluster-{name}",
        "title": source["title"],
        "description": source["description"],
        "tags": ["stream-cluster"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [
            {
                "title": "stream-cluster",
                "type": "dashboards",
                "tags": ["stream-cluster"],
                "asDropdown": True,
                "includeVars": True,
                "keepTime": True,
            }
        ],
        "templating": {"list": _variables()},
        "panels": list(_panels(source["rows"])),
    }


def _variables() -> list[dict[str, Any]]:
    chosen = {
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"text": "All", "value": "$__all"},
    }
    of_label = {"type": "query", "datasource": _DATASOURCE, "refresh": 2, "sort": 1, **chosen}
    jobs = "label_values(stream_cluster_build_info, job)"
    workers = 'label_values(stream_cluster_build_info{job=~"$job"}, instance)'
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        {"name": "job", "label": "Job", "query": jobs, "definition": jobs, **of_label},
        {"name": "worker", "label": "Worker", "query": workers, "definition": workers, **of_label},
    ]


def _panels(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Panels of all rows: numbers side by side in one line, then lines of two or three charts."""
    number, top = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row["title"],
            "collapsed": False,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": _WIDTH, "h": 1},
        }
        top += 1
        for kind, height in (("stat", _STAT_HEIGHT), ("timeseries", _SERIES_HEIGHT)):
            panels = [panel for panel in row["panels"] if panel["type"] == kind]
            across = len(panels) if kind == "stat" else 3 if len(panels) % 3 == 0 else 2
            for index, panel in enumerate(panels):
                number += 1
                line, column = divmod(index, across)
                width = _WIDTH // across
                place = {"x": column * width, "y": top + line * height, "w": width, "h": height}
                yield _panel(number, panel, place)
            top += -(-len(panels) // max(across, 1)) * height


def _panel(number: int, source: dict[str, Any], place: dict[str, int]) -> dict[str, Any]:
    steps = [{"color": color, "value": value} for color, value in source["thresholds"].items()]
    is_stat = source["type"] == "stat"
    custom = {"fillOpacity": 10, "showPoints": "never", "thresholdsStyle": {"mode": _style(steps)}}
    defaults: dict[str, Any] = {
        "unit": source["unit"],
        "color": {"mode": "thresholds" if is_stat else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
        "noValue": "none" if any(one.get("empty_when_healthy") for one in source["queries"]) else "no data",
        **({} if is_stat else {"custom": custom}),
    }
    calculation = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    return {
        "id": number,
        "type": source["type"],
        "title": source["title"],
        "description": source["description"],
        "datasource": _DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"colorMode": "background", "graphMode": "area", "reduceOptions": calculation}
        if is_stat
        else {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _DATASOURCE,
                "expr": query(one["expr"]),
                "legendFormat": one.get("legend", source["title"]),
            }
            for index, one in enumerate(source["queries"])
        ],
    }


def _style(steps: list[dict[str, Any]]) -> str:
    """Thresholds are drawn as lines, where there is more than the one colour that is below all of them."""
    return "line" if len(steps) > 1 else "off"


def empty_when_healthy() -> set[str]:
    """Queries, as Grafana has them, that return nothing while all is well. They are marked in the sources."""
    return {
        query(one["expr"])
        for path in SOURCES.glob("*.yaml")
        for row in _load(path)["rows"]
        for panel in row["panels"]
        for one in panel["queries"]
        if one.get("empty_when_healthy")
    }

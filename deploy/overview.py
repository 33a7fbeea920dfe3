"""The overview dashboard as a picture, from what a Prometheus has: for documentation, without a Grafana."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from deploy.build import ROOT

_COLORS = {"green": "#56a64b", "yellow": "#f2cc0c", "red": "#e02f44", "blue": "#5794f2"}
_POINTS = 240


class Prometheus:
    """The HTTP API of a Prometheus, as far as it is needed here."""

    def __init__(self, address: str) -> None:
        """`address` is http://host:port."""
        self._address = address

    def is_ready(self) -> bool:
        """Whether it answers queries yet."""
        try:
            with urllib.request.urlopen(f"{self._address}/-/ready", timeout=20):  # noqa: S310 - always http
                return True
        except OSError:
            return False

    def query(self, expr: str) -> list[dict[str, Any]]:
        """Series of an instant query, each with `metric` and `value`. Raises ValueError: it is refused."""
        return self._get("query", {"query": expr})

    def query_range(self, expr: str, start: float, end: float) -> list[dict[str, Any]]:
        """Series over time, each with `metric` and `values`. Raises ValueError: it is refused."""
        step = max(1.0, (end - start) / _POINTS)
        return self._get("query_range", {"query": expr, "start": start, "end": end, "step": step})

    def firing(self) -> set[str]:
        """Names of the alerts that fire."""
        found = self.query('ALERTS{alertstate="firing"}')
        return {series["metric"]["alertname"] for series in found}

    def _get(self, path: str, parameters: Mapping[str, object]) -> list[dict[str, Any]]:
        url = f"{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:  # noqa: S310 - always http
                found = json.load(answer)
        except urllib.error.HTTPError as error:
            raise ValueError(json.load(error)["error"]) from error
        return cast("list[dict[str, Any]]", found["data"]["result"])


def concrete(expr: str, interval: str = "30s") -> str:
    """A query of a dashboard with its variables filled in: all workers, and one interval for rates."""
    filled = {"$job": ".+", "$worker": ".+", "$__rate_interval": interval}
    for name, value in filled.items():
        expr = expr.replace(name, value)
    return expr


def draw(prometheus: Prometheus, start: float, end: float, path: Path) -> dict[str, int]:
    """Draw the overview of a time range (Unix seconds). Returns the number of series by title of panel."""
    # A second or so; only here.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    dashboard = json.loads((ROOT / "dashboards" / "overview.json").read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(16, height * 0.36), facecolor="white")
    FigureCanvasAgg(figure)
    drawn = {}
    for panel in panels:
        place = panel["gridPos"]
        left, width = place["x"] / 24, place["w"] / 24
        bottom, tall = 1 - (place["y"] + place["h"]) / height, place["h"] / height
        if panel["type"] == "row":
            figure.text(left + 0.01, bottom + tall * 0.3, panel["title"], fontsize=13, weight="bold")
            continue
        is_stat = panel["type"] == "stat"
        # Inner margins, in shares of the figure: room for the title, and for the axes of a chart.
        inner = (0.012, 0.3, 0.02, 0.5) if is_stat else (0.035, 0.16, 0.05, 0.32)
        axes = figure.add_axes(
            (
                left + inner[0],
                bottom + tall * inner[1],
                width - inner[0] - inner[2] / 2,
                tall * (1 - inner[3]),
            )
        )
        axes.set_title(panel["title"], fontsize=9, loc="left")
        count = (
            _stat(axes, panel, prometheus, end) if is_stat else _chart(axes, panel, prometheus, start, end)
        )
        drawn[panel["title"]] = count
    figure.savefig(path, dpi=80)
    return drawn


def _stat(axes: Any, panel: Mapping[str, Any], prometheus: Prometheus, end: float) -> int:
    (target,) = panel["targets"]
    found = prometheus.query_range(concrete(target["expr"]), end - 1, end)
    axes.set_xticks([])
    axes.set_yticks([])
    if not found:
        axes.text(
            0.5, 0.5, panel["fieldConfig"]["defaults"]["noValue"], ha="center", va="center", fontsize=16
        )
        return 0
    names = [series["metric"].get("alertname", "") for series in found]
    value = float(found[0]["values"][-1][1])
    shown = "\n".join(names) if any(names) else human(value, panel["fieldConfig"]["defaults"]["unit"])
    axes.set_facecolor(_color(panel, value))
    size = 20 if not any(names) else 9
    axes.text(0.5, 0.5, shown, ha="center", va="center", fontsize=size, color="white", weight="bold")
    return len(found)


def _chart(axes: Any, panel: Mapping[str, Any], prometheus: Prometheus, start: float, end: float) -> int:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    count = 0
    for target in panel["targets"]:
        for series in prometheus.query_range(concrete(target["expr"]), start, end):
            times = [datetime.fromtimestamp(float(time), UTC) for time, _ in series["values"]]
            values = [float(value) for _, value in series["values"]]
            axes.plot(times, values, label=_legend(target["legendFormat"], series["metric"]), linewidth=1.2)
            count += 1
    axes.yaxis.set_major_formatter(lambda value, _: human(value, unit))
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.set_ylim(bottom=0)
    if count:
        axes.legend(fontsize=7, loc="upper left", ncols=2)
    return count


def _legend(form: str, labels: Mapping[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def _color(panel: Mapping[str, Any], value: float) -> str:
    """Colour of the highest threshold that the value has reached."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return _COLORS[reached[-1]]


def human(value: float, unit: str) -> str:
    """A value with its unit, as Grafana would show it."""
    if math.isnan(value):
        return "no data"
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s" and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    base = 1024 if unit == "bytes" else 1000
    names = ("", "Ki", "Mi", "Gi", "Ti") if unit == "bytes" else ("", "k", "M", "G", "T")
    power = 0
    while abs(value) >= base and power < len(names) - 1:
        value /= base
        power += 1
    ending = {"bytes": "B", "s": "s", "cps": "/s"}.get(unit, "")
    return f"{value:.3g} {names[power]}{ending}".strip()

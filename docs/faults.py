"""The tables of docs/failure-modes.md, made from the marks of the tests of faults and from their results."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from docs.tables import table
from stream_cluster.faults import POINTS

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "tests" / "faults"
RESULTS = ROOT / "benchmarks" / "results"


class FaultTest(NamedTuple):
    """A test with its `fault` mark."""

    name: str
    """`test_file.py::test_name`."""
    what: str
    survives: str
    seen: str
    is_short: bool
    """Whether CI runs it."""


def fault_tests() -> Iterator[FaultTest]:
    """Every test of tests/faults, in the order of files and lines. Raises ValueError: one has no mark."""
    for path in sorted(TESTS.glob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                yield _fault_test(f"{path.name}::{node.name}", node.decorator_list)


def _fault_test(name: str, decorators: list[ast.expr]) -> FaultTest:
    for decorator in decorators:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.fault":
            given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in decorator.keywords}
            return FaultTest(
                name, given["what"], given["survives"], given["seen"], bool(given.get("short", False))
            )
    raise ValueError(f"{name} has no fault mark")


def report(name: str) -> dict[str, Any] | None:
    """The committed report of that name, None when there is none."""
    path = RESULTS / f"{name}.json"
    return dict(msgspec.json.decode(path.read_bytes())) if path.exists() else None


def results(name: str) -> dict[str, Any] | None:
    """The results of a report."""
    found = report(name)
    return None if found is None else dict(found["results"])


def matrix() -> str:
    """Every fault with what survives, what is seen, how long it took, and the test."""
    measured: Mapping[str, Any] = (results("faults") or {}).get("tests", {})
    rows = []
    for test in fault_tests():
        ready_s = measured.get(test.name, {}).get("ready_s")
        shown = "" if ready_s is None else f"{ready_s:.1f}"
        rows.append([test.what, test.survives, test.seen, shown, f"`tests/faults/{test.name}`"])
    return table(["fault", "what survives", "what is seen", "ready after, s", "test"], rows)


def points() -> str:
    """The fault points."""
    return table(["point", "where it stands"], [[f"`{name}`", text] for name, text in POINTS.items()])


_TOTALS = {
    "kills": "processes killed",
    "broker_restarts": "brokers killed and started again",
    "rebalances": "rebalances forced",
    "objects": "objects held against the model",
    "lost": "objects lost",
    "duplicated": "objects duplicated",
}


def totals() -> str:
    """What was survived, in numbers: of fault matrix, fuzzing and soak, as far as there are results."""
    rows = []
    if (faults := results("faults")) is not None:
        run = faults["runs"][-1]
        of = _source("fault matrix", "faults")
        rows += [[text, f"{faults['totals'][name]:,}", of] for name, text in _TOTALS.items()]
        rows.append(["cases of the fault matrix", f"{run['cases']:,}", of])
        took = ", ".join(f"{one['seconds']:,}" for one in faults["runs"])
        rows.append(["seconds that its last runs took", took, of])
    for name in ("fuzz", "soak"):
        of = _source(name, name)
        rows += [[_words(key), _number(value), of] for key, value in _numbers(results(name) or {})]
    return table(["what", "count", "from"], rows) if rows else "No result is committed yet."


def _source(words: str, name: str) -> str:
    """Which result a figure is of: its name, the commit that it was made at, and the day."""
    environment = (report(name) or {}).get("environment", {})
    commit, plus, changes = str(environment.get("commit")).partition("+")
    return f"{words} at `{commit[:10]}{plus}{changes}`, {str(environment.get('time'))[:10]}"


def _numbers(value: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The figures at the top; what they are made of is on the page of benchmarks."""
    for name, item in value.items():
        if isinstance(item, int | float) and not isinstance(item, bool):
            yield name, item


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"

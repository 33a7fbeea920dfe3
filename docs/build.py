"""Writes the parts of the documentation that are made from the code: `make docs`.

A block between `<!-- generated: NAME -->` and `<!-- end -->` in a Markdown file is replaced by what the
function of that name below returns. `--check` changes nothing and fails when a block is out of date.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from docs import faults
from docs.headlines import headlines
from docs.results import RESULTS, figure, leaves
from docs.tables import table
from stream_cluster.config import field_docs, field_table
from stream_cluster.config.image_roots import DirectoryRoot, HttpRoot, S3Root
from stream_cluster.errors import TASK_ERRORS
from stream_cluster.matching import CodeStore
from stream_cluster.matching.cell_store import CellStore
from stream_cluster.matching.hnsw import HnswMatcher
from stream_cluster.matching.kernel import Sketch
from stream_cluster.messages import EVENT_COLUMNS, FACE_COLUMNS
from stream_cluster.service.metrics import Metrics
from stream_cluster.snapshot.filters import DEFINITIONS
from stream_cluster.state.schema import DDL

ROOT = Path(__file__).resolve().parent.parent

_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_DIMENSIONS = (128, 512, 2048)
_SHOWN_VALUES = 5


def documents() -> list[Path]:
    """Every Markdown file of the project that is written by hand or by this program."""
    return sorted([*ROOT.glob("*.md"), *ROOT.joinpath("docs").rglob("*.md")])


def rebuilt(text: str) -> str:
    """The text of a document with each generated block as it should be. Raises KeyError: unknown name."""
    return _BLOCK.sub(lambda found: f"{found[1]}{BLOCKS[found[2]]().strip()}\n{found[3]}", text)


def code(value: object) -> str:
    """A value as code; nothing for None."""
    if value is None:
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# -- from the code -------------------------------------------------------------------------------------


def settings() -> str:
    """Every setting."""
    rows = []
    for field in field_table():
        note = " A secret: masked wherever it is shown." if field.secret else ""
        rows.append([code(field.key), field.expected, code(field.default), field.description + note])
    return table(["setting", "expected", "default", "meaning"], rows)


def metrics() -> str:
    """Every metric of the service itself."""
    kinds = {Counter: "counter", Gauge: "gauge", Histogram: "histogram"}
    kept = Metrics()
    rows = [
        [code(_exposed_name(metric)), kinds[type(metric)], _labels(metric), str(metric._documentation)]
        for metric in vars(kept).values()
        if isinstance(metric, MetricWrapperBase)
    ]
    # Not kept by name: what says which software runs.
    infos = [family for family in kept.registry.collect() if family.type == "info"]
    rows += [
        [code(f"{info.name}_info"), "info", ", ".join(map(code, info.samples[0].labels)), info.documentation]
        for info in infos
        if info.name.startswith("stream_cluster_")
    ]
    return table(["metric", "type", "labels", "meaning"], sorted(rows))


def _exposed_name(metric: MetricWrapperBase) -> str:
    return str(metric._name) + ("_total" if isinstance(metric, Counter) else "")


def _labels(metric: MetricWrapperBase) -> str:
    """Names of the labels, with their values where these are few and known from the start."""
    shown = []
    for name in metric._labelnames:
        samples = [sample for family in metric.collect() for sample in family.samples]
        values = sorted({sample.labels[name] for sample in samples if name in sample.labels})
        listed = ", ".join(values) if 0 < len(values) <= _SHOWN_VALUES else ""
        shown.append(f"{code(name)}: {listed}" if listed else code(name))
    return "; ".join(shown)


def state_schema() -> str:
    """The tables of a partition's database."""
    return f"```sql\n{DDL.strip()}\n```"


def capacity() -> str:
    """Bytes of one object in memory, as the matchers themselves count them."""
    rows = []
    for dim in _DIMENSIONS:
        graph = HnswMatcher(dim)
        # The store is empty; the graph has room for its first capacity.
        per_element = graph.nbytes // graph._index.get_max_elements()
        codes, sketched = _store_bytes(dim), _store_bytes(dim, sketched=True)
        rows.append([str(dim), str(codes), str(sketched), str(_cell_bytes(dim)), str(per_element + sketched)])
    return table(
        ["dimension", "exact, bytes", "exact with sketches, bytes", "cells, bytes", "hnsw, bytes"], rows
    )


def _cell_bytes(dim: int) -> int:
    """In full blocks; the last block of each cell is half empty on average."""
    store = CellStore(dim)
    blocks = 64  # a power of two, as many as have been allocated then
    store.append(np.ones((64 * blocks, dim), np.int8), np.repeat(store.take_cells(1), 64 * blocks))
    return store.nbytes // (64 * blocks)


def _store_bytes(dim: int, *, sketched: bool = False) -> int:
    store = CodeStore(dim)
    store.append(np.ones((1, dim), np.int8))
    if sketched:
        width = min(dim // 64 * 32, 128)
        store.packed.use_sketch(Sketch(np.eye(dim, width, dtype=np.float32), 0.01), threads=1)
    # One row makes the first block of 64.
    return store.nbytes // 64


_SIZES = (100_000, 1_000_000, 5_000_000)


def sizing() -> str:
    """What a worker needs: measured where a benchmark held as many objects, else by bytes of an object."""
    streamed = msgspec.json.decode((RESULTS / "stream.json").read_bytes())
    selected = msgspec.json.decode((RESULTS / "selection.json").read_bytes())
    runs = {run["resident"]: run for run in streamed["results"].values() if run["rate"] is None}
    dim = streamed["parameters"]["dim"]
    # What a worker has beside its matchers, from the run that holds most; MB are those of the process.
    most = max(runs)
    beside = runs[most]["peak_memory_mb"] * 1e6 - most * _store_bytes(dim, sketched=True)
    parameters = selected["parameters"]
    metadata = parameters["state_mb"] * 1e6 / parameters["objects"] - parameters["dim"]
    rows = []
    for objects in _SIZES:
        for width in _DIMENSIONS:
            run = runs.get(objects) if width == dim else None
            memory = (
                run["peak_memory_mb"] * 1e6 if run else beside + objects * _store_bytes(width, sketched=True)
            )
            rows.append(
                [
                    f"{objects:,}",
                    str(width),
                    _gigabytes(memory),
                    f"{run['events_per_s']:,} with {streamed['environment']['cores']} cores" if run else "",
                    # Links that wait, and a rewrite after deletions, may each take as much again.
                    _gigabytes(2 * objects * (width + metadata + 12)),
                    "measured" if run else "computed",
                ]
            )
    header = ["objects", "dimension", "memory, GB", "events a second", "disk, GB", "memory is"]
    return table(header, rows)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2g}"


def filters() -> str:
    """Every filter, what it compares, and how."""
    rows = [
        [
            code(definition.name),
            " and ".join(f"{object_type}s" for object_type in definition.object_types),
            code(definition.value),
            definition.meaning,
        ]
        for definition in DEFINITIONS
    ]
    return table(["filter", "of", "column", "selects values that are"], rows)


def task_errors() -> str:
    """Every code of a failed task."""
    rows = [[code(name), note.meaning, note.who_acts] for name, note in TASK_ERRORS.items()]
    return table(["`error.code`", "meaning", "who acts"], rows)


def image_roots() -> str:
    """The fields of each kind of image root."""
    rows = []
    for root in (DirectoryRoot, S3Root, HttpRoot):
        kind = code(root.__struct_config__.tag)
        for field in field_docs(root):
            default = (
                "required"
                if field.default is msgspec.NODEFAULT
                else code(None if field.default == "" else field.default)
            )
            rows.append([kind, code(field.key), field.expected, default, field.description])
            kind = ""
    return table(["kind", "field", "expected", "default", "meaning"], rows)


def columns() -> str:
    """Columns that a report may have."""
    return table(
        ["objects", "columns"],
        [
            ["events", ", ".join(code(name) for name in EVENT_COLUMNS)],
            ["faces", ", ".join(code(name) for name in FACE_COLUMNS)],
        ],
    )


def commands() -> str:
    """The commands of the command line, each with the first line of its help."""
    from typer.main import get_command  # noqa: PLC0415 - only here

    from stream_cluster.cli import app  # noqa: PLC0415 - only here

    rows = [[code(f"stream-cluster {name}"), text] for name, text in command_help(get_command(app), "")]
    return table(["command", "what it does"], rows)


def command_help(command: Any, name: str) -> Iterator[tuple[str, str]]:
    """(name with its groups, first line of the help) of every command below `command`."""
    below = getattr(command, "commands", None)
    if below is None:
        yield name, (command.help or "").strip().splitlines()[0]
        return
    for part, inner in below.items():
        yield from command_help(inner, f"{name} {part}".strip())


def exit_codes() -> str:
    """The table that the command line keeps beside the codes."""
    path = ROOT / "stream_cluster" / "cli" / "failures.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return "\n".join(line for line in text.splitlines() if line.startswith("|"))


# -- from results --------------------------------------------------------------------------------------


# Shown in docs/failure-modes.md.
_APART = {"faults"}


def benchmarks() -> str:
    """Every committed result as a table: one row per figure, one column per run."""
    parts = [_result(path) for path in sorted(RESULTS.glob("*.json")) if path.stem not in _APART]
    return "\n\n".join(parts) if parts else "No result is committed yet."


def _result(path: Path) -> str:
    report: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    machine = report.pop("environment", {})
    added = report.pop("added", [])
    runs = {head: dict(leaves(run, "")) for head, run in _runs(report.pop("results", {})).items()}
    names = list(dict.fromkeys(name for run in runs.values() for name in run))
    figures = [[code(name), *(figure(name, run.get(name)) for run in runs.values())] for name in names]
    about = [f"{name}: {figure(name, value)}" for name, value in leaves(report, "")]
    lines = [f"### {path.name}", "", "; ".join(about), "", _machine(machine), ""]
    for later in added:
        note = later["parameters"].get("note")
        remark = f" Note: {note}." if note else ""
        lines += [f"Added later: {', '.join(later['results'])}. {_machine(later['environment'])}{remark}", ""]
    picture = path.with_suffix(".svg")
    if picture.exists():
        lines += [f"![{path.stem}](../benchmarks/results/{picture.name})", ""]
    return "\n".join([*lines, table(["figure", *runs], figures) if figures else ""]).strip()


def _runs(results: Any) -> dict[str, dict[str, Any]]:
    """The runs of a result by a name for each: a list of runs, runs by name, or a single run."""
    if isinstance(results, list):
        return {f"run {number}": run for number, run in enumerate(results, 1)}
    if results and all(isinstance(run, dict) for run in results.values()):
        return dict(results)
    return {"value": results}


def _machine(machine: Mapping[str, Any]) -> str:
    """One sentence about where a result was measured."""
    if not machine:
        return ""
    libraries = ", ".join(f"{name} {version}" for name, version in machine.get("libraries", {}).items())
    memory = f"{machine.get('memory_bytes', 0) / 2**30:.0f} GiB"
    commit = str(machine.get("commit") or "unknown")
    # The first digits of a commit name it; what follows a plus sign says that files differed from it.
    short = re.sub(r"^([0-9a-f]{10})[0-9a-f]*", r"\1", commit)
    return (
        f"Measured {machine.get('time')} at commit {short} on {machine.get('cpu')}, "
        f"{machine.get('cores')} cores, {memory} of memory, {machine.get('os')}, "
        f"Python {machine.get('python')}, {libraries}."
    )


BLOCKS: Mapping[str, Callable[[], str]] = {
    "benchmarks": benchmarks,
    "capacity": capacity,
    "columns": columns,
    "commands": commands,
    "exit-codes": exit_codes,
    "fault-points": faults.points,
    "fault-totals": faults.totals,
    "faults": faults.matrix,
    "filters": filters,
    "headlines": headlines,
    "image-roots": image_roots,
    "metrics": metrics,
    "settings": settings,
    "sizing": sizing,
    "state-schema": state_schema,
    "task-errors": task_errors,
}
"""What each generated block is made of."""


def outdated() -> dict[Path, str]:
    """Documents that differ from what they should be, with the text that they should have."""
    texts = {path: path.read_text(encoding="utf-8") for path in documents()}
    return {path: wanted for path, text in texts.items() if (wanted := rebuilt(text)) != text}


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m docs.build", description="Write the generated tables.")
    parser.add_argument("--check", action="store_true", help="change nothing; fail when a table is outdated")
    options = parser.parse_args(arguments)
    changes = outdated()
    for path, text in changes.items():
        sys.stdout.write(f"{path.relative_to(ROOT)}: {'outdated' if options.check else 'written'}\n")
        if not options.check:
            path.write_text(text, encoding="utf-8")
    return 1 if changes and options.check else 0


if __name__ == "__main__":
    sys.exit(main())

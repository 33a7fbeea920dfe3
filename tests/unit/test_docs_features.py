"""docs/features.md: every part of the contract has its row, every row its tests, and all names are real."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from typing import NamedTuple, get_args

import msgspec
import pytest
from msgspec.inspect import Field, ListType, Metadata, StructType, Type, UnionType

from docs import build
from stream_cluster.errors import TASK_ERRORS
from stream_cluster.messages import EVENT_COLUMNS, FACE_COLUMNS, Reason, filters_of
from stream_cluster.messages.filters import Filters
from stream_cluster.messages.schema import json_schemas
from stream_cluster.messages.status import State
from stream_cluster.messages.tasks import TaskRequest
from stream_cluster.messages.wire import WireObject

ROOT = build.ROOT
PAGE = (ROOT / "docs/features.md").read_text(encoding="utf-8")
A_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
NAMED_TESTS = sorted(set(A_TEST.findall(PAGE)))


class Row(NamedTuple):
    """A row of a table of the page."""

    heading: str
    """Of the table's section."""
    column: str
    """What the first cells of the table are."""
    cells: list[str]

    @property
    def name(self) -> str | None:
        """What the row is named after; None when the first cell is a sentence."""
        found = re.fullmatch(r"`([\w.]+)`", self.cells[0])
        return found and found[1]

    @property
    def tests(self) -> list[tuple[str, str]]:
        """File and function of each test in the last cell."""
        return A_TEST.findall(self.cells[-1])


def rows_of(page: str) -> list[Row]:
    """All rows of all tables."""
    rows, heading, column = [], "", ""
    for line in page.splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
        if not line.startswith("|"):
            column = ""
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not column:
            column = cells[0]
        elif not re.fullmatch(r"-+", cells[0]):
            rows.append(Row(heading, column, cells))
    return rows


ROWS = rows_of(PAGE)


def names(column: str, *, under: str = "", of: str = "") -> list[str]:
    """Names of the rows of the tables whose first column is called `column`."""
    return [
        row.name or row.cells[0]
        for row in ROWS
        if row.column == column and under in row.heading and of in (row.cells[1] if of else "")
    ]


@functools.cache
def functions_of(file: str) -> set[str]:
    """Names of the functions at the top of a test file, without importing it."""
    if not (ROOT / file).exists():
        return set()
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def absent(page: str) -> set[str]:
    """Tests that a page names and that do not exist."""
    return {
        f"{file}::{function}"
        for file, function in A_TEST.findall(page)
        if not function.startswith("test_") or function not in functions_of(file)
    }


@pytest.mark.parametrize("file", sorted({file for file, _ in NAMED_TESTS}))
def test_every_test_that_is_named_exists(file):
    assert {function for named, function in NAMED_TESTS if named == file} <= functions_of(file)


def test_a_test_that_was_renamed_is_noticed():
    here = "tests/unit/test_docs_features.py"
    page = f"| x | `{here}::test_a_test_that_was_renamed_is_noticed`<br>`{here}::test_of_old` |"
    assert absent(page) == {f"{here}::test_of_old"}
    assert absent("`tests/unit/test_of_old.py::test_x`") == {"tests/unit/test_of_old.py::test_x"}
    assert absent(f"`{here}::absent`") == {f"{here}::absent"}
    assert absent(PAGE) == set()


def test_every_row_names_a_test_and_nothing_else_in_its_last_cell():
    assert len(ROWS) > 150
    for row in ROWS:
        assert row.tests, row.cells[0]
        written = "<br>".join(f"`{file}::{function}`" for file, function in row.tests)
        assert row.cells[-1] == written, row.cells[0]
        assert len(row.tests) == len(set(row.tests)), row.cells[0]


def test_what_a_row_is_named_after_stands_in_the_file_of_one_of_its_tests():
    for row in ROWS:
        if row.name is not None:
            word = row.name.rpartition(".")[2]
            texts = [(ROOT / file).read_text(encoding="utf-8") for file, _ in row.tests]
            assert any(re.search(rf"\b{word}\b", text) for text in texts), row.name


@pytest.mark.parametrize("object_type", ["event", "face"])
def test_every_filter_has_its_row(object_type):
    listed = names("filter", of=f"{object_type}s")
    assert len(listed) == len(set(listed))
    assert set(listed) == filters_of(object_type)


@pytest.mark.parametrize(("object_type", "columns"), [("event", EVENT_COLUMNS), ("face", FACE_COLUMNS)])
def test_every_column_of_the_report_has_its_row_in_order(object_type, columns):
    assert names("column", of=f"{object_type}s") == ["cluster", f"{object_type}_id", *columns]


def leaves(struct: type, prefix: str = "", *, whole: tuple[type, ...] = ()) -> Iterator[str]:
    """Fields of a struct by their paths, those of structs inside it in place of these but for `whole`."""
    info = msgspec.inspect.type_info(struct)
    assert isinstance(info, StructType)
    if info.tag_field is not None:
        yield info.tag_field
    for field in info.fields:
        path = prefix + field.encode_name
        inner = inner_struct(field)
        if inner is None or inner in whole:
            yield path
        else:
            yield from leaves(inner, f"{path}.", whole=whole)


def inner_struct(field: Field) -> type | None:
    """The struct that the field holds, alone, or absent, or in a list; None when it holds none."""
    waiting: list[Type] = [field.type]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, StructType):
            return kind.cls
        if isinstance(kind, UnionType):
            waiting += kind.types
        elif isinstance(kind, ListType):
            waiting.append(kind.item_type)
        elif isinstance(kind, Metadata):
            waiting.append(kind.type)
    return None


@pytest.mark.parametrize(
    ("heading", "struct"), [("Fields of an object", WireObject), ("Fields of a task", TaskRequest)]
)
def test_every_field_of_a_message_has_its_row(heading, struct):
    listed = names("field", under=heading)
    assert len(listed) == len(set(listed))
    assert set(listed) == set(leaves(struct, whole=(Filters,)))


def test_fields_of_structs_inside_are_seen():
    found = set(leaves(WireObject))
    assert {
        "location.geo_position.latitude",
        "top_match.label",
        "descriptors.quality",
        "create_time",
    } <= found
    assert "location" not in found


def test_every_encoding_has_its_row():
    encoding = json_schemas()["object"]["$defs"]["Descriptor"]["properties"]["encoding"]
    assert names("encoding") == encoding["enum"]


def test_every_state_of_a_task_has_its_row():
    assert names("state") == list(get_args(State))


def test_every_error_of_a_task_has_its_row():
    assert set(names("code")) == set(TASK_ERRORS)


def test_every_reason_of_rejection_that_is_named_exists():
    named = {word for row in ROWS if row.heading == "Versions and similarity" for word in row.cells[1:2]}
    reasons = {text.strip("`") for text in named if re.fullmatch(r"`[a-z]+_[a-z]+`", text)}
    assert reasons == {"version_mismatch", "wrong_dimension"} <= set(Reason)

"""The documentation agrees with the code: names, tables, paths, links, words."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import get_args

import pytest
from typer.main import get_command

from docs import build
from stream_cluster import errors
from stream_cluster.cli import app
from stream_cluster.config.fields import fields, sections
from stream_cluster.config.load import NOT_SETTINGS
from stream_cluster.messages import Reason
from stream_cluster.service.metrics import Metrics

ROOT = build.ROOT
DOCUMENTS = build.documents()
TEXTS = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
GENERATED = re.compile(r"<!-- generated: [a-z-]+ -->.*?<!-- end -->", re.DOTALL)
FENCE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
# A `code span`, or one with doubled backticks around it.
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def spans(path: Path) -> list[str]:
    """Code spans of a document, without fenced blocks."""
    return SPAN.findall(FENCE.sub("", TEXTS[path]))


def typed_lines(path: Path) -> list[str]:
    """What a reader would type or read as code: code spans, and lines of fenced blocks."""
    blocks = FENCE.findall(TEXTS[path])
    return spans(path) + [line.partition(" #")[0] for block in blocks for line in block.splitlines()[1:-1]]


@functools.cache
def source_text() -> str:
    """All code of the package, for names that stand in it as they are."""
    return "\n".join(
        file.read_text(encoding="utf-8") for file in sorted((ROOT / "stream_cluster").rglob("*.py"))
    )


@every_document
def test_generated_blocks_are_up_to_date(path: Path) -> None:
    assert build.rebuilt(TEXTS[path]) == TEXTS[path], "run `make docs`"


def test_every_generated_block_is_shown_somewhere() -> None:
    shown = set(re.findall(r"<!-- generated: ([a-z-]+) -->", "".join(TEXTS.values())))
    assert shown == set(build.BLOCKS)


def test_a_document_with_an_outdated_block_is_noticed() -> None:
    text = "before\n<!-- generated: exit-codes -->\nold\n<!-- end -->\nafter\n"
    wanted = build.rebuilt(text)
    assert wanted.startswith("before\n<!-- generated: exit-codes -->\n| code | meaning |")
    assert wanted.endswith("<!-- end -->\nafter\n")
    assert build.rebuilt(wanted) == wanted


def test_every_setting_stands_in_the_table_of_settings() -> None:
    listed = re.findall(r"^\| `([a-z_.0-9]+)` \|", TEXTS[ROOT / "docs/configuration.md"], re.MULTILINE)
    assert listed == list(fields())


@every_document
def test_settings_that_are_named_exist(path: Path) -> None:
    tops = {section.partition(".")[0] for section in sections()}
    named = {span for span in spans(path) if re.fullmatch(rf"({'|'.join(tops)})\.[a-z_.0-9]+", span)}
    assert named <= set(fields()) | set(sections())


@every_document
def test_environment_variables_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(r"STREAM_CLUSTER_[A-Z_0-9]*[A-Z0-9]", TEXTS[path]))
    known = {field.env for field in fields().values()} | NOT_SETTINGS
    text = source_text()
    assert {name for name in named - known if f'"{name}"' not in text} == set()


def exposed() -> set[str]:
    """Every name that a scrape of the service's own metrics has."""
    names = set()
    for family in Metrics().registry.collect():
        endings = {
            "counter": ("_total", "_created"),
            "histogram": ("", "_bucket", "_sum", "_count", "_created"),
            "info": ("_info",),
            "gauge": ("",),
        }[family.type]
        names |= {family.name + ending for ending in endings}
    return {name for name in names if name.startswith("stream_cluster_")}


@every_document
def test_metrics_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(r"\bstream_cluster_[a-z_]+", TEXTS[path]))
    assert named <= exposed()


def test_every_metric_stands_in_the_table_of_metrics() -> None:
    listed = re.findall(r"^\| `(stream_cluster_[a-z_]+)` \|", TEXTS[ROOT / "docs/metrics.md"], re.MULTILINE)
    assert len(listed) == len(set(listed))
    families = [
        family for family in Metrics().registry.collect() if family.name.startswith("stream_cluster_")
    ]
    assert {re.sub(r"(_total|_info)$", "", name) for name in listed} == {family.name for family in families}


@every_document
def test_paths_that_are_named_exist(path: Path) -> None:
    tops = {entry.name for entry in ROOT.iterdir() if not entry.name.startswith(".") or entry.name == ".ci"}
    missing = set()
    for span in spans(path):
        name = span.partition(" ")[0]
        looks_like_a_path = re.fullmatch(r"[\w.-]+(/[\w.-]*)+|[\w-]+\.(md|toml|lock)|Makefile", name)
        if looks_like_a_path and name.partition("/")[0] in tops and not (ROOT / name).exists():
            missing.add(name)
    assert missing == set()


@every_document
def test_make_targets_that_are_named_exist(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", makefile, re.MULTILINE))
    named = {
        found
        for line in typed_lines(path)
        for found in re.findall(r"^(?:.*&& )?make ([a-z][a-z0-9-]*)", line.strip())
    }
    assert named <= targets


@every_document
def test_commands_and_options_that_are_named_exist(path: Path) -> None:
    root = get_command(app)
    for line in typed_lines(path):
        found = re.match(r"(?:\S*/)?stream-cluster ([a-z-]+.*)", line.strip())
        if found is None:
            continue
        words = found[1].split()
        command = root
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), f"no command in {line!r}"
        known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, line


@every_document
def test_python_modules_that_are_named_to_be_run_exist(path: Path) -> None:
    for line in typed_lines(path):
        for module in re.findall(r"python -m ([a-z_.]+)", line):
            file = ROOT / module.replace(".", "/")
            assert file.with_suffix(".py").exists() or (file / "__main__.py").exists(), line


def anchors(text: str) -> set[str]:
    """Anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_relative_links_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", TEXTS[path])):
        if re.match(r"https?://", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name) if name else path
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(TEXTS[file.resolve()]), target


def test_rejection_reasons_are_all_explained() -> None:
    text = TEXTS[ROOT / "docs/messages.md"]
    table = text[text.index("| `undecodable` |") : text.index("One bad descriptor")]
    assert re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE) == [reason.value for reason in Reason]


def test_task_error_codes_are_all_in_the_table_of_codes_and_used() -> None:
    raised = set(re.findall(r'(?:TaskError|_BadRequest)\(\s*"([a-z_]+)"', source_text()))
    raised |= set(re.findall(r'TaskFault\(code="([a-z_]+)"', source_text()))
    raised |= set(re.findall(r'\.reject\(runner, [a-z_]+, [a-z_]+, "([a-z_]+)"', source_text()))
    # `unknown_field` is made in one place for filters and columns.
    assert raised | {"unknown_field"} == set(errors.TASK_ERRORS) == set(get_args(errors.TaskErrorCode))
    _, _, text = TEXTS[ROOT / "docs/messages.md"].partition("| `error.code` |")
    explained = re.findall(r"^\| `([a-z_]+)` \|", text.partition("\n## ")[0], re.MULTILINE)
    assert explained == list(errors.TASK_ERRORS)


def test_exceptions_are_all_explained_to_operators() -> None:
    values = vars(errors).items()
    kinds = {name for name, value in values if isinstance(value, type) and issubclass(value, Exception)}
    listed = set(re.findall(r"^\| `([A-Z]\w+)` \|", TEXTS[ROOT / "docs/operations.md"], re.MULTILINE))
    assert listed == kinds - {"StreamClusterError"}


def test_log_events_are_all_listed() -> None:
    text = source_text()
    logged = set(re.findall(r'_log\.\w+\(\s*"([a-z_]+)"', text)) | set(
        re.findall(r'_notify\("([a-z_]+)"', text)
    )
    page = TEXTS[ROOT / "docs/operations.md"]
    rows = re.findall(r"^\| (`.+?) \|", page[page.index("## Log events") :], re.MULTILINE)
    assert {name for row in rows for name in SPAN.findall(row)} == logged


GLOSSARY = re.findall(r"^- \*\*(.+?)\*\*: ", TEXTS[ROOT / "docs/glossary.md"], re.MULTILINE)
WORDS = {
    *(
        "account",
        "archive",
        "barrier",
        "batch",
        "brokers",
        "cluster",
        "code",
        "descriptor",
        "floor",
        "forest",
    ),
    *("link", "next_offset", "object", "partition", "rejection", "row", "similarity", "snapshot", "space"),
    *("task", "threshold"),
}


def test_the_glossary_defines_the_words_of_the_domain_once_and_in_order() -> None:
    assert set(GLOSSARY) >= WORDS
    assert sorted(set(GLOSSARY)) == GLOSSARY


@pytest.mark.parametrize("word", GLOSSARY)
def test_words_of_the_glossary_are_used(word: str) -> None:
    stem = re.escape(word.rstrip("y"))
    others = [text for path, text in TEXTS.items() if path.name != "glossary.md"]
    assert re.search(rf"\b{stem}", "\n".join([*others, source_text()]), re.IGNORECASE)


@every_document
def test_the_word_cluster_is_kept_for_the_result(path: Path) -> None:
    assert not re.search(r"(kafka|broker|mock|3-node) clusters?\b", TEXTS[path], re.IGNORECASE)


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    files = sorted(name.name for name in (ROOT / "docs/adr").glob("[0-9]*.md"))
    assert [name[:4] for name in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    listed = re.findall(r"\]\(([0-9][^)]+)\)", TEXTS[ROOT / "docs/adr/README.md"])
    assert listed == files


def test_every_page_is_reachable_from_the_readme() -> None:
    reached = {ROOT / "README.md"}
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        for target in re.findall(r"\]\(([^)#\s]+)", TEXTS[path]):
            found = (path.parent / target).resolve()
            if found in TEXTS and found not in reached:
                reached.add(found)
                waiting.append(found)
    assert reached == set(DOCUMENTS)


def test_the_command_writes_what_is_outdated_and_then_finds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- generated: exit-codes -->\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "BLOCKS", {"exit-codes": lambda: "| a table |"})
    (tmp_path / "docs").mkdir()
    assert build.main(["--check"]) == 1
    assert build.main([]) == 0
    assert page.read_text(encoding="utf-8") == "<!-- generated: exit-codes -->\n| a table |\n<!-- end -->\n"
    assert build.main(["--check"]) == 0


def test_results_become_tables_without_a_figure_typed_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = (
        '{"benchmark": "x", "environment": {"commit": "0123456789abcdef+changes", "cores": 2},'
        ' "results": {"fast": {"events_per_s": 12345, "peak_memory_bytes": 1500000, "ok": true},'
        ' "slow": {"events_per_s": 0.1234567, "stage_s": {"match": null}}}}'
    )
    (tmp_path / "x.json").write_text(result, encoding="utf-8")
    monkeypatch.setattr(build, "RESULTS", tmp_path)
    shown = build.benchmarks()
    assert "### x.json" in shown
    assert "at commit 0123456789+changes" in shown
    assert "| figure | fast | slow |" in shown
    assert "| `events_per_s` | 12,345 | 0.1235 |" in shown
    assert "| `peak_memory_bytes` | 1.5 MB |  |" in shown
    assert "| `ok` | yes |  |" in shown


def test_the_method_of_every_benchmark_is_described() -> None:
    commands = {
        found
        for file in (ROOT / "benchmarks").glob("*.py")
        for found in re.findall(
            r"^    python -m benchmarks\.([a-z_]+)", file.read_text(encoding="utf-8"), re.M
        )
    }
    page = TEXTS[ROOT / "docs/benchmarks.md"]
    assert {name for name in commands if f"benchmarks.{name}" not in page} == set()
    assert commands


@every_document
def test_documents_hold_no_path_of_a_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.])/(home|root|Users|work)/", TEXTS[path])

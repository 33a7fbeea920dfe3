"""Options that several commands share, and what is made from them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stream_cluster.errors import InputError
from stream_cluster.model import CannotLink, DescriptorType, Linkage, ObjectType

if TYPE_CHECKING:
    from stream_cluster.config import LoadedSettings, Settings
    from stream_cluster.messages import CancelRequest, DeleteRequest, TaskRequest

    _Request = CancelRequest | DeleteRequest

_CONNECTION = "Connection"
_SELECTION = "What to cluster"
_RESULT = "The result"
_MAX_THRESHOLDS = 1000

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", envvar="STREAM_CLUSTER_CONFIG", help="TOML or YAML file of settings.", metavar="FILE"
    ),
]
BootstrapServers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-servers",
        help="Kafka brokers, as host:port,host:port; else kafka.bootstrap_servers of the settings.",
        metavar="HOST:PORT",
        rich_help_panel=_CONNECTION,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object for scripts.")]

DescriptorTypeOption = Annotated[
    DescriptorType,
    typer.Option("--descriptor-type", help="Compare faces or bodies.", rich_help_panel=_SELECTION),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        "--threshold",
        help="Link objects that are more similar than this, on the scale of their descriptor version: the "
        "cosine unless the settings give another; else the default_threshold of that scale.",
        rich_help_panel=_SELECTION,
    ),
]
AccountOption = Annotated[
    str | None,
    typer.Option(
        "--account",
        help="Take this account's objects alone; needed when there are several accounts.",
        rich_help_panel=_SELECTION,
    ),
]
ObjectTypeOption = Annotated[
    ObjectType, typer.Option("--object-type", help="Cluster events or faces.", rich_help_panel=_SELECTION)
]
DescriptorVersionOption = Annotated[
    int | None,
    typer.Option(
        "--descriptor-version",
        min=0,
        help="Version of the descriptors; else matching.descriptor_version of the settings, else the newest.",
        rich_help_panel=_SELECTION,
    ),
]
UseTrackInfoOption = Annotated[
    bool,
    typer.Option(
        "--use-track-info", help="Objects of one track end in one cluster.", rich_help_panel=_SELECTION
    ),
]
FiltersOption = Annotated[
    Path | None,
    typer.Option(
        "--filters",
        help="JSON file: the `filters` object of a task.",
        metavar="FILTERS.json",
        rich_help_panel=_SELECTION,
    ),
]
LinkageOption = Annotated[
    Linkage,
    typer.Option(
        "--linkage",
        help="What makes a cluster: all that links connect, or groups that are similar on average.",
        rich_help_panel=_SELECTION,
    ),
]
MinQualityOption = Annotated[
    float | None,
    typer.Option(
        "--min-quality",
        help="Objects of lower quality form no cluster together; each is attached to its most similar one.",
        rich_help_panel=_SELECTION,
    ),
]
CannotLinkOption = Annotated[
    CannotLink | None,
    typer.Option(
        "--cannot-link",
        help="Who never ends in one cluster: objects of one source and frame_id on different tracks. With "
        "--linkage average.",
        rich_help_panel=_SELECTION,
    ),
]
SaveImagesOption = Annotated[
    bool, typer.Option("--save-images", help="Put the images into the archive.", rich_help_panel=_RESULT)
]
ColumnsOption = Annotated[
    str | None,
    typer.Option(
        "--columns",
        help="Columns of report.csv after the cluster and the id, as a,b,c.",
        metavar="A,B,C",
        rich_help_panel=_RESULT,
    ),
]
HtmlOption = Annotated[
    bool | None,
    typer.Option(
        "--html/--no-html",
        help="Put report.html, a page to look at the clusters, into the archive; else as page.enabled says.",
        rich_help_panel=_RESULT,
    ),
]
TaskIdOption = Annotated[
    str | None, typer.Option("--task-id", help="Id of the task.", rich_help_panel=_RESULT)
]


@dataclass(frozen=True, slots=True)
class Selection:
    """The options that `cluster` and `task submit` have in common."""

    descriptor_type: DescriptorType
    threshold: float | None
    object_type: ObjectType
    descriptor_version: int | None
    use_track_info: bool
    filters: Path | None
    linkage: Linkage
    min_quality: float | None
    cannot_link: CannotLink | None
    save_images: bool
    columns: str | None
    html: bool | None

    def content(self) -> dict[str, Any]:
        """The `content` of the task message. Raises InputError."""
        if self.threshold is not None and not -1 <= self.threshold <= 1:  # also false for NaN
            raise InputError(f"--threshold: found {self.threshold:g}, expected -1 to 1")
        if self.min_quality is not None and not math.isfinite(self.min_quality):
            raise InputError(f"--min-quality: found {self.min_quality:g}, expected a finite number")
        content = {
            "objects_type": f"{self.object_type}s",
            "descriptor_type": self.descriptor_type,
            "descriptor_version": self.descriptor_version,
            "threshold": self.threshold,
            "use_track_info": self.use_track_info,
            "linkage": self.linkage,
            "min_quality": self.min_quality,
            "cannot_link": self.cannot_link,
            "save_images": self.save_images,
            "filters": None if self.filters is None else _read_filters(self.filters, self.object_type),
            "report": self._report() or None,
        }
        return {name: value for name, value in content.items() if value is not None}

    def _report(self) -> dict[str, Any]:
        report = {"columns": None if self.columns is None else _names(self.columns), "html": self.html}
        return {name: value for name, value in report.items() if value is not None}


def make_task(selection: Selection, task_id: str, account_id: str, **more: Any) -> TaskRequest:
    """The task that the options describe, checked as the service checks it. `more`: its other fields.

    Raises:
        InputError: the options contradict each other or the contract.
    """
    from stream_cluster.messages import TaskRequest, decode_task

    numbers = [number for number in more.values() if isinstance(number, float)]
    if not all(math.isfinite(number) for number in numbers):
        raise InputError("found a number that is not finite")
    message = {"type": "clustering", "task_id": task_id, "account_id": account_id}
    task = decode_task(json.dumps({**message, "content": selection.content(), **more}).encode())
    if not isinstance(task, TaskRequest):
        raise InputError(getattr(task, "message", "not a task"))
    return task


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _read_filters(path: Path, object_type: ObjectType) -> Any:
    """The filters of a file, checked. Raises InputError."""
    from stream_cluster.messages import BadTask, parse_filters

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"--filters {path}: cannot be read: {error.strerror or error}") from error
    parsed = parse_filters(data, object_type)
    if isinstance(parsed, BadTask):
        raise InputError(f"--filters {path}: {parsed.message}")
    return json.loads(data)


def settings_with_sources(config: Path | None, overrides: Mapping[str, object]) -> LoadedSettings:
    """Settings from the file, the environment and command-line options. Raises ConfigError."""
    from stream_cluster.config import load_with_sources

    return load_with_sources(config, os.environ, overrides)


def settings_of(config: Path | None, *, bootstrap_servers: str | None = None, **more: object) -> Settings:
    """The settings in force; `more` are dotted keys with `__` for the dot. Raises ConfigError."""
    overrides: dict[str, object] = {"kafka.bootstrap_servers": bootstrap_servers}
    overrides |= {name.replace("__", "."): value for name, value in more.items()}
    return settings_with_sources(config, overrides).settings


def vector_version(asked: int | None, settings: Settings, descriptor_type: DescriptorType) -> int:
    """Version of the descriptors in an .npz, which does not say: the one the task is about, else 1."""
    configured: int | None = getattr(settings.matching.descriptor_version, descriptor_type)
    return next((version for version in (asked, configured) if version is not None), 1)


def parse_thresholds(option: str, text: str) -> list[float]:
    """Thresholds from FIRST:LAST:STEP or a,b,c: ascending, each once. Raises InputError."""
    try:
        if ":" in text:
            first, last, step = (float(part) for part in text.split(":"))
            if not (all(map(math.isfinite, (first, last, step))) and step > 0 and first <= last):
                raise ValueError
            # Half a step more, because the steps may sum up to a little over the last.
            count = int((last - first) / step + 0.5) + 1
            if count > _MAX_THRESHOLDS:
                raise InputError(
                    f"{option}: found {count:,} thresholds, expected at most {_MAX_THRESHOLDS:,}"
                )
            found = [round(first + number * step, 9) for number in range(count)]
            found = [value for value in found if value <= last + 1e-9]
        else:
            found = [float(part) for part in text.split(",")]
        if not all(map(math.isfinite, found)):
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"{option}: found {text!r}, expected FIRST:LAST:STEP from low to high, its step above 0, or a,b"
        ) from error
    return sorted(set(found))


def make_request(kind: Literal["cancel", "delete"], task_id: str, account_id: str) -> _Request:
    """The request to cancel or delete a task. Raises InputError when an id is not legal."""
    from stream_cluster.messages import CancelRequest, DeleteRequest, decode_task

    request = decode_task(json.dumps({"type": kind, "task_id": task_id, "account_id": account_id}).encode())
    if not isinstance(request, CancelRequest | DeleteRequest):
        raise InputError(getattr(request, "message", "not a request"))
    return request

"""Task requests: cluster, cancel, delete. One that cannot be served is a `BadTask`, never an exception."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta, Struct

from stream_cluster.errors import TaskErrorCode
from stream_cluster.messages.filters import Filters, filter_problem, filters_of
from stream_cluster.messages.record import JSON, RawRecord, Reason
from stream_cluster.messages.vectors import Refused
from stream_cluster.messages.wire import Id, Version
from stream_cluster.messages.wireform import decode_loosely, encode_wire, is_legal_id, told
from stream_cluster.model import CannotLink, DescriptorType, Linkage, ObjectType

# fmt: off
CLUSTER_COLUMNS = (
    "cluster_size", "cluster_share", "cluster_cohesion", "cluster_weakest_link", "cluster_bridges",
)
"""Columns about the cluster of an object."""
FACE_COLUMNS = (
    "user_data", "create_time", "lists", "external_id", "avatar", "event_id", "attribute_id", "low_quality",
    *CLUSTER_COLUMNS,
)
EVENT_COLUMNS = (
    "create_time", "external_id", "handler_id", "source", "top_match", "match_result",
    "face_detections", "face_id", "attach_result", "gender", "age", "emotion", "ethnic_group", "tags",
    "user_data", "city", "area", "district", "street", "house_number", "latitude", "longitude", "mask",
    "track_id", "liveness", "attribute_id", "frame_id", "low_quality", *CLUSTER_COLUMNS,
)
# fmt: on
"""Columns that a report may have after `cluster` and the object id."""


class Report(Struct, frozen=True, kw_only=True):
    """The table and the page in the archive."""

    format: Literal["csv"] = "csv"
    columns: Annotated[
        list[str] | None,
        Meta(description="Columns after cluster and the object id; absent: the default ones."),
    ] = None
    html: Annotated[
        bool | None, Meta(description="Put report.html into the archive; absent: as configured.")
    ] = None


class Content(Struct, frozen=True, kw_only=True):
    """What to cluster, and how."""

    objects_type: Literal["events", "faces"]
    descriptor_type: DescriptorType = "face"
    descriptor_version: Annotated[
        Version | None,
        Meta(description="Version of the descriptor model; absent: the highest that has objects."),
    ] = None
    filters: Filters = Filters()
    threshold: Annotated[
        Annotated[float, Meta(ge=-1, le=1)] | None,
        Meta(
            description="Links are more similar than this, on the scale configured for the descriptor type "
            "and version; absent: the configured default."
        ),
    ] = None
    use_track_info: Annotated[bool, Meta(description="Objects of one track end in one cluster.")] = False
    save_images: bool = False
    linkage: Annotated[
        Linkage,
        Meta(
            description="Clusters are connected components of the links, or groups that merge while their "
            "average similarity is above the threshold."
        ),
    ] = "components"
    min_quality: Annotated[
        float | None,
        Meta(
            description="Objects of lower quality neither form nor join groups; each is then attached to its "
            "most similar group, if that is above the threshold. Objects without a quality pass."
        ),
    ] = None
    cannot_link: Annotated[
        CannotLink | None,
        Meta(
            description="same_frame: objects of one source and frame_id on different tracks never end in one "
            "cluster. With average linkage only."
        ),
    ] = None
    report: Report = Report()

    @property
    def object_type(self) -> ObjectType:
        """`event` or `face`."""
        return "event" if self.objects_type == "events" else "face"


class TaskRequest(Struct, frozen=True, kw_only=True, tag_field="type", tag="clustering"):
    """Cluster the selected objects of an account into an archive."""

    task_id: Id
    account_id: Id
    content: Content
    description: Annotated[str, Meta(max_length=1024)] | None = None
    deadline_s: Annotated[
        Annotated[float, Meta(gt=0, le=31_536_000)] | None,
        Meta(description="Seconds to complete in; absent: the configured default."),
    ] = None
    callback_url: Annotated[
        str | None, Meta(description="http(s) URL that the last status is posted to.")
    ] = None
    result_ttl_s: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None,
        Meta(description="Seconds to keep the archive; absent: the configured time."),
    ] = None


class CancelRequest(Struct, frozen=True, kw_only=True, tag_field="type", tag="cancel"):
    """Stop a task; it leaves no result."""

    task_id: Id
    account_id: Id


class DeleteRequest(Struct, frozen=True, kw_only=True, tag_field="type", tag="delete"):
    """Remove the archive of a task; one that has not ended is cancelled first."""

    task_id: Id
    account_id: Id


AnyTask = TaskRequest | CancelRequest | DeleteRequest
_TYPES: dict[str, type[TaskRequest] | type[CancelRequest] | type[DeleteRequest]] = {
    "clustering": TaskRequest,
    "cancel": CancelRequest,
    "delete": DeleteRequest,
}


@dataclass(frozen=True, slots=True)
class BadTask:
    """A task record that cannot be served."""

    reason: Reason
    """For the dead-letter topic and the metric."""
    code: TaskErrorCode
    """`error.code` of the status: `bad_request` or `unknown_field`."""
    message: str
    task_id: str | None
    """None when not legible, like `account_id`."""
    account_id: str | None

    @property
    def reportable(self) -> bool:
        """True when a `failed` status can name its task and account."""
        return self.task_id is not None and self.account_id is not None


class _BadRequest(Exception):
    def __init__(self, code: TaskErrorCode, message: str) -> None:
        super().__init__(message)
        self.code: TaskErrorCode = code


def decode_task(record: RawRecord | bytes) -> AnyTask | BadTask:
    """The task of a record, or of bare bytes in JSON or MessagePack. Never raises, whatever the bytes."""
    value, content_type = (record, None) if isinstance(record, bytes) else (record.value, record.content_type)
    if value is None:
        return BadTask(Reason.UNDECODABLE, "bad_request", "found a record without a value", None, None)
    try:
        message = decode_loosely(value, content_type)
    except Refused as refused:
        return BadTask(refused.reason, "bad_request", refused.detail, None, None)
    task_id, account_id = _legible(message, "task_id"), _legible(message, "account_id")
    try:
        return _typed(message)
    except _BadRequest as error:
        return BadTask(Reason.BAD_FIELD, error.code, str(error), task_id, account_id)
    except msgspec.ValidationError as error:
        missing = str(error).startswith("Object missing required field")
        reason = Reason.MISSING_FIELD if missing else Reason.BAD_FIELD
        return BadTask(reason, "bad_request", told(error), task_id, account_id)


def parse_filters(value: bytes, object_type: ObjectType) -> Filters | BadTask:
    """The `filters` object of a task on its own, as JSON. Its BadTask names neither task nor account."""
    try:
        loose = decode_loosely(value, JSON)
        _check_filter_names(loose, object_type)
        filters = msgspec.convert(loose, Filters)
        _check_filters(filters)
    except Refused as refused:
        return BadTask(refused.reason, "bad_request", refused.detail, None, None)
    except _BadRequest as error:
        return BadTask(Reason.BAD_FIELD, error.code, str(error), None, None)
    except msgspec.ValidationError as error:
        return BadTask(Reason.BAD_FIELD, "bad_request", told(error), None, None)
    return filters


def encode_task(task: AnyTask, content_type: str = JSON) -> bytes:
    """Wire bytes of a task."""
    return encode_wire(task, content_type)


def _legible(message: dict[str, Any], name: str) -> str | None:
    text = message.get(name)
    return text if isinstance(text, str) and 1 <= len(text) <= 128 and is_legal_id(text) else None


def _typed(message: dict[str, Any]) -> AnyTask:
    """Raises _BadRequest or msgspec.ValidationError."""
    kind = message.get("type", "clustering")
    struct = _TYPES.get(kind) if isinstance(kind, str) else None
    if struct is None:
        raise _BadRequest("bad_request", f"type: found {_shown(kind)}, expected one of {', '.join(_TYPES)}")
    if struct is TaskRequest:
        _check_names(message)
    task = msgspec.convert(_without_nulls(message), struct)
    for name in ("task_id", "account_id"):
        if not is_legal_id(getattr(task, name)):
            raise _BadRequest("bad_request", f"{name}: expected printable characters but / and \\")
    if isinstance(task, TaskRequest):
        _check(task)
    return task


def _without_nulls(message: dict[str, Any]) -> dict[str, Any]:
    """Null means absent everywhere but in filters, where it selects."""
    task = {name: value for name, value in message.items() if value is not None}
    content = task.get("content")
    if isinstance(content, dict):
        task["content"] = content = {name: value for name, value in content.items() if value is not None}
        report = content.get("report")
        if isinstance(report, dict):
            content["report"] = {name: value for name, value in report.items() if value is not None}
    return task


def _check_names(message: dict[str, Any]) -> None:
    """Names that have a fixed list: filters and report columns."""
    content = message.get("content")
    if not isinstance(content, dict):
        return
    object_type: ObjectType = "face" if content.get("objects_type") == "faces" else "event"
    filters, report = content.get("filters"), content.get("report")
    if isinstance(filters, dict):
        _check_filter_names(filters, object_type)
    columns = report.get("columns") if isinstance(report, dict) else None
    if isinstance(columns, list) and (problem := column_problem(object_type, columns)):
        raise _BadRequest("bad_request", f"content.report.columns: {problem}")


def column_problem(object_type: ObjectType, names: Sequence[object]) -> str | None:
    """What is wrong with the columns that a report shall have; None when nothing is."""
    known = EVENT_COLUMNS if object_type == "event" else FACE_COLUMNS
    for position, name in enumerate(names):
        if name not in known:
            return f"no column {_shown(name)} of {object_type}s; there are {', '.join(sorted(known))}"
        if name in names[:position]:
            return f"the column {name} is named twice"
    return None


def _check_filter_names(filters: dict[str, Any], object_type: ObjectType) -> None:
    known = sorted(filters_of(object_type))
    for name in filters:
        if name not in known:
            nearest = difflib.get_close_matches(_shown(name).strip("'"), known, n=1, cutoff=0)[0]
            raise _BadRequest(
                "unknown_field",
                f"filter {_shown(name)} is not known for {object_type}s; did you mean {nearest}?",
            )


def _shown(value: object) -> str:
    """A short text for a message; the type alone of what is no text, which may be nested without end."""
    return repr(value[:100]) if isinstance(value, str) else type(value).__name__


def _check_filters(filters: Filters) -> None:
    problem = filter_problem(filters)
    if problem is not None:
        raise _BadRequest("bad_request", problem)


def _check(task: TaskRequest) -> None:
    content = task.content
    if content.objects_type == "faces" and content.descriptor_type == "body":
        raise _BadRequest("bad_request", "content.descriptor_type: found body, expected face for faces")
    _check_filters(content.filters)
    if content.cannot_link is not None and content.linkage != "average":
        raise _BadRequest(
            "bad_request",
            f"content.cannot_link: found it with the linkage {content.linkage}, expected average; connected "
            "components are what links connect, and have no merges of which one could be left out",
        )
    numbers = {
        "threshold": content.threshold,
        "content.min_quality": content.min_quality,
        "deadline_s": task.deadline_s,
    }
    for name, number in numbers.items():
        if number is not None and not math.isfinite(number):
            raise _BadRequest("bad_request", f"{name}: expected a finite number")
    if task.callback_url is not None and not _is_http(task.callback_url):
        raise _BadRequest("bad_request", "callback_url: expected an http or https URL")


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and url.isprintable() and " " not in url

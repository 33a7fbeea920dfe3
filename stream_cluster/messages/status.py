"""Task statuses, as they go to the results topic."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from stream_cluster.messages.record import JSON, Reason, Rejection
from stream_cluster.messages.vectors import Refused
from stream_cluster.messages.wire import Id
from stream_cluster.messages.wireform import BAD_BYTES, Decoders, encode_wire, verdict

State = Literal["pending", "in_progress", "done", "failed", "cancelled"]
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})
Count = Annotated[int, Meta(ge=0)]


class ArchiveRef(Struct, frozen=True, kw_only=True):
    """Where the archive is."""

    url: Annotated[str, Meta(description="file:///… or s3://bucket/key; the same for as long as it is kept.")]
    size_bytes: Count
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class AsOf(Struct, frozen=True, kw_only=True):
    """The point in the log that the result stands for."""

    topic: str
    partition: Count
    next_offset: Annotated[int, Meta(ge=0, description="One past the last record that the result contains.")]


class TaskFault(Struct, frozen=True, kw_only=True):
    """Why a task failed."""

    code: Annotated[
        str, Meta(description="Stable, for programs: empty_selection, bad_request, unknown_field, …")
    ]
    message: str


class TaskWarning(Struct, frozen=True, kw_only=True):
    """A cluster that may be several which chain."""

    code: Annotated[str, Meta(description="Stable, for programs: large_cluster, bridges.")]
    message: str
    cluster: Annotated[Count, Meta(description="Number of the cluster in the archive.")]
    id: Annotated[str, Meta(description="Stable id of the cluster: that of its oldest object.")]
    size: Count
    share: Annotated[float, Meta(ge=0, le=1, description="Share of the selection.")]
    bridges: Annotated[Count, Meta(description="Weak links that hold large parts of it together.")]
    pair: Annotated[
        list[str], Meta(max_length=2, description="The objects at the ends of its weakest bridge; or none.")
    ]
    objects: Annotated[list[str], Meta(description="Objects at the ends of bridges, the weakest first.")]


class TaskStatus(Struct, frozen=True, kw_only=True):
    """What became of a task so far. Null where it does not apply yet."""

    task_id: Id
    account_id: Id
    status: State
    progress: Annotated[float, Meta(ge=0, le=1)]
    time: Annotated[str, Meta(description="When this was said; RFC 3339, UTC.")]
    archive: ArchiveRef | None = None
    result_url: Annotated[
        str | None,
        Meta(description="Where to get the archive: archive.url, or an https URL that is valid for a while."),
    ] = None
    expires: Annotated[
        str | None, Meta(description="When the archive is removed; RFC 3339, UTC. Null: it is kept.")
    ] = None
    archive_removed: Annotated[
        Literal["deleted", "expired"] | None,
        Meta(description="The archive is gone: on request, or after its time to live."),
    ] = None
    objects: Count | None = None
    clusters: Count | None = None
    largest_cluster: Annotated[Count | None, Meta(description="Objects of the largest cluster.")] = None
    threshold: Annotated[float | None, Meta(description="The threshold in force, on its scale.")] = None
    as_of: AsOf | None = None
    duration_s: Annotated[float, Meta(ge=0)] | None = None
    stage: Annotated[
        str | None,
        Meta(
            description="What a task in progress does: wait, select, match, clusters, report, images, upload."
        ),
    ] = None
    records_to_barrier: Annotated[
        Count | None,
        Meta(
            description="Of a task that waits: records that ingest still has to apply before it can begin; "
            "0: it waits for a free slot alone."
        ),
    ] = None
    timings_s: Annotated[
        dict[str, float] | None, Meta(description="Seconds spent by stage, of a task that is done.")
    ] = None
    warnings: Annotated[
        list[TaskWarning] | None,
        Meta(description="Clusters that may be several which chain, of a task that is done."),
    ] = None
    error: TaskFault | None = None

    @property
    def ended(self) -> bool:
        """True when the task goes on no more; only the removal of its archive can still follow."""
        return self.status in ENDED


_STATUS: Decoders[TaskStatus] = Decoders(TaskStatus)


def encode_status(status: TaskStatus, content_type: str = JSON) -> bytes:
    """Wire bytes of a status, every field present."""
    return encode_wire(status, content_type)


def decode_status(value: bytes, content_type: str | None = None) -> TaskStatus | Rejection:
    """The status, or why these bytes are none. Never raises, whatever the bytes."""
    try:
        return _STATUS.decode(value, content_type)
    except BAD_BYTES as error:
        refused: Refused = verdict(value, content_type, error)
        return Rejection(Reason(refused.reason), refused.detail, None)

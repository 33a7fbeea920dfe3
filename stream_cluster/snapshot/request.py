"""A task request with every default filled in and every part checked that needs no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from stream_cluster.config import ChainingSettings, ImageSettings, PageSettings, Settings, SimilaritySettings
from stream_cluster.errors import TaskError
from stream_cluster.messages import TaskRequest
from stream_cluster.model import CannotLink, DescriptorType, Interrupt, Linkage, ObjectType
from stream_cluster.snapshot.columns import Column, resolve_columns
from stream_cluster.snapshot.filters import Condition, compile_filters
from stream_cluster.snapshot.rematch import Rematch
from stream_cluster.snapshot.selection import Selection, select
from stream_cluster.snapshot.threshold import threshold_on
from stream_cluster.state.view import PartitionView, SpaceRecord


@dataclass(frozen=True, slots=True)
class ClusteringRequest:
    """What a snapshot does, with nothing left open but the data."""

    task_id: str
    account_id: str
    description: str | None
    object_type: ObjectType
    descriptor_type: DescriptorType
    descriptor_version: int | None
    """The one that the task names, else the configured one; None: the newest that has objects."""
    threshold: float | None
    """On the scale of the version that is clustered; None: its default. See `Threshold`."""
    similarity: SimilaritySettings
    use_track_info: bool
    linkage: Linkage
    min_quality: float | None
    cannot_link: CannotLink | None
    conditions: list[Condition]
    read_time_us: int | None
    """The default of `create_time__lt`: objects dated after the task was read do not belong to it. None: no
    default."""
    columns: list[Column]
    rematch: Rematch
    """How what is selected is matched again, where the forest has no answer."""
    images: ImageSettings | None
    """Where images come from; None when none are asked for."""
    page: PageSettings | None
    """Limits of report.html; None leaves it out."""
    chaining: ChainingSettings
    content: Mapping[str, Any]
    """The request's `content` as it was given, for the manifest."""

    @property
    def id_column(self) -> str:
        """Name of the report's second column."""
        return f"{self.object_type}_id"


def resolve_request(task: TaskRequest, settings: Settings, read_time_us: int) -> ClusteringRequest:
    """Fill in the defaults of a task read at `read_time_us`.

    Raises:
        TaskError: `bad_request` for images without an image root, and for a threshold outside the scale of
            the version that the task or the configuration names; without one, the scale is known when the
            space is.
    """
    content = task.content
    if content.save_images and not settings.images.roots:
        raise TaskError("bad_request", "content.save_images: no image root is configured (images.roots)")
    version = content.descriptor_version
    if version is None:
        version = getattr(settings.matching.descriptor_version, content.descriptor_type)
    if content.threshold is not None and version is not None:
        threshold_on(settings.similarity, content.descriptor_type, version, content.threshold)
    with_page = settings.page.enabled if content.report.html is None else content.report.html
    return ClusteringRequest(
        task_id=task.task_id,
        account_id=task.account_id,
        description=task.description,
        object_type=content.object_type,
        descriptor_type=content.descriptor_type,
        descriptor_version=version,
        threshold=content.threshold,
        similarity=settings.similarity,
        use_track_info=content.use_track_info,
        linkage=content.linkage,
        min_quality=content.min_quality,
        cannot_link=content.cannot_link,
        conditions=compile_filters(content.filters, content.object_type, read_time_us),
        read_time_us=read_time_us,
        columns=resolve_columns(content.object_type, content.report.columns or [], content.min_quality),
        rematch=Rematch(
            settings.matching.rematch_engine,
            settings.matching.rematch_exact_s,
            settings.matching.target_recall,
        ),
        images=settings.images if content.save_images else None,
        page=settings.page if with_page else None,
        chaining=settings.chaining,
        content=msgspec.to_builtins(content),
    )


def find_space(view: PartitionView, request: ClusteringRequest) -> SpaceRecord:
    """The space that a request is about.

    Raises:
        TaskError: `empty_selection` when the account has no such objects.
    """
    candidates = [
        space
        for space in view.spaces(request.account_id)
        if space.key.object_type == request.object_type
        and space.key.descriptor_type == request.descriptor_type
        and request.descriptor_version in (None, space.key.version)
        and space.objects
    ]
    if candidates:
        return max(candidates, key=lambda space: space.key.version)
    version = "" if request.descriptor_version is None else f" version {request.descriptor_version}"
    raise TaskError(
        "empty_selection",
        f"the account has no {request.object_type} with a {request.descriptor_type} descriptor{version}",
    )


def select_requested(view: PartitionView, request: ClusteringRequest, interrupt: Interrupt) -> Selection:
    """The objects that a request is about.

    Raises:
        TaskError: `empty_selection` when there are none; the message names the filter that left none over.
        Cancelled: asked to stop.
    """
    selection = select(
        view,
        find_space(view, request),
        request.conditions,
        with_tracks=request.use_track_info,
        interrupt=interrupt,
        read_time_us=request.read_time_us,
        min_quality=request.min_quality,
        with_frames=request.cannot_link is not None,
    )
    if not len(selection):
        # The last filter that left anything out left nothing over.
        name, removed = [item for item in selection.removed_by_filter.items() if item[1]][-1]
        raise TaskError(
            "empty_selection",
            f"the filters select none of {selection.in_space} objects of this descriptor type: "
            f"{name} excludes the last {removed}",
        )
    return selection

"""Tasks and what they leave behind."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from stream_cluster.config.image_roots import ImageRoot
from stream_cluster.config.sections.base import MIB, SECRET, Section
from stream_cluster.config.sections.buckets import S3Settings


class TaskSettings(Section, frozen=True, kw_only=True):
    """How tasks run."""

    concurrency: Annotated[int, Meta(ge=1, le=256, description="Tasks that run at the same time.")] = 1
    progress_interval_s: Annotated[
        float, Meta(gt=0, le=3_600, description="Least pause between two progress messages of a task.")
    ] = 1.0
    default_deadline_s: Annotated[
        float, Meta(gt=0, le=31_536_000, description="Deadline of a task that names none.")
    ] = 3600.0
    history_s: Annotated[
        int,
        Meta(
            ge=60,
            le=315_360_000,
            description="How long a task is remembered after its end when it has no archive (any more); "
            "until then its id is not used again.",
        ),
    ] = 2_592_000


class ResultSettings(Section, frozen=True, kw_only=True):
    """Where archives go, and for how long."""

    directory: Annotated[str, Meta(min_length=1, description="Directory of the result archives.")] = (
        "./results"
    )
    ttl_s: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None,
        Meta(
            description="Seconds to keep the archive of a task that names no result_ttl_s; absent: until it "
            "is deleted."
        ),
    ] = None
    sweep_interval_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Pause between two looks for archives to remove.")
    ] = 60.0
    presign_s: Annotated[
        Annotated[int, Meta(ge=1, le=604_800)] | None,
        Meta(
            description="How long the result_url of a status gives access to an archive in a bucket; absent: "
            "result_url is archive.url."
        ),
    ] = None
    s3: S3Settings = S3Settings()


class CallbackSettings(Section, frozen=True, kw_only=True):
    """HTTP calls at the end of tasks."""

    allowed_hosts: Annotated[
        str,
        Meta(
            description="Hosts that a callback_url may name, as host,host:port; a host without a port allows "
            "the port of its scheme. Nothing is allowed when empty."
        ),
    ] = ""
    secret: Annotated[
        str | None, Meta(description="Key of the signatures; prefer secret_file.", extra=SECRET)
    ] = None
    secret_file: Annotated[str | None, Meta(description="File whose content is secret.")] = None
    timeout_s: Annotated[float, Meta(gt=0, le=600, description="Wait for the answer to one call.")] = 10.0
    attempts: Annotated[int, Meta(ge=1, le=100, description="Calls before a callback is given up.")] = 8
    backoff_s: Annotated[
        float,
        Meta(gt=0, le=3_600, description="Pause after the first failed call; it doubles, to 5 minutes."),
    ] = 1.0


class ImageSettings(Section, frozen=True, kw_only=True):
    """Where the images of `save_images` are, and how much of them is read."""

    roots: Annotated[
        tuple[ImageRoot, ...],
        Meta(description="Places that references are looked up in; docs/images.md describes the tables."),
    ] = ()
    image_max_bytes: Annotated[
        int, Meta(ge=1, le=2**30, description="A larger image is left out as too_large.")
    ] = 8 * MIB
    image_timeout_s: Annotated[
        float, Meta(gt=0, le=3_600, description="An image that takes longer is left out as timeout.")
    ] = 10.0
    total_max_bytes: Annotated[
        int, Meta(ge=1, description="Most bytes of images in an archive; over_total_limit counts the rest.")
    ] = 4096 * MIB
    total_timeout_s: Annotated[
        float,
        Meta(
            gt=0,
            le=31_536_000,
            description="How long a task saves images; over_total_limit counts the rest.",
        ),
    ] = 1800.0
    concurrency: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="Images that a task reads at the same time, and most that it has in memory.",
        ),
    ] = 16


class PageSettings(Section, frozen=True, kw_only=True):
    """The page in an archive, report.html."""

    enabled: Annotated[bool, Meta(description="Put report.html into archives whose tasks do not say.")] = True
    max_bytes: Annotated[
        int,
        Meta(
            ge=256 * 1024,
            le=2**30,
            description="Most bytes of report.html, which are held in memory too; what does not fit is left "
            "out, and the page says so.",
        ),
    ] = 24 * MIB
    thumbnail_px: Annotated[
        int, Meta(ge=16, le=512, description="Longer side of the pictures that report.html holds itself.")
    ] = 96
    cluster_members: Annotated[
        int, Meta(ge=2, le=1_000_000, description="Most members of one cluster that report.html lists.")
    ] = 500

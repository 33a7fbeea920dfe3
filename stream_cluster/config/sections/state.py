"""The durable state, how long objects stay in it, and its backups."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from stream_cluster.config.sections.base import Section
from stream_cluster.config.sections.buckets import BackupS3Settings
from stream_cluster.model import DescriptorType

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
Age = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,5}[smhdw]$")]


class StateSettings(Section, frozen=True, kw_only=True):
    """The durable state."""

    directory: Annotated[
        str, Meta(min_length=1, description="Directory of the databases; one process at a time.")
    ] = "./state"
    synchronous: Annotated[
        Literal["full", "normal"],
        Meta(description="full survives a power cut; normal may lose the last batches, never consistency."),
    ] = "full"
    page_cache_mb: Annotated[
        int, Meta(ge=1, le=65_536, description="SQLite's page cache per database, in MiB.")
    ] = 16
    vacuum_interval_s: Annotated[
        float,
        Meta(
            ge=0,
            le=31_536_000,
            description="Least pause between two rewrites of a database after deletions; 0 never rewrites.",
        ),
    ] = 86_400.0


class RetentionSettings(Section, frozen=True, kw_only=True):
    """How long objects are kept."""

    face: Annotated[
        Age | None,
        Meta(description="Age, such as 90d, at which faces are deleted; else they are kept."),
    ] = None
    body: Annotated[
        Age | None,
        Meta(description="Age, such as 90d, at which bodies are deleted; else they are kept."),
    ] = None
    interval_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Pause between two searches for objects past their age.")
    ] = 60.0

    @property
    def ages_us(self) -> dict[DescriptorType, int]:
        """Greatest age in microseconds by descriptor type; types that are kept are not in it."""
        texts: dict[DescriptorType, str | None] = {"face": self.face, "body": self.body}
        return {
            descriptor_type: int(text[:-1]) * _UNITS_S[text[-1]] * 1_000_000
            for descriptor_type, text in texts.items()
            if text is not None
        }


class BackupSettings(Section, frozen=True, kw_only=True):
    """Backups of the state. There are none unless `directory` or `s3.bucket` is given."""

    directory: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="Directory of the backups, which workers may share."),
    ] = None
    interval_s: Annotated[
        float, Meta(gt=0, le=31_536_000, description="Pause between two backups of a partition.")
    ] = 3_600.0
    keep: Annotated[int, Meta(ge=1, le=10_000, description="Backups of a partition that are kept.")] = 3
    max_age_s: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None,
        Meta(
            description="Age at which a backup is deleted if there is a newer one, and with it what was "
            "deleted from the state since; absent: only backup.keep counts."
        ),
    ] = 604_800
    final_timeout_s: Annotated[
        float,
        Meta(
            ge=0, le=86_400, description="How long a stop waits for the last backups; 0 makes none at a stop."
        ),
    ] = 60.0
    replace_behind_records: Annotated[
        Annotated[int, Meta(ge=1, le=2**53)] | None,
        Meta(
            description="A database that is this far behind the newest backup is replaced by it when its "
            "partition is opened; absent: however far, the log is read."
        ),
    ] = 200_000
    s3: BackupS3Settings = BackupS3Settings()

    @property
    def enabled(self) -> bool:
        """Whether there is a place for backups."""
        return self.directory is not None or self.s3.bucket is not None

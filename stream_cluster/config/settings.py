"""All settings of one process. Each section is written in `sections`, and nowhere else.

The description, range and default of a field make the documentation table, the messages of a bad value, and
the output of `check-config`. A secret is marked in `Meta.extra` and is masked wherever settings are shown.
"""

from __future__ import annotations

from stream_cluster.config.sections.base import SECRET, Section
from stream_cluster.config.sections.buckets import BackupS3Settings, S3Settings
from stream_cluster.config.sections.kafka import KafkaSettings
from stream_cluster.config.sections.matching import (
    ChainingSettings,
    DescriptorVersion,
    IngestSettings,
    MatchingSettings,
    UpdateSettings,
)
from stream_cluster.config.sections.process import HttpSettings, LogSettings
from stream_cluster.config.sections.results import (
    CallbackSettings,
    ImageSettings,
    PageSettings,
    ResultSettings,
    TaskSettings,
)
from stream_cluster.config.sections.state import BackupSettings, RetentionSettings, StateSettings
from stream_cluster.config.similarity import SimilaritySettings

__all__ = [
    "SECRET",
    "BackupS3Settings",
    "BackupSettings",
    "CallbackSettings",
    "ChainingSettings",
    "DescriptorVersion",
    "HttpSettings",
    "ImageSettings",
    "IngestSettings",
    "KafkaSettings",
    "LogSettings",
    "MatchingSettings",
    "PageSettings",
    "ResultSettings",
    "RetentionSettings",
    "S3Settings",
    "Settings",
    "StateSettings",
    "TaskSettings",
    "UpdateSettings",
]


class Settings(Section, frozen=True, kw_only=True):
    """All settings of one process. Built by `load_settings`, which also checks fields against each other."""

    kafka: KafkaSettings = KafkaSettings()
    ingest: IngestSettings = IngestSettings()
    similarity: SimilaritySettings = SimilaritySettings()
    matching: MatchingSettings = MatchingSettings()
    state: StateSettings = StateSettings()
    backup: BackupSettings = BackupSettings()
    retention: RetentionSettings = RetentionSettings()
    updates: UpdateSettings = UpdateSettings()
    tasks: TaskSettings = TaskSettings()
    results: ResultSettings = ResultSettings()
    images: ImageSettings = ImageSettings()
    page: PageSettings = PageSettings()
    chaining: ChainingSettings = ChainingSettings()
    callbacks: CallbackSettings = CallbackSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

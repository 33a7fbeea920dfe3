"""Settings: frozen structs (settings.py), loaded from file, environment and overrides (load.py, checks.py),

and described for people from the same source (describe.py).
"""

from stream_cluster.config.describe import FieldDoc, FieldReport, describe, field_docs, field_table
from stream_cluster.config.load import LoadedSettings, load_settings, load_with_sources
from stream_cluster.config.settings import ImageSettings, QualitySettings, ReportSettings, Settings
from stream_cluster.config.similarity import ScaleSettings, SimilaritySettings

__all__ = [
    "FieldDoc",
    "FieldReport",
    "ImageSettings",
    "LoadedSettings",
    "QualitySettings",
    "ReportSettings",
    "ScaleSettings",
    "Settings",
    "SimilaritySettings",
    "describe",
    "field_docs",
    "field_table",
    "load_settings",
    "load_with_sources",
]

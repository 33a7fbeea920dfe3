"""Settings: frozen structs (settings.py, sections), from file, environment and options (load.py, checks.py),

and described for people from the same source (describe.py).
"""

from stream_cluster.config.describe import FieldDoc, FieldReport, describe, field_docs, field_table
from stream_cluster.config.load import LoadedSettings, load_settings, load_with_sources
from stream_cluster.config.settings import ChainingSettings, ImageSettings, PageSettings, Settings
from stream_cluster.config.similarity import ScaleSettings, SimilaritySettings

__all__ = [
    "ChainingSettings",
    "FieldDoc",
    "FieldReport",
    "ImageSettings",
    "LoadedSettings",
    "PageSettings",
    "ScaleSettings",
    "Settings",
    "SimilaritySettings",
    "describe",
    "field_docs",
    "field_table",
    "load_settings",
    "load_with_sources",
]

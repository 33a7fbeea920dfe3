"""Synthetic cameras: seeded object messages as people walk past, with the truth of who is who.

Streaming: memory does not grow with the number of events. The layout of the data is in `events`.
"""

from __future__ import annotations

from stream_cluster.generate.events import GeneratedRecord, generate_events
from stream_cluster.generate.faces import draw_face
from stream_cluster.generate.files import GenerateSummary, write_events
from stream_cluster.generate.options import FAULTS, Fault, GenerateOptions

__all__ = [
    "FAULTS",
    "Fault",
    "GenerateOptions",
    "GenerateSummary",
    "GeneratedRecord",
    "draw_face",
    "generate_events",
    "write_events",
]

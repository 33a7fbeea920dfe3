"""Inputs to begin with: the generator's good and faulty messages, changes, tasks, statuses, updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from stream_cluster.generate import FAULTS, GenerateOptions, generate_events
from stream_cluster.generate.faults import break_message
from stream_cluster.generate.options import ENCODINGS
from stream_cluster.messages import JSON, MSGPACK
from tests.fuzz.target import CONTENT_TYPES

_DIM = 8
_SECONDS = "2026-05-01T10:00:00Z"

_CHANGES: list[dict[str, Any]] = [
    {"account_id": "demo", "event_id": "e1", "action": "update", "source": "cam1", "tags": None, "age": 7},
    {"account_id": "demo", "object_type": "face", "face_id": "f1", "action": "update", "list_ids": ["l"]},
    {
        "account_id": "demo",
        "event_id": "e1",
        "action": "update",
        "location": {"city": "c", "geo_position": {"longitude": 1.5, "latitude": 2}},
        "body_attributes": {"headwear": ["hat", 1]},
    },
    {"account_id": "demo", "action": "delete", "event_ids": ["e1", "e2"]},
    {"account_id": "demo", "action": "delete", "face_ids": ["f1"]},
    {"account_id": "demo", "action": "delete", "everything": True},
]
_TASKS: list[dict[str, Any]] = [
    {"task_id": "t", "account_id": "demo", "content": {"objects_type": "faces"}},
    {"task_id": "t", "account_id": "demo", "type": "cancel"},
    {"task_id": "t", "account_id": "demo", "type": "delete"},
    {
        "task_id": "t",
        "account_id": "demo",
        "type": "clustering",
        "description": "d",
        "deadline_s": 60,
        "callback_url": "https://example.org/done",
        "result_ttl_s": 100,
        "content": {
            "objects_type": "events",
            "descriptor_type": "body",
            "descriptor_version": 1,
            "threshold": 0.5,
            "use_track_info": True,
            "save_images": True,
            "linkage": "average",
            "report": {"format": "csv", "columns": ["create_time", "source"]},
            "filters": {
                "create_time__gte": "now-3d",
                "create_time__lt": _SECONDS,
                "sources": ["cam1", None],
                "age__gte": 18,
                "meta": {"gate.number": [1, "x", None], "a": {"b": True}},
                "geo_position": {
                    "longitude__gte": -10,
                    "longitude__lt": 10,
                    "latitude__gte": -10,
                    "latitude__lt": 10,
                },
            },
        },
    },
]
_UPDATE = {
    "epoch": 1,
    "seq": 1,
    "account_id": "demo",
    "object_type": "event",
    "descriptor_type": "face",
    "descriptor_version": 1,
    "threshold": 0.5,
    "threshold_cosine": 0.5,
}
_OTHERS: list[dict[str, Any]] = [
    {
        "task_id": "t",
        "account_id": "demo",
        "status": "done",
        "progress": 1.0,
        "time": _SECONDS,
        "archive": {"url": "file:///a.zip", "size_bytes": 1, "sha256": "0" * 64},
        "objects": 3,
        "clusters": 2,
        "as_of": {"topic": "events", "partition": 0, "next_offset": 3},
        "error": {"code": "bad_request", "message": "m"},
    },
    {
        **_UPDATE,
        "kind": "object",
        "object_id": "e",
        "cluster": "e",
        "strongest": {"object_id": "f", "similarity": 0.9},
        "merged": ["f"],
    },
    {**_UPDATE, "kind": "change", "deleted": ["e"], "clusters": [{"id": "e", "objects": ["e"]}]},
    {**_UPDATE, "kind": "reset", "clusters": [{"id": "e", "objects": ["e"], "former": "x"}]},
]


def seeds() -> list[bytes]:
    """Inputs as `target` takes them: a byte that chooses the content type, then the message."""
    found = list(dict.fromkeys(_seeds()))
    assert len(found) > 100
    return found


def _seeds() -> Iterator[bytes]:
    for form in ("json", "msgpack"):
        number = CONTENT_TYPES.index(JSON if form == "json" else MSGPACK)
        encode = msgspec.json.encode if form == "json" else msgspec.msgpack.encode
        for message in (*_CHANGES, *_TASKS, *_OTHERS):
            yield bytes([number]) + encode(message)
            yield bytes([0]) + encode(message)
        for encoding in ENCODINGS:
            options = GenerateOptions(
                events=4,
                dim=_DIM,
                encoding=encoding,
                format=form,
                descriptor="both",
                metadata=True,
                too_large_bytes=20_000,
            )
            for record in generate_events(options):
                yield bytes([number]) + record.value
        for fault in FAULTS:
            for variant in range(13):
                options = GenerateOptions(events=1, dim=_DIM, format=form, too_large_bytes=20_000)
                message = {
                    "event_id": f"e{variant}",
                    "account_id": "demo",
                    "create_time": _SECONDS,
                    "descriptors": [
                        {
                            "type": "face",
                            "version": 1,
                            "encoding": "float32",
                            "data": np.ones(_DIM, "<f4").tobytes(),
                        }
                    ],
                }
                yield bytes([number]) + break_message(fault, variant, message, options)

"""What the status page is told, made up: every kind of row once."""

from __future__ import annotations

from typing import Any


def facts(**changes: Any) -> dict[str, Any]:
    """A report as the service makes it (`tests/unit/test_service_status.py` holds this to that)."""
    return {
        "version": "0.1.0",
        "time": "2026-05-01T10:00:07.412Z",
        "uptime_s": 93_784,
        "ready": True,
        "problems": [],
        "shows_ids": True,
        "rate": {
            "records": 981_223,
            "records_per_s": 1204.3,
            "by_second": [1200 + 300 * ((n * 7) % 5) - 40 * (n % 9) for n in range(60)],
        },
        "partitions": [
            {
                "partition": 0,
                "state": "open",
                "next_offset": 981_223,
                "lag_records": 12,
                "buffered_records": 4,
            },
            {
                "partition": 1,
                "state": "paused",
                "next_offset": 812,
                "lag_records": 40_000,
                "buffered_records": 9,
            },
            {"partition": 2, "state": "loading"},
        ],
        "spaces_total": {"spaces": 3, "objects": 1_310_220},
        "spaces": [
            space("acme", 1_204_113, "hnsw", {"links": 20_412, "share": 0.99931}),
            space("birch", 106_107),
        ],
        "tasks": {
            "running": 1,
            "waiting": 1,
            "active": [
                active("acme", "april-gate-4", "match", 0.437, 81.2),
                active("birch", "7d5e0c1a", "wait", 0.0, 3.1),
            ],
            "ended": [
                ended("acme", "march", archive="file:///var/lib/results/acme/march%20report.zip"),
                ended("acme", "february", archive="s3://archives/acme/february.zip"),
                ended("birch", "typo", status="failed", error="empty_selection"),
                ended("birch", "old", archive_removed="expired"),
            ],
        },
    } | changes


def space(account: str, objects: int, engine: str = "exact", recall: Any = None) -> dict[str, Any]:
    return {
        "partition": 0,
        "account_id": account,
        "object_type": "event",
        "descriptor_type": "face",
        "version": 62,
        "dimension": 512,
        "objects": objects,
        "engine": engine,
        "memory_bytes": objects * 690,
        "recall": recall,
    }


def active(account: str, task: str, stage: str, progress: float, elapsed_s: float) -> dict[str, Any]:
    return {
        "account_id": account,
        "task_id": task,
        "partition": 0,
        "status": "in_progress" if progress else "pending",
        "stage": stage,
        "progress": progress,
        "elapsed_s": elapsed_s,
    }


def ended(account: str, task: str, status: str = "done", **changes: Any) -> dict[str, Any]:
    counts = (52_310, 8841, 312) if status == "done" else (None, None, None)
    return {
        "account_id": account,
        "task_id": task,
        "status": status,
        "time": "2026-05-01T09:58:00.000Z",
        **dict(zip(("objects", "clusters", "largest_cluster"), counts, strict=True)),
        "duration_s": 41.8,
        "archive": None,
        "archive_removed": None,
        "error": None,
    } | changes

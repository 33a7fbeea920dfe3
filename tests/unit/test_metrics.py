"""Metrics that are made from more than one fact."""

from __future__ import annotations

from pathlib import Path

from stream_cluster.service.metrics import Metrics


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"stream_cluster_{name}", labels)


def test_the_largest_clusters_share_is_noted_for_tasks_of_a_thousand_objects() -> None:
    metrics = Metrics()
    metrics.observe_largest_cluster("face", objects=1000, largest_cluster=250)
    metrics.observe_largest_cluster("face", objects=999, largest_cluster=999)

    def within(bound: str) -> float | None:
        return value(metrics, "largest_cluster_share_bucket", descriptor_type="face", le=bound)

    assert (within("0.2"), within("0.3"), within("+Inf")) == (0, 1, 1)
    assert value(metrics, "largest_cluster_share_count", descriptor_type="body") == 0
    # The latest task counts whatever its size.
    assert value(metrics, "latest_task_largest_cluster_share", descriptor_type="face") == 1
    assert value(metrics, "latest_task_largest_cluster_share", descriptor_type="body") == 0


def test_disks_and_the_size_of_the_state_are_told(tmp_path: Path) -> None:
    metrics = Metrics()
    state = tmp_path / "state"
    metrics.observe_disks(state, None)
    assert value(metrics, "state_bytes") == 0
    assert value(metrics, "disk_free_bytes", directory="state") is None
    state.mkdir()
    (state / "partition-0.sqlite").write_bytes(bytes(3000))
    (state / "partition-0.sqlite-wal").write_bytes(bytes(500))
    metrics.observe_disks(state, tmp_path)
    assert value(metrics, "state_bytes") == 3500
    for directory in ("state", "results"):
        free = value(metrics, "disk_free_bytes", directory=directory)
        size = value(metrics, "disk_size_bytes", directory=directory)
        assert free is not None
        assert size is not None
        assert 0 < free <= size


def test_a_partition_that_went_to_another_worker_has_no_lag_here() -> None:
    metrics = Metrics()
    for number in ("0", "1"):
        metrics.lag_records.labels(number).set(7)
        metrics.lag_seconds.labels(number).set(7)
    metrics.forget_partition(0)
    metrics.forget_partition(5)
    assert value(metrics, "lag_records", partition="0") is None
    assert value(metrics, "lag_seconds", partition="0") is None
    assert value(metrics, "lag_records", partition="1") == 7

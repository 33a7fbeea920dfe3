"""Snapshots with images: where they stand in the archive, and how they are counted."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from stream_cluster.config import Settings, load_settings
from stream_cluster.errors import Cancelled, TaskError
from stream_cluster.messages import Content, TaskRequest
from stream_cluster.model import Interrupt
from stream_cluster.snapshot.request import resolve_request
from stream_cluster.snapshot.run import run_snapshot
from tests.support.images import picture
from tests.support.partitions import NOW_US, manifest_of, message, open_partition, records, snapshot

AXES = np.eye(8, dtype=np.float32)


def partition_of(tmp_path, messages):
    partition = open_partition(tmp_path)
    partition.apply(records(messages))
    return partition


def request(settings):
    content = Content(objects_type="events", threshold=0.6, save_images=True)
    return resolve_request(TaskRequest(task_id="t", account_id="acme", content=content), settings, NOW_US)


def settings_with_roots(folder):
    return load_settings(None, {}, {"images.roots": [{"kind": "directory", "path": str(folder)}]})


def with_images(numbers, **metadata):
    """Objects with images named after them; those of `numbers` exist."""
    return [
        message(number, AXES[number // 2], image=f"cam/{number}.jpg", **metadata) for number in range(numbers)
    ]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos" / "cam"
    folder.mkdir(parents=True)
    for number in (0, 1, 3):
        (folder / f"{number}.jpg").write_bytes(picture(colour=number))
    return folder.parent


def test_images_follow_the_report_in_its_order_stored_and_are_counted_by_the_manifest(tmp_path, photos):
    partition = partition_of(tmp_path, [*with_images(5), message(5, AXES[7])])
    settings = settings_with_roots(photos)
    archive, _ = snapshot(partition, tmp_path / "a.zip", settings=settings, threshold=0.6, save_images=True)
    again, _ = snapshot(partition, tmp_path / "b.zip", settings=settings, threshold=0.6, save_images=True)
    assert archive.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(archive) as zipped:
        assert zipped.testzip() is None
        assert zipped.namelist() == [
            "clusters.jsonl",
            "report.csv",
            "images/0/acme-00000.jpg",
            "images/0/acme-00001.jpg",
            "images/1/acme-00003.jpg",
            "report.html",
            "manifest.json",
        ]
        assert zipped.read("images/1/acme-00003.jpg") == picture(colour=3)
        images = [info for info in zipped.infolist() if info.filename.startswith("images/")]
    assert {(info.compress_type, info.date_time) for info in images} == {
        (zipfile.ZIP_STORED, (1980, 1, 1, 0, 0, 0))
    }
    manifest = manifest_of(archive)
    assert manifest["parameters"]["save_images"] is True
    counts = {reason: count for reason, count in manifest["counts"]["images"].items() if count}
    assert counts == {"wanted": 6, "saved": 3, "missing": 2, "no_reference": 1}
    partition.close()


def test_without_save_images_nothing_is_said_of_them(tmp_path, photos):
    partition = partition_of(tmp_path, with_images(3))
    archive, _ = snapshot(partition, tmp_path / "a.zip", settings=settings_with_roots(photos), threshold=0.6)
    assert "images" not in manifest_of(archive)["counts"]
    assert manifest_of(archive)["parameters"]["save_images"] is False
    partition.close()


def test_a_face_without_an_image_of_its_own_has_its_avatar(tmp_path, photos):
    faces = [
        message(0, AXES[0], object_type="face", avatar="cam/0.jpg", image="cam/1.jpg"),
        message(1, AXES[1], object_type="face", avatar="cam/3.jpg"),
        message(2, AXES[2], object_type="face", avatar="https://example.org/a.jpg"),
        message(3, AXES[3], object_type="face"),
    ]
    partition = partition_of(tmp_path, faces)
    archive, _ = snapshot(
        partition,
        tmp_path / "a.zip",
        settings=settings_with_roots(photos),
        objects_type="faces",
        save_images=True,
    )
    with zipfile.ZipFile(archive) as zipped:
        images = [zipped.read(name) for name in zipped.namelist() if name.startswith("images/")]
    assert images == [picture(colour=1), picture(colour=3)]
    counts = {reason: count for reason, count in manifest_of(archive)["counts"]["images"].items() if count}
    assert counts == {"wanted": 4, "saved": 2, "refused": 1, "no_reference": 1}
    partition.close()


def test_images_without_a_root_are_a_bad_request():
    with pytest.raises(TaskError, match="no image root is configured") as caught:
        request(Settings())
    assert caught.value.code == "bad_request"


def test_a_snapshot_cancelled_while_it_saves_images_leaves_no_file(tmp_path, photos):
    partition = partition_of(tmp_path, with_images(4))
    interrupt = Interrupt()
    shares = []

    def cancel_at(stage, share):
        shares.append(share)
        if stage == "images":
            interrupt.cancel()

    with partition.view() as view, pytest.raises(Cancelled):
        run_snapshot(
            view,
            request(settings_with_roots(photos)),
            tmp_path / "out" / "a.zip",
            interrupt=interrupt,
            progress=cancel_at,
            as_of=None,
        )
    assert list(tmp_path.glob("out/*")) == []
    assert shares == sorted(shares)
    partition.close()

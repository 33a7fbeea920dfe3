"""Ids that try to get out: of the folder of results, of the prefix of a bucket, of a zip."""

from __future__ import annotations

import itertools
import urllib.request
import zipfile
from pathlib import PurePosixPath, PureWindowsPath

import msgspec
import numpy as np
import pytest

from stream_cluster.config import load_settings
from stream_cluster.messages import (
    DecodeRules,
    RawRecord,
    Rejection,
    decode_events,
    encode_object,
)
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.service.result_store import DirectoryStore
from stream_cluster.service.s3_store import S3Store
from stream_cluster.snapshot.paths import archive_name
from tests.support.images import picture
from tests.support.partitions import message, open_partition, snapshot
from tests.support.s3 import BUCKET

REFUSED = [
    ".",
    "..",
    "../../escaped",
    "/etc/passwd",
    "a/../../b",
    "..\\..\\escaped",
    "a\\b",
    "a\0b",
    "a\nb",
    "\u202egnp",
]
"""No message may have such an id. Names are safe of them all the same."""
TAKEN = [
    *("...", "..%2f..%2fescaped", "%2e%2e%2fescaped", "%2E%2E", "%", "%00", ".hidden", "-rf", "~root"),
    *("C:", "C:escaped", "con", "nul.", "aux.txt", " ", "a ", "a?b#c", "a*b", "a|b", "a<b>", 'a"b'),
    *("$HOME", "`id`", "a;b", "a&b", "é" * 128, "x" * 128, "🙂", "a.zip", "report.html"),
]
IDS = [*REFUSED, *TAKEN]
PREFIX = "faces/archives"
RULES = DecodeRules(partition_of=None, max_message_bytes=1 << 20, uint8_offset=128)


def names():
    """Every hostile account with an ordinary task, an ordinary account with every hostile task, and both."""
    pairs = [*zip(IDS, IDS, strict=True), *((one, "task") for one in IDS), *(("acme", one) for one in IDS)]
    return {pair: archive_name(*pair) for pair in pairs}


def put(store, name, data):
    file = store.begin(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    store.put(name, file, Interrupt(), no_progress)


def is_inside(name: str) -> bool:
    """Whether a relative name stays where it is put, on any system."""
    return all(
        not path.is_absolute()
        and not getattr(path, "drive", "")
        and not {"", ".", ".."}.intersection(path.parts)
        and "\\" not in name
        for path in (PurePosixPath(name), PureWindowsPath(name))
    )


def object_with_id(object_id, number, image=None):
    plain = message(number, np.eye(8, dtype=np.float32)[number % 8], image=image)
    return msgspec.structs.replace(plain, object_ids=(object_id,))


@pytest.mark.parametrize("field", ["account", "object"])
def test_ids_that_are_paths_are_rejected_and_all_others_are_taken(field):
    def decoded(one):
        account, object_id = (one, "e") if field == "account" else ("acme", one)
        made = message(0, np.ones(8, np.float32), account=account)
        made = msgspec.structs.replace(made, object_ids=(object_id,))
        record = RawRecord("events", 0, 0, 0, account.encode(), encode_object(made), None)
        return decode_events([record], RULES)[0]

    assert [one for one in REFUSED if not isinstance(decoded(one), Rejection)] == []
    assert [one for one in TAKEN if isinstance(decoded(one), Rejection)] == []


def test_archives_of_any_ids_are_two_names_below_the_folder_and_no_two_are_the_same(tmp_path):
    store = DirectoryStore(tmp_path / "results")
    store.check()
    for pair, name in names().items():
        put(store, name, repr(pair).encode())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == len(names()) == len(set(names().values()))
    assert {len(path.relative_to(tmp_path / "results").parts) for path in files} == {2}
    assert set(store.names()) == set(names().values())
    for pair, name in names().items():
        assert is_inside(str(name)), name
        with store.open(name) as file:
            assert file.read() == repr(pair).encode()


def test_keys_in_a_bucket_stay_below_its_prefix_and_are_what_the_address_says(server, tmp_path):
    store = S3Store(server.settings(prefix=PREFIX), tmp_path / "spool", None)
    store.check()
    server.client.put_object(Bucket=BUCKET, Key="escaped", Body=b"somebody else's")
    for pair, name in names().items():
        put(store, name, repr(pair).encode())
    pages = server.client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    keys = {found["Key"] for page in pages for found in page["Contents"]}
    assert keys == {"escaped", *(f"{PREFIX}/{name}" for name in names().values())}
    for pair, name in names().items():
        assert store.url(name) == f"s3://{BUCKET}/{PREFIX}/{name}"
        key = store.url(name).removeprefix(f"s3://{BUCKET}/")
        assert server.client.get_object(Bucket=BUCKET, Key=key)["Body"].read() == repr(pair).encode()
        with store.open(name) as file:
            assert file.read() == repr(pair).encode()
    for one in IDS:
        assert {name.parts[0] for name in store.names(one)} == {archive_name(one, "task").parts[0]}
    for name in names().values():
        store.delete(name)
    (left,) = server.client.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert left["Key"] == "escaped"


def test_a_signed_address_leads_to_the_one_archive_whatever_its_ids_are(server, tmp_path):
    store = S3Store(server.settings(prefix=PREFIX), tmp_path / "spool", 600)
    store.check()
    chosen = dict(itertools.islice(names().items(), len(IDS)))
    for pair, name in chosen.items():
        put(store, name, repr(pair).encode())
    for pair, name in chosen.items():
        with urllib.request.urlopen(store.access_url(name)) as answer:
            assert answer.read() == repr(pair).encode()


def test_names_in_a_zip_stay_in_it_whatever_objects_and_images_are_called(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(picture())
    partition = open_partition(tmp_path)
    # As they are, without the check of ids that a record goes through.
    batch = partition.prepare_decoded(
        [object_with_id(one, number, image="a.jpg") for number, one in enumerate(IDS)], len(IDS)
    )
    partition.commit(batch)
    settings = load_settings(None, {}, {"images.roots": [{"kind": "directory", "path": str(photos)}]})
    archive, _ = snapshot(
        partition,
        tmp_path / "a.zip",
        settings=settings,
        threshold=0.6,
        save_images=True,
    )
    partition.close()
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as zipped:
        entries = zipped.namelist()
        assert len(entries) == len(set(entries)) == len(IDS) + 4
        assert [name for name in entries if not is_inside(name)] == []
        zipped.extractall(folder)
    written = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert written == set(entries)


@pytest.mark.parametrize(
    "image", ["../a.jpg", "..%2fa.jpg", "%2e%2e/a.jpg", "/etc/passwd", "cam/../../a.jpg", "a.jpg\0"]
)
def test_an_image_reference_that_leads_out_saves_nothing(tmp_path, image):
    (tmp_path / "a.jpg").write_bytes(picture())
    photos = tmp_path / "photos"
    photos.mkdir()
    partition = open_partition(tmp_path)
    partition.commit(partition.prepare_decoded([object_with_id("e", 0, image=image)], 1))
    settings = load_settings(None, {}, {"images.roots": [{"kind": "directory", "path": str(photos)}]})
    archive, _ = snapshot(partition, tmp_path / "a.zip", settings=settings, threshold=0.6, save_images=True)
    partition.close()
    with zipfile.ZipFile(archive) as zipped:
        assert not [name for name in zipped.namelist() if name.startswith("images/")]


def test_the_store_of_results_is_asked_for_nothing_outside_of_its_folder(tmp_path):
    store = DirectoryStore(tmp_path / "results")
    store.check()
    (tmp_path / "escaped").mkdir()
    (tmp_path / "escaped" / "t.zip").write_bytes(b"")
    assert list(store.names("../escaped")) == []
    store.delete(archive_name("../escaped", "t"))
    assert (tmp_path / "escaped" / "t.zip").exists()

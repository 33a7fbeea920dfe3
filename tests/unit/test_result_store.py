"""Archives in a directory and in a bucket of a real S3 server."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from pathlib import Path, PurePosixPath

import msgspec
import pytest

from stream_cluster.config import Settings
from stream_cluster.config.settings import ResultSettings, S3Settings, StateSettings
from stream_cluster.errors import Cancelled, ConfigError, ResultsUnavailable, TaskError
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.service.result_store import DirectoryStore, make_store
from stream_cluster.service.s3_store import S3Store
from stream_cluster.snapshot.paths import archive_name
from tests.support.s3 import BUCKET

NAME = archive_name("acme", "task")
MIB = 1 << 20


@pytest.fixture
def s3(server, tmp_path):
    store = bucket(server, tmp_path)
    store.check()
    yield store
    server.gateway.down = False
    for key in server.object_names():
        server.client.delete_object(Bucket=BUCKET, Key=key)


@pytest.fixture(params=["directory", "s3"])
def store(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3")
    made = DirectoryStore(tmp_path / "results")
    made.check()
    return made


def bucket(server, tmp_path, presign_s=None, **changes):
    return S3Store(server.settings(**changes), tmp_path / "spool", presign_s)


def put(store, name=NAME, data=b"archive", interrupt=None, progress=no_progress):
    file = store.begin(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    store.put(name, file, interrupt or Interrupt(), progress)
    return file


def large(mib):
    return os.urandom(MIB) * mib


def test_an_archive_is_stored_listed_read_and_removed(store):
    others = [
        archive_name("acme", "é ?#/%2F.."),
        archive_name("..", "task"),
        archive_name("acme2", "x" * 300),
    ]
    for name in (NAME, *others):
        put(store, name, str(name).encode())
    assert set(store.names()) == {NAME, *others}
    assert set(store.names("acme")) == {NAME, others[0]}
    assert set(store.names("..")) == {others[1]}
    for name in (NAME, *others):
        with store.open(name) as file:
            assert file.read() == str(name).encode()
    store.delete(NAME)
    store.delete(NAME)
    assert set(store.names()) == set(others)
    with pytest.raises(ResultsUnavailable, match=r"task\.zip"):
        store.open(NAME)
    assert list(store.names("nobody")) == []


def test_an_archive_can_be_read_in_pieces_without_fetching_all_of_it(store, server):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("images/large", os.urandom(6 * MIB))
        archive.writestr("clusters.jsonl", b"{}\n")
    put(store, data=made.getvalue())
    seen = len(server.gateway.seen)
    with store.open(NAME) as file, zipfile.ZipFile(file) as archive:
        assert archive.read("clusters.jsonl") == b"{}\n"
    assert len(server.gateway.seen) - seen < 8


def test_a_large_archive_goes_up_in_parts_and_says_how_far_it_is(s3, server):
    data = large(40)
    shares = []
    seen = len(server.gateway.seen)
    file = put(s3, data=data, progress=lambda stage, share: shares.append((stage, share)))
    parts = [path for method, path in server.gateway.seen[seen:] if method == "PUT" and "partNumber" in path]
    assert len(parts) == 5
    body = server.client.get_object(Bucket=BUCKET, Key=f"faces/archives/{NAME}")["Body"].read()
    assert hashlib.sha256(body).digest() == hashlib.sha256(data).digest()
    assert shares == sorted(shares)
    assert shares[-1] == ("upload", 1.0)
    assert not file.exists()


UPLOADER = """
import json, resource, sys
from pathlib import Path, PurePosixPath
from stream_cluster.config.settings import S3Settings
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.service.s3_store import S3Store

store = S3Store(S3Settings(**json.loads(sys.argv[1])), Path(sys.argv[2]), None)
store.check()
def peak_kib(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak_kib()
store.put(PurePosixPath("a/t.zip"), Path(sys.argv[3]), Interrupt(), no_progress)
print((peak_kib() - before) * 1024)
"""


def test_the_memory_of_an_upload_does_not_grow_with_the_archive(s3, server, tmp_path):
    file = tmp_path / "archive"
    file.write_bytes(large(160))
    command = [
        sys.executable,
        "-c",
        UPLOADER,
        json.dumps(server.fields()),
        str(tmp_path / "other"),
        str(file),
    ]
    grown = int(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert grown < 64 * MIB
    head = server.client.head_object(Bucket=BUCKET, Key="faces/archives/a/t.zip")
    assert head["ContentLength"] == 160 * MIB


def test_the_address_is_stable_and_a_presigned_one_gives_access_by_plain_http(s3, server, tmp_path):
    put(s3, data=b"contents")
    assert s3.url(NAME) == s3.access_url(NAME) == f"s3://{BUCKET}/faces/archives/acme/task.zip"
    signed = bucket(server, tmp_path, presign_s=60)
    assert signed.url(NAME) == s3.url(NAME)
    url = signed.access_url(NAME)
    assert "X-Amz-Expires=60" in url
    with urllib.request.urlopen(url) as response:
        assert response.read() == b"contents"


def test_an_archive_in_a_directory_has_a_file_address(tmp_path):
    store = DirectoryStore(tmp_path)
    file = put(store)
    assert store.url(NAME) == store.access_url(NAME) == file.as_uri()


def test_an_interrupted_upload_leaves_neither_object_nor_parts(s3, server):
    interrupt = Interrupt()

    def progress(stage, share):
        if share > 0.6:
            interrupt.cancel()

    with pytest.raises(Cancelled):
        put(s3, data=large(40), interrupt=interrupt, progress=progress)
    assert server.object_names() == []
    assert server.unfinished_uploads() == []
    assert list((s3._spool).iterdir()) == []
    with pytest.raises(TaskError) as caught:
        put(s3, interrupt=Interrupt(deadline_s=-1.0))
    assert caught.value.code == "deadline_exceeded"
    assert server.object_names() == []


@pytest.mark.parametrize("mib", [1, 20])
def test_a_store_that_is_down_is_tried_again_and_then_given_up(s3, server, mib):
    server.gateway.down = True
    seen = len(server.gateway.seen)
    began = time.monotonic()
    with pytest.raises(
        ResultsUnavailable, match=rf"archive s3://{BUCKET}/faces/archives/acme/task.zip: .*503"
    ):
        put(s3, data=large(mib))
    assert 0.5 < time.monotonic() - began < 10
    assert len(server.gateway.seen) - seen > 1
    server.gateway.down = False
    assert server.object_names() == []
    assert list((s3._spool).iterdir()) == []


def test_a_store_that_comes_back_in_time_gets_the_archive(server, tmp_path):
    store = bucket(server, tmp_path, retry_s=20.0)
    store.check()
    server.gateway.down = True
    timer = threading.Timer(0.5, lambda: setattr(server.gateway, "down", False))
    timer.start()
    put(store, data=large(20))
    timer.join()
    assert server.object_names() == [f"faces/archives/{NAME}"]
    store.delete(NAME)


def test_a_wrong_bucket_is_found_at_the_start(server, tmp_path):
    with pytest.raises(ConfigError, match=r"results.s3: bucket nowhere at http.* cannot be written: .*404"):
        bucket(server, tmp_path, bucket="nowhere").check()


def test_wrong_credentials_are_found_at_the_start(server, tmp_path):
    auth = f"{server.client.meta.endpoint_url}/moto-api/reset-auth"

    def require_after(requests):
        data, headers = str(requests).encode(), {"Content-Type": "text/plain"}
        request = urllib.request.Request(auth, data=data, headers=headers, method="POST")
        urllib.request.urlopen(request).close()

    require_after(0)
    try:
        with pytest.raises(ConfigError, match=r"cannot be written: .*(403|InvalidAccessKeyId|AccessDenied)"):
            bucket(server, tmp_path, access_key_id="stranger").check()
    finally:
        # An infinite number of requests needs no key again.
        require_after("inf")


def test_an_address_without_a_server_is_found_at_the_start(server, tmp_path):
    began = time.monotonic()
    with pytest.raises(ConfigError, match=r"at http://127.0.0.1:1 cannot be written"):
        bucket(server, tmp_path, endpoint="http://127.0.0.1:1", retry_s=600.0).check()
    assert time.monotonic() - began < 20


def test_the_start_leaves_nothing_in_the_bucket_and_clears_what_was_on_its_way(server, tmp_path):
    store = bucket(server, tmp_path)
    store.check()
    left = store.begin(NAME)
    left.write_bytes(b"half an archive")
    store.check()
    assert not left.exists()
    assert server.object_names() == []


def test_a_directory_that_cannot_be_written_is_found_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"results.directory .*file/results: cannot be written"):
        DirectoryStore(tmp_path / "file" / "results").check()


def test_what_a_killed_writer_left_goes_when_its_task_starts_again(tmp_path):
    store = DirectoryStore(tmp_path)
    (tmp_path / "acme").mkdir()
    (tmp_path / "acme" / ".task.zip.77.tmp").write_bytes(b"half")
    other = tmp_path / "acme" / ".other.zip.77.tmp"
    other.write_bytes(b"of another task")
    assert list(store.names()) == []
    store.begin(NAME)
    assert list((tmp_path / "acme").iterdir()) == [other]


def test_the_settings_choose_the_store(tmp_path):
    assert isinstance(make_store(Settings()), DirectoryStore)
    s3 = S3Settings(bucket="b", endpoint="http://localhost:9", access_key_id="k", secret_access_key="s")
    settings = msgspec.structs.replace(
        Settings(), results=ResultSettings(s3=s3), state=StateSettings(directory=str(tmp_path))
    )
    store = make_store(settings)
    assert store.url(PurePosixPath("a/t.zip")) == "s3://b/a/t.zip"
    assert Path(store.begin(NAME)).parent == tmp_path / "spool"

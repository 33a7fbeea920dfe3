from __future__ import annotations

import json
from pathlib import Path

import pytest

from stream_cluster.matching import cache_file
from stream_cluster.matching.cache_file import CacheRejected, save, sidecar_path, verify

CONTENT = bytes(range(97))
FIELDS = {"dim": 3, "kind": "test"}


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "cache", lambda name: write(name, CONTENT), len(CONTENT), FIELDS)
    return tmp_path / "cache"


def write(name, content):
    Path(name).write_bytes(content)


def reason_of(path):
    with pytest.raises(CacheRejected) as caught:
        verify(path)
    return caught.value.reason


def test_what_was_saved_is_whole_and_nothing_else_is_left_behind(path):
    assert verify(path) == FIELDS
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["cache", "cache.json"]


@pytest.mark.parametrize("which", ["file", "sidecar"])
def test_damage_to_any_byte_is_noticed(path, which):
    target = path if which == "file" else sidecar_path(path)
    whole = target.read_bytes()
    for position in range(len(whole)):
        for flip in (0x01, 0x20, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            target.write_bytes(damaged)
            assert reason_of(path) == "damaged", position
    target.write_bytes(whole)
    assert verify(path) == FIELDS


@pytest.mark.parametrize("which", ["file", "sidecar"])
def test_a_file_cut_or_lengthened_anywhere_is_noticed(path, which):
    target = path if which == "file" else sidecar_path(path)
    whole = target.read_bytes()
    for length in range(len(whole)):
        target.write_bytes(whole[:length])
        assert reason_of(path) == "damaged", length
    target.write_bytes(whole + b"\n")
    assert reason_of(path) == "damaged"


def test_a_missing_file_or_sidecar_is_missing(path):
    sidecar = sidecar_path(path).read_bytes()
    sidecar_path(path).unlink()
    assert reason_of(path) == "missing"
    sidecar_path(path).write_bytes(sidecar)
    path.unlink()
    assert reason_of(path) == "missing"


def test_a_crash_between_the_two_renames_reads_as_damaged(path, tmp_path):
    old_sidecar = sidecar_path(path).read_bytes()
    save(path, lambda name: write(name, b"newer"), 5, FIELDS)
    sidecar_path(path).write_bytes(old_sidecar)
    assert reason_of(path) == "damaged"


def test_a_writer_that_wrote_too_little_without_an_error_does_not_replace_the_file(path):
    with pytest.raises(OSError, match="found 4 bytes written, expected 5"):
        save(path, lambda name: write(name, b"full"), 5, FIELDS)
    assert path.read_bytes() == CONTENT
    assert verify(path) == FIELDS
    assert not path.with_name("cache.tmp").exists()


def test_another_format_version_is_refused_as_such(path):
    about = json.loads(sidecar_path(path).read_text().split("\n")[0])
    line = json.dumps({**about, "format": 2})
    sidecar_path(path).write_text(f"{line}\n{cache_file._digest_of(line)}\n")
    assert reason_of(path) == "format"

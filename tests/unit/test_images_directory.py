"""Reading below a directory: regular files only, and never outside."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import pytest

from stream_cluster.snapshot.images.directory import read_below
from stream_cluster.snapshot.images.faults import NoImage


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(b"secret")
    folder = tmp_path / "root"
    (folder / "cam7").mkdir(parents=True)
    (folder / "cam7" / "a.jpg").write_bytes(b"image")
    return folder


def fault_of(root, *parts, max_bytes=100):
    with pytest.raises(NoImage) as caught:
        read_below(str(root), parts, max_bytes)
    return caught.value.fault.value


def test_a_file_is_read(root):
    assert read_below(str(root), ["cam7", "a.jpg"], 5) == b"image"


def test_the_root_itself_may_be_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    assert read_below(str(tmp_path / "link"), ["cam7", "a.jpg"], 5) == b"image"


@pytest.mark.parametrize(
    "parts", [["none.jpg"], ["none", "a.jpg"], ["cam7", "none.jpg"], ["a" * 300], ["cam7", "a" * 256]]
)
def test_what_is_not_there_is_missing(root, parts):
    assert fault_of(root, *parts) == "missing"


def test_a_file_larger_than_allowed_is_not_read(root):
    assert fault_of(root, "cam7", "a.jpg", max_bytes=4) == "too_large"


def test_a_file_that_says_nothing_of_its_size_is_read_no_further_than_allowed():
    # Files of /proc have a size of 0 and content.
    assert fault_of("/proc", "self", "stat", max_bytes=10) == "refused"  # /proc/self is a link
    assert fault_of("/proc", str(os.getpid()), "stat", max_bytes=10) == "too_large"
    assert read_below("/proc", [str(os.getpid()), "comm"], 100).endswith(b"\n")


def test_links_inside_are_not_followed_wherever_they_lead(root, tmp_path):
    (root / "file").symlink_to(tmp_path / "outside" / "secret")
    (root / "folder").symlink_to(tmp_path / "outside")
    (root / "inner").symlink_to("cam7")
    (root / "loop").symlink_to("loop")
    assert fault_of(root, "file") == "refused"
    assert fault_of(root, "folder", "secret") == "refused"
    assert fault_of(root, "inner", "a.jpg") == "refused"
    assert fault_of(root, "loop") == "refused"


def test_anything_but_a_regular_file_is_refused_without_waiting(root):
    os.mkfifo(root / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    (root / "here").mkdir()
    listener.bind(os.path.relpath(root / "socket"))
    assert fault_of(root, "fifo") == "refused"
    assert fault_of(root, "socket") == "refused"
    assert fault_of(root, "cam7") == "refused"
    assert fault_of(root, "fifo", "a") == "refused"
    assert fault_of("/dev", "null") == "refused"
    listener.close()


@pytest.mark.parametrize(
    "parts", [["..", "outside", "secret"], ["."], [""], ["cam7/a.jpg"], ["../outside/secret"], ["a\0"]]
)
def test_a_component_that_is_no_plain_name_is_refused(root, parts):
    assert fault_of(root, *parts) == "refused"


def test_a_root_that_is_gone_is_unreachable(root):
    assert fault_of(root / "gone", "a.jpg") == "unreachable"
    assert fault_of(root / "cam7" / "a.jpg", "a.jpg") == "unreachable"


def test_no_descriptor_stays_open(root):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for parts in (["cam7", "a.jpg"], ["none", "x"], ["cam7", "none"], ["cam7"]):
        with contextlib.suppress(NoImage):
            read_below(str(root), parts, 3)
    assert len(list(Path("/proc/self/fd").iterdir())) == before

"""Fault points: the closed list, the variable that arms them, and that they cost nothing without it."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import pytest

from stream_cluster import faults
from stream_cluster.faults import POINTS, FaultPoint, parse_faults

ROOT = Path(__file__).resolve().parents[2]


def test_every_point_of_the_list_stands_once_in_the_code_and_no_other():
    sources = (ROOT / "stream_cluster").rglob("*.py")
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    placed = re.findall(r'fault_point\("(\w+)"\)', text)
    assert sorted(placed) == sorted(POINTS) == sorted(get_args(FaultPoint))


def test_every_point_is_exercised_by_a_test_of_faults():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/faults").glob("test_*.py"))
    assert {point for point in POINTS if not re.search(rf'"{point}(=|")', tests)} == set()


def test_without_the_variable_nothing_is_armed():
    assert parse_faults("") is None
    faults.fault_point("decode")


def test_a_disk_error_strikes_once_at_its_hit():
    armed = parse_faults("archive_sync=ENOSPC@2, archive_rename=EIO")
    armed.hit("archive_sync")
    with pytest.raises(OSError, match="No space left"):
        armed.hit("archive_sync")
    armed.hit("archive_sync")
    armed.hit("snapshot")
    with pytest.raises(OSError, match="Input/output"):
        armed.hit("archive_rename")


def test_a_delay_strikes_at_every_hit():
    armed = parse_faults("match=delay:0.01")
    began = time.monotonic()
    armed.hit("match")
    armed.hit("match")
    assert time.monotonic() - began >= 0.02


def test_kill_ends_the_process_at_once():
    code = "from stream_cluster.faults import fault_point; fault_point('decode'); print('alive')"
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={"STREAM_CLUSTER_FAULT": "decode=kill"},
        capture_output=True,
        check=False,
        cwd=ROOT,
    )
    assert (result.returncode, result.stdout) == (-9, b"")


@pytest.mark.parametrize("text", ["decode", "nowhere=kill", "decode=explode", "decode=kill@x"])
def test_a_value_that_means_nothing_is_refused(text):
    with pytest.raises(ValueError, match=r"STREAM_CLUSTER_FAULT|invalid literal"):
        parse_faults(text)

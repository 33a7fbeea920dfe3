from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from stream_cluster.matching.build import IndexBuild

# Ends while the thread makes what nobody waits for.
LEFT_ALONE = """
import time
from stream_cluster.matching.build import IndexBuild

def make(should_stop):
    print("begun", flush=True)
    while not should_stop():
        time.sleep(0.01)
    print("stopped", flush=True)
    return 1

build = IndexBuild(make)
"""

# A graph that takes minutes, made by threads of hnswlib.
GRAPH = """
import numpy as np
from stream_cluster.config.settings import MatchingSettings
from stream_cluster.matching import SpaceMatcher

rng = np.random.default_rng(1)
matcher = SpaceMatcher(256, MatchingSettings(engine="hnsw", threads=2))
matcher.add(rng.integers(-127, 128, (30_000, 256), np.int8))
matcher.prepare()
assert not matcher.wait_until_built(0.2)
print("being built", flush=True)
"""


def run(script):
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=False, text=True, timeout=60
    )


def test_it_gives_what_was_made():
    build = IndexBuild(lambda should_stop: 5)
    assert build.wait(10)
    assert build.result() == 5


def test_what_the_thread_raises_is_raised_by_the_result():
    def make(should_stop):
        raise MemoryError("graph")

    build = IndexBuild(make)
    assert build.wait(10)
    with pytest.raises(MemoryError, match="graph"):
        build.result()


def test_stopping_it_waits_for_the_thread():
    begun = threading.Event()

    def make(should_stop):
        begun.set()
        while not should_stop():
            pass
        return 1

    build = IndexBuild(make)
    assert begun.wait(10)
    assert not build.done
    build.stop()
    assert build.done


def test_the_end_of_the_process_stops_it():
    done = run(LEFT_ALONE)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["begun", "stopped"]


def test_the_end_of_the_process_waits_for_native_code():
    done = run(GRAPH)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "being built\n"

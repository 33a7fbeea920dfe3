"""Files that this program writes are for their owner, or for its group, whatever the umask says."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import numpy as np
import pytest

from stream_cluster import files
from stream_cluster.config import Settings
from stream_cluster.matching import SpaceMatcher, cell_cache, costs
from stream_cluster.matching.cell_trainer import CellParameters
from stream_cluster.matching.cells import CellMatcher
from stream_cluster.state.lock import DirectoryLock
from tests.support.cli import invoke
from tests.support.descriptors import people
from tests.support.partitions import message, open_partition, records, snapshot, vectors

PACKAGE = Path(files.__file__).parent
ALLOWED = {files.OWNER, files.GROUP}


def run(*arguments):
    result = invoke(*arguments)
    assert result.exit_code == 0, (result.stdout, result.stderr)


def objects(folder):
    """people.npz and truth.csv of the caller, who chose their permissions."""
    random = np.random.default_rng(7)
    person = np.repeat(np.arange(20), 5)
    descriptors = random.standard_normal((20, 32))[person] + 0.75 * random.standard_normal((100, 32))
    ids = [f"o{number:03}" for number in range(100)]
    path = folder / "people.npz"
    np.savez(path, ids=np.array(ids), descriptors=descriptors.astype(np.float32), labels=person)
    truth = folder / "truth.csv"
    rows = [f"{one},p{number}" for one, number in zip(ids, person, strict=True)]
    truth.write_text("\n".join(["id,label", *rows]))
    for given in (path, truth):
        given.chmod(files.OWNER)
    return path, truth


def filled(folder):
    """A state of some objects."""
    partition = open_partition(folder)
    partition.apply(records([message(number, vector) for number, vector in enumerate(vectors(40))]))
    return partition


def state(folder):
    with DirectoryLock(folder / "state"):
        partition = filled(folder / "state")
        # The write-ahead log and its index are there as long as it is open.
        assert_private(folder)
        partition.close()


def index_cache(folder):
    settings = Settings().matching
    cache = folder / "caches" / "partition-0-space-1.hnsw"
    matcher = SpaceMatcher(16, type(settings)(engine="hnsw"), cache)
    matcher.add(people(300, 16))
    list(matcher.search(people(1, 16), 0.5))
    assert matcher.wait_until_built(60)
    assert matcher.save_cache()
    matcher.close()


def cells_cache(folder):
    matcher = CellMatcher(16, CellParameters(first_training=200))
    matcher.add(people(300, 16))
    assert matcher.wait_until_trained(60)
    assert cell_cache.save(folder / "caches" / "partition-0-space-1.cells", matcher)
    matcher.stop()


def costs_of_engines(folder):
    costs.load_or_measure(folder / "state")


def archive_of_a_task(folder):
    folder.joinpath("state").mkdir(mode=0o700)
    partition = filled(folder / "state")
    snapshot(partition, folder / "results" / "acme" / "task.zip", threshold=0.5)
    partition.close()


def backup_and_restore(folder):
    folder.joinpath("state").mkdir(mode=0o700)
    filled(folder / "state").close()
    place = str(folder / "backups")
    run("backup", folder / "state", "--to", place)
    run("restore", folder / "new", "--from", place, "--topic", "events")


def generated_events(folder):
    run("generate", "--events", "5", "--dim", "16", "-o", folder / "events.jsonl")


def packed_events_with_truth_and_images(folder):
    output, truth, images = folder / "events.jsonl.gz", folder / "truth.csv", folder / "images"
    run("generate", "--events", "5", "--dim", "16", "-o", output, "--truth", truth, "--images", images)
    assert len(list(images.iterdir())) == 5


def archive_of_the_command(folder):
    path, _ = objects(folder)
    run("cluster", path, "--threshold", "0.5", "-o", folder / "out" / "archive.zip")


def picture_of_a_calibration(folder):
    path, _ = objects(folder)
    run("calibrate", path, "--target-fmr", "1e-2", "--plot", folder / "rates.png")


def picture_of_a_sweep(folder):
    path, truth = objects(folder)
    run("evaluate", path, truth, "--sweep", "0.4:0.6:0.1", "--plot", folder / "sweep.svg")


def picture_of_thresholds(folder):
    path, _ = objects(folder)
    run("thresholds", path, "--plot", folder / "curve.svg")


def schemas(folder):
    run("schema", "-o", folder / "schema.json")


WRITERS = {
    "state, its logs and its lock": (state, "partition-0.sqlite"),
    "index cache": (index_cache, "partition-0-space-1.hnsw.json"),
    "cells cache": (cells_cache, "partition-0-space-1.cells"),
    "costs of engines": (costs_of_engines, "matching-costs.json"),
    "archive of a task": (archive_of_a_task, "task.zip"),
    "backup and restore": (backup_and_restore, "partition-0.sqlite"),
    "generated events": (generated_events, "events.jsonl"),
    "packed events, truth and images": (packed_events_with_truth_and_images, "truth.csv"),
    "archive of the command": (archive_of_the_command, "archive.zip"),
    "picture of a calibration": (picture_of_a_calibration, "rates.png"),
    "picture of a sweep": (picture_of_a_sweep, "sweep.svg"),
    "picture of thresholds": (picture_of_thresholds, "curve.svg"),
    "schemas": (schemas, "schema.json"),
}


@pytest.fixture
def open_umask():
    """As of a container whose image says nothing."""
    before = os.umask(0)
    yield
    os.umask(before)


def assert_private(folder):
    found = {path: stat.S_IMODE(path.lstat().st_mode) for path in folder.rglob("*")}
    too_open = {
        str(path.relative_to(folder)): oct(mode)
        for path, mode in found.items()
        if (mode & 0o007 if path.is_dir() else mode not in ALLOWED)
    }
    assert too_open == {}
    return [path.name for path in found]


@pytest.mark.parametrize("writer", WRITERS)
def test_nobody_else_may_read_what_is_written(tmp_path, monkeypatch, open_umask, writer):
    """Neither when it is there, nor under the name that it has while it is written."""
    renamed = []

    def watched(name):
        real = getattr(os, name)

        def rename(source, *more, **options):
            renamed.append((str(source), stat.S_IMODE(Path(source).stat().st_mode)))
            return real(source, *more, **options)

        return rename

    for name in ("replace", "rename"):
        monkeypatch.setattr(os, name, watched(name))
    write, expected = WRITERS[writer]
    write(tmp_path)
    assert expected in assert_private(tmp_path)
    assert {mode for _, mode in renamed} <= ALLOWED, renamed


def test_a_file_that_is_there_keeps_the_permissions_that_somebody_gave_it(tmp_path, open_umask):
    path = tmp_path / "schema.json"
    path.touch(mode=0o666)
    schemas(tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666


def test_nothing_writes_files_in_another_way():
    """A new writer that forgets this has to be found here, as no list of writers is ever complete."""
    writing = re.compile(r"""\.open\(\s*"[wax]|(?<!\.)\bopen\([^)\n]*"[wax]|\.write_(?:text|bytes)\(""")
    # The sandbox writes for developers; a cache's file is made private first; an entry of a zip is no file;
    # a temporary file of `mkstemp` is private.
    harmless = {
        "cache_file.py": "temporary.write_text(",
        "archive.py": "archive.open(info",
        "files.py": "open(path",
    }
    harmless["backup_store.py"] = "os.fdopen(fd"
    found = [
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        if "sandbox" not in path.parts
        for line in path.read_text(encoding="utf-8").splitlines()
        if writing.search(line) and harmless.get(path.name, "\n") not in line
    ]
    assert found == []

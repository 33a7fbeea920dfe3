"""Made-up faces have the measured proportions of real ones."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.face_data import _REAL, FaceData
from benchmarks.face_statistics import PATH, main, statistics
from benchmarks.faces import FaceSet, read_faces
from benchmarks.seed_data import NOBODY
from tests.support.faces import require_faces


def made(objects, dim):
    data = FaceData(objects, dim)
    vectors = np.concatenate(list(data.blocks()))
    assert vectors.shape == (objects, dim)
    assert vectors.dtype == np.float32
    readable = data.person_of != NOBODY
    ids = [str(row) for row in np.flatnonzero(readable)]
    return FaceSet(ids, vectors[readable], data.person_of[readable].astype(np.int64)), vectors[~readable]


@pytest.fixture(scope="module")
def small():
    return made(3000, 128)


def test_cosines_of_strangers_and_of_people_are_those_of_real_faces(small):
    found = statistics(small[0])
    assert found["strangers"] == pytest.approx(_REAL["strangers"], abs=0.03)
    # A thousandth of the real ones has the wrong name, and some are the same photograph: the middle counts.
    middle = slice(1, 5)
    assert found["same"][middle] == pytest.approx(_REAL["same"][middle], abs=0.08)


def test_spectra_residuals_and_numbers_of_photographs_are_those_of_real_faces(small):
    found = statistics(small[0])
    assert found["power_law"] == pytest.approx(_REAL["power_law"], abs=0.1)
    assert sum(found["between"]) == pytest.approx(sum(_REAL["between"]), rel=0.05)
    assert sum(found["within"]) == pytest.approx(sum(_REAL["within"]), rel=0.1)
    # The longest of the real ones are photographs with the wrong name.
    assert found["residuals"][1:-2] == pytest.approx(_REAL["residuals"][1:-2], abs=0.08)


def test_with_more_dimensions_strangers_are_less_alike_and_people_as_much(small):
    wide = statistics(made(2000, 512)[0])
    narrow = statistics(small[0])
    assert wide["strangers"][4] < 0.6 * narrow["strangers"][4]
    assert wide["same"][2] == pytest.approx(narrow["same"][2], abs=0.03)


def test_pictures_of_nobody_lie_near_one_direction(small):
    _, nobody = small
    assert len(nobody) == 2
    assert (nobody @ nobody.T).min() > 0.8


def test_a_set_is_the_same_every_time():
    one, other = (np.concatenate(list(FaceData(500, 128).blocks())) for _ in range(2))
    assert np.array_equal(one, other)
    assert not np.allclose(one, np.concatenate(list(FaceData(500, 128, seed=2).blocks())))


def test_the_committed_figures_are_those_of_the_real_faces(tmp_path):
    found = statistics(read_faces(require_faces()))
    assert found == {name: _REAL[name] for name in found}
    assert main(["--data", str(tmp_path / "none")]) == 2
    assert PATH.name == "face_statistics.json"

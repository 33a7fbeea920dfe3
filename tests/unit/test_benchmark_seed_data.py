from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.published import PUBLISHED, THRESHOLDS, nonzero, target_nonzero
from benchmarks.seed_data import (
    BLOCK,
    DIM,
    SeedData,
    check,
    codes_of,
    count_links,
    estimate_links,
    main,
    seed_data,
)
from stream_cluster.offline.vectors import open_vectors


def test_published_two_million_are_one_million_twice():
    for threshold in THRESHOLDS:
        assert PUBLISHED[2_000_000, threshold].nonzero == 4 * PUBLISHED[1_000_000, threshold].nonzero


def test_growth_between_the_published_sizes_is_that_of_the_third_one(monkeypatch):
    for threshold in THRESHOLDS:
        published = PUBLISHED[100_000, threshold]
        monkeypatch.delitem(PUBLISHED, (100_000, threshold))
        assert target_nonzero(100_000, threshold) == pytest.approx(published.nonzero, rel=0.002)


def test_ten_thousand_objects_have_the_published_numbers_of_links():
    results = check([10_000], sample=1, count_up_to=10_000)
    assert len(results) == 3
    for result in results.values():
        assert result["method"] == "counted"
        assert result["target_nonzero"] == PUBLISHED[10_000, result["threshold"]].nonzero
        assert abs(result["deviation"]) < 0.05


def test_an_estimate_from_all_rows_is_the_count():
    data = SeedData(3000)
    store = codes_of(data)
    assert estimate_links(data, store, 3000) == count_links(store, THRESHOLDS)


def test_an_estimate_of_a_set_of_two_copies_is_its_count():
    data = SeedData(1500, copies=2)
    found = estimate_links(data, codes_of(SeedData(1500)), 1500)
    counted = count_links(codes_of(data), THRESHOLDS)
    assert found == counted
    once = count_links(codes_of(SeedData(1500)), THRESHOLDS)
    for threshold in THRESHOLDS:
        assert nonzero(3000, counted[threshold]) == 4 * nonzero(1500, once[threshold])


def test_above_a_million_a_set_is_one_of_half_the_size_twice():
    assert (seed_data(1_000_000).copies, seed_data(2_000_000)) == (1, SeedData(1_000_000, copies=2))
    with pytest.raises(ValueError, match="1000001, expected an even number"):
        seed_data(1_000_001)


def test_vectors_have_length_one_and_depend_on_the_seed_alone():
    one, same, other = SeedData(300).vectors(), SeedData(300).vectors(), SeedData(300, seed=2).vectors()
    assert one.shape == (300, DIM)
    assert one.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_pictures_of_nobody_look_alike():
    data = SeedData(5000)
    nobody = data.vectors()[data.person_of == -1]
    assert len(nobody) == round(6.9e-4 * 5000)
    assert (nobody @ nobody.T).min() > 0.8


def test_a_file_is_read_by_the_product_and_by_numpy(tmp_path):
    data = SeedData(BLOCK + 10, copies=2)
    data.write(tmp_path / "data.npz")
    with open_vectors(tmp_path / "data.npz") as file:
        blocks = list(file.blocks(5000))
    ids = [object_id for block in blocks for object_id in block.ids]
    assert len(set(ids)) == len(ids) == 2 * (BLOCK + 10)
    assert ids == sorted(ids)
    np.testing.assert_array_equal(np.concatenate([block.vectors for block in blocks]), data.vectors())
    with np.load(tmp_path / "data.npz") as arrays:
        np.testing.assert_array_equal(
            arrays["descriptors"][: BLOCK + 10], arrays["descriptors"][BLOCK + 10 :]
        )


def test_the_command_checks_and_writes_data(tmp_path, capsys):
    written, report = tmp_path / "data.npz", tmp_path / "report.json"
    arguments = ["--objects", "50", "--output", str(written), "--check", "--sizes", "10_000"]
    assert main([*arguments, "--count-up-to", "0", "--sample", "500", "--write", str(report)]) == 0
    with np.load(written) as arrays:
        assert arrays["ids"].shape == (50,)
    results = json.loads(report.read_text())["results"]
    assert [result["method"] for result in results.values()] == ["from 500 rows"] * 3
    assert "71,587" in capsys.readouterr().out


def test_the_command_needs_something_to_do(capsys):
    with pytest.raises(SystemExit):
        main(["--objects", "50"])
    assert "expected --check, or --objects and --output" in capsys.readouterr().err

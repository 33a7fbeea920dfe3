from __future__ import annotations

import numpy as np

from stream_cluster.matching import cell_training, kernel
from stream_cluster.matching.cell_training import Centroids, best_centroids
from tests.support.descriptors import people

DIM = 32


def test_grouped_centroids_find_the_best_or_one_about_as_good(monkeypatch):
    monkeypatch.setattr(cell_training, "_GROUPED_FROM", 100)
    monkeypatch.setattr(cell_training, "_AT_ONCE", 700)
    centroids = people(400, DIM, per_person=1, seed=1)
    codes = people(2000, DIM, seed=2)
    best, similarity = best_centroids(centroids, codes, 2)
    flat = Centroids(centroids, np.arange(400, dtype=np.uint32))
    exact_best, exact_similarity = kernel.best(flat.packed, codes, threads=2, path="")
    agree = best == exact_best
    assert agree.mean() > 0.6
    assert np.array_equal(similarity[agree], exact_similarity[agree])
    assert (exact_similarity - similarity).mean() < 0.03
    assert (similarity <= exact_similarity).all()
    assert np.array_equal(flat.cells_of(codes), best), "the same for rows that move"
    assert np.array_equal(flat.cells_of(codes[:50]), exact_best[:50]), "exactly for the rows of a batch"


def test_groups_do_not_depend_on_threads(monkeypatch):
    monkeypatch.setattr(cell_training, "_GROUPED_FROM", 100)
    centroids = people(300, DIM, per_person=1, seed=3)
    codes = people(1500, DIM, seed=4)
    one, two = (best_centroids(centroids, codes, threads) for threads in (1, 3))
    assert np.array_equal(one[0], two[0])

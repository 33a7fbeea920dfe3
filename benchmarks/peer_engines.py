"""Ways to find all pairs of vectors above a cosine: this product's, and those of well-known libraries.

Each takes unit vectors (float32, shape (n, dim)), a threshold and a number of threads, and is used as its own
documentation says. Libraries without a radius search ask for the k nearest and grow k for the queries whose
weakest neighbour is still above the threshold. They are imported by the engine that needs them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stream_cluster.config.settings import MatchingSettings
from stream_cluster.matching import all_pairs, limit_threads, quantise
from stream_cluster.model import Codes

Vectors = npt.NDArray[np.float32]
Pairs = tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]

_BLOCK = 8192
_FIRST_K, _K_GROWTH, _MOST_K = 16, 4, 4096
_HNSW = MatchingSettings()  # every graph with the parameters of this product's own


class Found(NamedTuple):
    """What an engine found."""

    a: npt.NDArray[np.uint32]
    """Lower row of each pair. Every pair once."""
    b: npt.NDArray[np.uint32]
    index_s: float
    """To take the vectors in: conversion, construction of the index."""
    search_s: float


Engine = Callable[[Vectors, float, int], Found]


def stream_cluster(vectors: Vectors, threshold: float, threads: int) -> Found:
    """This product: int8 codes, all pairs."""
    limit_threads(threads)
    began = time.perf_counter()
    codes = np.concatenate([quantise(vectors[i : i + _BLOCK]) for i in range(0, len(vectors), _BLOCK)])
    indexed = time.perf_counter()
    return _found(began, indexed, ((links.a, links.b) for links in all_pairs(codes, threshold)))


def numpy_tiles(vectors: Vectors, threshold: float, threads: int) -> Found:
    """float32 matrix products of the upper triangle, tile by tile."""
    limit_threads(threads)

    def pairs() -> Iterator[Pairs]:
        for top in range(0, len(vectors), 1024):
            for left in range(top, len(vectors), 4096):
                product = vectors[top : top + 1024] @ vectors[left : left + 4096].T
                # A flat search, as one over two dimensions takes several times as long.
                i, j = np.divmod(np.flatnonzero(product > np.float32(threshold)), product.shape[1])
                yield i + top, j + left

    return _found(began := time.perf_counter(), began, pairs())


def faiss_flat(vectors: Vectors, threshold: float, threads: int) -> Found:
    """Faiss `IndexFlatIP.range_search`."""
    import faiss

    faiss.omp_set_num_threads(threads)
    began = time.perf_counter()
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    indexed = time.perf_counter()

    def pairs() -> Iterator[Pairs]:
        for first in range(0, len(vectors), _BLOCK):
            limits, _, rows = index.range_search(vectors[first : first + _BLOCK], threshold)
            yield np.repeat(np.arange(first, first + len(limits) - 1), np.diff(limits).astype(np.int64)), rows

    return _found(began, indexed, pairs())


def sklearn_radius(vectors: Vectors, threshold: float, threads: int) -> Found:
    """scikit-learn `NearestNeighbors.radius_neighbors`, brute force over Euclidean distances."""
    from sklearn.neighbors import NearestNeighbors

    limit_threads(threads)
    began = time.perf_counter()
    # |x - y|² = 2 - 2 cos for unit vectors.
    radius = float(np.sqrt(2 - 2 * threshold))
    index = NearestNeighbors(radius=radius, algorithm="brute", metric="euclidean", n_jobs=threads).fit(
        vectors
    )
    indexed = time.perf_counter()

    def pairs() -> Iterator[Pairs]:
        for first in range(0, len(vectors), _BLOCK):
            near = index.radius_neighbors(vectors[first : first + _BLOCK], return_distance=False)
            counts = [len(rows) for rows in near]
            yield np.repeat(np.arange(first, first + len(counts)), counts), np.concatenate(near)

    return _found(began, indexed, pairs())


def hnswlib_growing_k(vectors: Vectors, threshold: float, threads: int) -> Found:
    """hnswlib over float32."""
    import hnswlib

    began = time.perf_counter()
    index = hnswlib.Index("ip", vectors.shape[1])
    index.init_index(len(vectors), M=_HNSW.hnsw_m, ef_construction=_HNSW.hnsw_ef_construction)
    index.add_items(vectors, np.arange(len(vectors)), num_threads=threads)
    indexed = time.perf_counter()

    def nearest(rows: npt.NDArray[np.intp], k: int) -> tuple[npt.NDArray[np.int64], Vectors]:
        index.set_ef(max(_HNSW.hnsw_ef_search, k))
        try:
            labels, distances = index.knn_query(vectors[rows], k=k, num_threads=threads)
        except RuntimeError:
            # A query that reaches fewer than k elements fails its whole batch; alone, it is left without.
            if len(rows) == 1:
                return np.zeros((1, k), np.int64), np.full((1, k), -2, np.float32)
            halves = [nearest(part, k) for part in np.array_split(rows, 2)]
            return np.concatenate([one for one, _ in halves]), np.concatenate([two for _, two in halves])
        return labels.astype(np.int64), np.float32(1) - distances

    return _found(began, indexed, _growing_k(nearest, len(vectors), threshold))


def usearch_float32(vectors: Vectors, threshold: float, threads: int) -> Found:
    """USearch over float32."""
    return _usearch(vectors, "f32", threshold, threads)


def usearch_int8(vectors: Vectors, threshold: float, threads: int) -> Found:
    """USearch over the int8 codes of this product, which use the whole range, unlike its own conversion."""
    return _usearch(vectors, "i8", threshold, threads)


def _usearch(vectors: Vectors, dtype: str, threshold: float, threads: int) -> Found:
    from usearch.index import Index

    began = time.perf_counter()
    items: Vectors | Codes = quantise(vectors) if dtype == "i8" else vectors
    index = Index(
        ndim=vectors.shape[1],
        metric="cos",
        dtype=dtype,
        connectivity=_HNSW.hnsw_m,
        expansion_add=_HNSW.hnsw_ef_construction,
        expansion_search=_HNSW.hnsw_ef_search,
    )
    index.add(np.arange(len(items), dtype=np.uint64), items, threads=threads)
    indexed = time.perf_counter()

    def nearest(rows: npt.NDArray[np.intp], k: int) -> tuple[npt.NDArray[np.int64], Vectors]:
        matches: Any = index.search(items[rows], k, threads=threads)
        # Rows with fewer than k matches are not filled in to the end.
        unfilled = np.arange(k) >= np.asarray(matches.counts).reshape(-1, 1)
        similarity = 1 - np.asarray(matches.distances, np.float32).reshape(len(rows), k)
        similarity[unfilled] = -2
        keys = np.where(unfilled, 0, np.asarray(matches.keys).reshape(len(rows), k)).astype(np.int64)
        return keys, similarity

    return _found(began, indexed, _growing_k(nearest, len(items), threshold))


ENGINES: dict[str, Engine] = {
    "stream-cluster": stream_cluster,
    "numpy": numpy_tiles,
    "faiss": faiss_flat,
    "scikit-learn": sklearn_radius,
    "hnswlib": hnswlib_growing_k,
    "usearch-f32": usearch_float32,
    "usearch-i8": usearch_int8,
}

EXHAUSTIVE = frozenset({"stream-cluster", "numpy", "faiss", "scikit-learn"})
"""Engines that compare all pairs; the others build a graph."""


def _growing_k(
    nearest: Callable[[npt.NDArray[np.intp], int], tuple[npt.NDArray[np.int64], Vectors]],
    count: int,
    threshold: float,
) -> Iterator[Pairs]:
    """Pairs above the threshold by queries for the k nearest; k grows where all k are above it."""
    rows = np.arange(count)
    k = min(_FIRST_K, count)
    while len(rows):
        again = []
        for part in np.array_split(rows, -(-len(rows) * k // (_BLOCK * _FIRST_K))):
            neighbours, similarity = nearest(part, k)
            near = similarity > threshold
            more = near.all(axis=1) & (k < min(_MOST_K, count))
            again.append(part[more])
            near[more] = False  # asked again, not reported twice
            i, j = np.nonzero(near)
            yield part[i], neighbours[i, j]
        rows = np.concatenate(again)
        k = min(k * _K_GROWTH, count)


def _found(began: float, indexed: float, parts: Iterator[Pairs]) -> Found:
    """Run the search. Pairs may come in both directions and rows with themselves; each pair is kept once."""
    keys = []
    for a, b in parts:
        apart = a != b
        low = np.minimum(a, b)[apart].astype(np.uint64)
        keys.append(low << np.uint64(32) | np.maximum(a, b)[apart].astype(np.uint64))
    unique = np.unique(np.concatenate(keys)) if keys else np.empty(0, np.uint64)
    done = time.perf_counter()
    return Found(
        (unique >> np.uint64(32)).astype(np.uint32), unique.astype(np.uint32), indexed - began, done - indexed
    )

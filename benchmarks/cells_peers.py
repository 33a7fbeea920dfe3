"""hnswlib and Faiss on the data of `benchmarks.cells`: the same objects, threshold, cells and probes.

Faiss: IVF of SQ8 residuals by inner product, trained on as many rows as our cells, with as many cells,
searched by radius. hnswlib: M 16, the nearest 256 of each event with ef 256; links above the threshold are
counted among them.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from benchmarks.cells_data import DIM, CodesFile, codes_file
from benchmarks.streams import THRESHOLD, fill
from stream_cluster.matching import CodeStore, scan
from stream_cluster.matching.cell_training import ROWS_PER_CENTROID, cell_count
from stream_cluster.matching.cells import CellMatcher

EVENTS = 2000
GRAPH_ROWS = 200_000
_PROBES = (1, 4, 8)
_NEAREST = 256


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The part `peers` of `benchmarks.cells`."""
    mapped, _ = codes_file(options.data, "faces", options.objects)
    count = options.objects - EVENTS
    queries = np.array(mapped[count:])
    return {
        "cells": _cells(mapped[:count], queries),
        "faiss_ivf_sq8": _faiss(mapped[:count], queries),
        "hnswlib": _hnswlib(mapped[: min(GRAPH_ROWS, count)], queries),
        "hnswlib_rows": min(GRAPH_ROWS, count),
        "not_measured": {
            "hnswlib at a million": "adding takes ten minutes on two cores",
            "ten million": "float32 vectors of hnswlib take 20 GB, more than this machine has to spare",
        },
    }


def _true_links(codes: Any, queries: Any) -> int:
    store = CodeStore(DIM)
    for first in range(0, len(codes), 65_536):
        store.append(np.array(codes[first : first + 65_536]))
    return sum(len(hits) for hits in scan(store, queries, THRESHOLD))


def _cells(codes: Any, queries: Any) -> dict[str, Any]:
    """Ours, with a number of probes instead of a margin, and with its own margin."""
    true = _true_links(codes, queries)
    matcher = CellMatcher(DIM)
    results: dict[str, Any] = {
        "rows": len(codes),
        "fill_s": round(fill(matcher, CodesFile(codes), len(codes)), 1),
    }
    results |= {"cells": matcher.cell_count, "index_bytes": matcher.nbytes}
    for probes in _PROBES:
        began = time.perf_counter()
        found = sum(len(hits) for hits in matcher.search_nearest(queries, THRESHOLD, probes))
        seconds = time.perf_counter() - began
        results[f"probes_{probes}"] = _searched(len(queries), seconds, found, true)
    began = time.perf_counter()
    found = sum(len(hits) for hits in matcher.search_within(queries, THRESHOLD, matcher.control.margin))
    seconds = time.perf_counter() - began
    return {**results, "margin": _searched(len(queries), seconds, found, true)}


def _searched(queries: int, seconds: float, found: int, true: int) -> dict[str, Any]:
    return {"queries_s": round(queries / seconds), "links_found_share": round(found / true, 4)}


def _unit(codes: Any) -> Any:
    vectors = np.asarray(codes, np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _faiss(codes: Any, queries: Any) -> dict[str, Any]:
    import faiss  # noqa: PLC0415 - only this part needs it

    true = _true_links(codes, queries)
    cells = cell_count(len(codes))
    index = faiss.index_factory(DIM, f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
    began = time.perf_counter()
    index.train(_unit(codes[: min(cells * ROWS_PER_CENTROID, len(codes))]))
    trained_s = time.perf_counter() - began
    began = time.perf_counter()
    for first in range(0, len(codes), 65_536):
        index.add(_unit(codes[first : first + 65_536]))
    added_s = time.perf_counter() - began
    results: dict[str, Any] = {
        "rows": len(codes),
        "cells": cells,
        "train_s": round(trained_s, 1),
        "adds_s": round(len(codes) / added_s),
        # A code and a number of each vector, and the centroids as float32.
        "index_bytes": len(codes) * (index.sa_code_size() + 8) + cells * DIM * 4,
    }
    vectors = _unit(queries)
    for probes in _PROBES:
        index.nprobe = probes
        began = time.perf_counter()
        limits, _, _ = index.range_search(vectors, THRESHOLD)
        seconds = time.perf_counter() - began
        results[f"probes_{probes}"] = {
            "queries_s": round(len(queries) / seconds),
            "links_found_share": round(int(limits[-1]) / true, 4),
        }
    return results


def _hnswlib(codes: Any, queries: Any) -> dict[str, Any]:
    import hnswlib  # noqa: PLC0415 - only this part needs it

    true = _true_links(codes, queries)
    index = hnswlib.Index("ip", DIM)
    index.init_index(len(codes), M=16, ef_construction=200, random_seed=1)
    began = time.perf_counter()
    index.add_items(_unit(codes))
    added_s = time.perf_counter() - began
    index.set_ef(_NEAREST)
    began = time.perf_counter()
    _, distances = index.knn_query(_unit(queries), k=_NEAREST)
    seconds = time.perf_counter() - began
    return {
        "adds_s": round(len(codes) / added_s),
        "queries_s": round(len(queries) / seconds),
        "links_found_share": round(int((1 - distances > THRESHOLD).sum()) / true, 4),
        "index_bytes": index.index_file_size(),
    }

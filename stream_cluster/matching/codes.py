"""Descriptors as int8 codes, and the one definition of similarity.

For two codes with inverse norms (`inverse_norms`):

    dot        = exact integer dot product
    scale      = float32(inverse norm a) * float32(inverse norm b)      float32 multiplication
    similarity = min(float32(dot) * scale, 1)                           float32 multiplication

Every step is exact or one correctly rounded IEEE 754 operation that commutes, so any engine on any
machine gets the same bits for a pair, whichever of the two is the query. An all-zero code has the inverse
norm 0 and therefore similarity 0 to everything. A link is similarity > float32(threshold), strictly.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stream_cluster.model import Codes, InverseNorms

CODE_MAX = 127

EXACT_DIMENSIONS = 1024
"""Up to this many dimensions |dot| <= 127 * 127 * 1024 < 2**24, so float32 sums of products are exact."""

_CHUNK_ROWS = 4096
_QUANTISED_ROWS = 256
"""So few that what is computed of them stays in the processor's cache."""

Int32s = npt.NDArray[np.int32]


def quantise(vectors: npt.NDArray[np.float32]) -> Codes:
    """Scale each row so that its largest magnitude becomes 127, and round to the nearest integer.

    Args:
        vectors: float32, shape (n, dim), finite. The scale of a row does not matter, only its direction.

    Returns:
        Codes, shape (n, dim). A row of zeros stays zeros.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    values = np.asarray(vectors, np.float32)
    codes = np.empty(values.shape, np.int8)
    for first in range(0, len(values), _QUANTISED_ROWS):
        _quantise(values[first : first + _QUANTISED_ROWS], codes[first : first + _QUANTISED_ROWS])
    return codes


def _quantise(values: npt.NDArray[np.float32], codes: Codes) -> None:
    peak = np.abs(values).max(axis=1, keepdims=True, initial=0)
    if not bool(np.isfinite(peak).all()):
        raise ValueError("vectors: found NaN or infinity, expected finite numbers")
    tiny = (peak > 0) & (peak < np.float32(1e-30))
    if bool(tiny.any()):
        # 127 / peak would overflow; a power of two changes no bit of the result.
        lift = np.where(tiny, np.float32(2.0**100), np.float32(1.0))
        values = values * lift
        peak = peak * lift
    factor = np.divide(np.float32(CODE_MAX), peak, out=np.zeros_like(peak), where=peak > 0)
    scaled = values * factor
    codes[...] = np.rint(scaled, out=scaled)


def encode(vectors: Sequence[npt.NDArray[np.float32 | np.int8]]) -> Codes:
    """Codes of descriptors that arrived as floats (quantised) or as int8 (kept, -128 becoming -127).

    Args:
        vectors: at least one array of shape (dim,), all of the same dimension.

    Raises:
        ValueError: no vectors, different dimensions, or a NaN or infinity.
    """
    dims = {vector.shape for vector in vectors}
    if len(dims) != 1 or len(next(iter(dims))) != 1:
        raise ValueError(f"vectors: found the shapes {sorted(dims)}, expected one shape (dim,)")
    codes = np.empty((len(vectors), vectors[0].shape[0]), np.int8)
    integers = [i for i, vector in enumerate(vectors) if vector.dtype == np.int8]
    floats = [i for i, vector in enumerate(vectors) if vector.dtype != np.int8]
    if integers:
        codes[integers] = np.maximum(np.stack([vectors[i] for i in integers]), np.int8(-CODE_MAX))
    if floats:
        codes[floats] = quantise(np.stack([vectors[i].astype(np.float32, copy=False) for i in floats]))
    return codes


def inverse_norms(codes: Codes) -> InverseNorms:
    """1 / Euclidean norm of each row, computed in float64 and rounded once; 0 for an all-zero row."""
    result = np.zeros(len(codes), np.float32)
    for start in range(0, len(codes), _CHUNK_ROWS):
        squares = pair_dots(codes[start : start + _CHUNK_ROWS], codes[start : start + _CHUNK_ROWS])
        norms = np.sqrt(squares.astype(np.float64))
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        result[start : start + _CHUNK_ROWS] = inverse.astype(np.float32)
    return result


def pair_dots(a: Codes, b: Codes) -> Int32s:
    """Exact dot product of row i of `a` with row i of `b`; at most 127 * 127 * 4096 < 2**31."""
    dots = np.zeros(len(a), np.int32)
    for start in range(0, len(a), _CHUNK_ROWS):
        rows = slice(start, start + _CHUNK_ROWS)
        for first in range(0, a.shape[1], EXACT_DIMENSIONS):
            dims = slice(first, first + EXACT_DIMENSIONS)
            left = a[rows, dims].astype(np.float32)
            dots[rows] += np.einsum("ij,ij->i", left, b[rows, dims].astype(np.float32)).astype(np.int32)
    return dots


def similarities(
    dots: npt.NDArray[np.int32 | np.float32], norms_a: InverseNorms, norms_b: InverseNorms
) -> npt.NDArray[np.float32]:
    """Similarity from exact dot products and inverse norms, by the module's definition.

    Args:
        dots: exact integers, as int32 or as float32 (rounded once from the exact integer).
        norms_a, norms_b: inverse norms, of shapes that broadcast with `dots`.
    """
    scale = np.multiply(norms_a, norms_b, dtype=np.float32)
    return np.minimum(dots.astype(np.float32, copy=False) * scale, np.float32(1.0))


def check_codes(codes: Codes, dim: int) -> None:
    """Raise ValueError unless the codes are int8 of shape (n, dim)."""
    if codes.dtype != np.int8 or codes.ndim != 2 or codes.shape[1] != dim:
        raise ValueError(f"codes: found {codes.dtype} of shape {codes.shape}, expected int8 of (n, {dim})")

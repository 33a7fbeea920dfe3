"""Descriptor vectors of simulated people, and their encodings.

Model of one appearance with fidelity f (squared share of the identity):

    x = sqrt(f) · L(p) + sqrt((1 - f) / 2) · L(u) + sqrt((1 - f) / 2) · v

p is the person's unit vector and u a fresh one, both of `identity_dim` coordinates; L copies those to `dim`
coordinates with fixed signs, keeping lengths; v is fresh noise in all coordinates. Two appearances of one
person have cosine sqrt(f·f') on average. Strangers have cosine 0 with standard deviation about
0.85 / sqrt(identity_dim): like those of a real model, it is wider than the dimension alone would make it, so
that some strangers reach 0.3 to 0.45.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

from stream_cluster.generate.hashing import hashed, hashed_directions
from stream_cluster.generate.options import Encoding, GenerateOptions
from stream_cluster.matching.codes import quantise
from stream_cluster.model import DescriptorType

Vectors = npt.NDArray[np.float32]

UINT8_OFFSET = 128
"""Value of an unsigned byte that stands for zero: the configuration's default."""

# By how much the fidelity of the best and the worst picture differ.
_QUALITY_EFFECT = 0.27
_MEAN_QUALITY = 0.75


def appearance_vectors(
    options: GenerateOptions,
    descriptor_type: DescriptorType,
    persons: npt.NDArray[np.int64],
    quality: npt.NDArray[np.float64],
    noise: np.random.Generator,
) -> Vectors:
    """One unit vector per appearance: float32, shape (n, dim)."""
    latent_dim = min(options.identity_dim, options.dim)
    fidelity = np.clip(options.same_person_cosine + _QUALITY_EFFECT * (quality - _MEAN_QUALITY), 0.01, 0.99)
    identity = np.sqrt(fidelity).astype(np.float32)[:, None]
    # Half of the noise looks like other people (pose, light), half is the sensor's own.
    spread = np.sqrt((1.0 - fidelity) / 2.0).astype(np.float32)[:, None]
    latent = identity * hashed_directions(options.seed, f"person-{descriptor_type}", persons, latent_dim)
    latent += spread * _normal_rows(noise, len(persons), latent_dim)
    vectors = _lift(options, descriptor_type, latent)
    vectors += spread * _normal_rows(noise, len(persons), options.dim)
    vectors /= np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return vectors


def _normal_rows(noise: np.random.Generator, count: int, dim: int) -> Vectors:
    """Normal vectors of expected squared length 1."""
    return noise.standard_normal((count, dim), dtype=np.float32) / np.float32(np.sqrt(dim))


def _lift(options: GenerateOptions, descriptor_type: DescriptorType, latent: Vectors) -> Vectors:
    """Copy latent coordinates to `dim` coordinates in a fixed random order with fixed signs, keeping lengths.

    Element by element, not by a matrix product: the bytes then do not depend on the BLAS of the machine.
    """
    latent_dim = latent.shape[1]
    columns = np.arange(options.dim, dtype=np.int64)
    order = np.argsort(hashed(options.seed, f"order-{descriptor_type}", columns), kind="stable")
    source = np.empty(options.dim, np.int64)
    source[order] = columns % latent_dim
    sign = np.where(hashed(options.seed, f"sign-{descriptor_type}", columns) & np.uint64(1), 1.0, -1.0)
    copies = np.bincount(source, minlength=latent_dim)[source]
    weight = (sign / np.sqrt(copies)).astype(np.float32)
    return latent[:, source] * weight


def encode_rows(vectors: Vectors, encoding: Encoding, version: int) -> list[bytes]:
    """The `data` bytes of every row, little-endian, as docs/formats.md defines each encoding."""
    if encoding == "float32":
        return _row_bytes(vectors.astype("<f4", copy=False))
    if encoding == "float16":
        return _row_bytes(vectors.astype("<f2"))
    codes = quantise(vectors)
    if encoding == "int8":
        return _row_bytes(codes)
    unsigned = (codes.astype(np.int16) + UINT8_OFFSET).astype(np.uint8)
    if encoding == "uint8":
        return _row_bytes(unsigned)
    return [sdk_bytes(version, row) for row in _row_bytes(unsigned)]


def sdk_bytes(version: int, vector: bytes) -> bytes:
    """The platform's raw form: `dp\\0\\0`, the version as uint32 LE, the uint8 vector."""
    return b"dp\0\0" + struct.pack("<I", version) + vector


def _row_bytes(rows: npt.NDArray[np.generic]) -> list[bytes]:
    width = rows.shape[1] * rows.itemsize
    flat = np.ascontiguousarray(rows).tobytes()
    return [flat[start : start + width] for start in range(0, len(flat), width)]

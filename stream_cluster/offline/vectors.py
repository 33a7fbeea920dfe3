"""Descriptors in a NumPy archive (`.npz`): `ids`, strings of shape (n,), and `descriptors`, float32 (n, dim).

Both are read through the zip in blocks of rows, so memory does not grow with the file.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from stream_cluster.errors import InputError
from stream_cluster.model import MAX_DIMENSION

# What zipfile and numpy.lib.format raise on damaged or unusual files; RuntimeError means encrypted.
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, NotImplementedError, OSError)


@dataclass(frozen=True, slots=True)
class VectorBlock:
    """Some consecutive rows of the file."""

    first_row: int
    ids: list[str]
    vectors: npt.NDArray[np.float32]
    """Shape (len(ids), dim), read-only."""


@dataclass(frozen=True, slots=True)
class VectorFile:
    """An `.npz` whose headers have been read and agree."""

    name: str
    rows: int
    dim: int
    _ids: IO[bytes]
    _id_type: np.dtype[Any]
    _vectors: IO[bytes]
    _vector_type: np.dtype[Any]

    def blocks(self, block_rows: int) -> Iterator[VectorBlock]:
        """All rows in order. Raises InputError when the data is damaged or ends early."""
        for first in range(0, self.rows, block_rows):
            count = min(block_rows, self.rows - first)
            with _explained(self.name):
                ids = np.frombuffer(_exactly(self._ids, count * self._id_type.itemsize), self._id_type)
                data = _exactly(self._vectors, count * self.dim * self._vector_type.itemsize)
                names = ids.tolist() if ids.dtype.kind == "U" else [name.decode() for name in ids.tolist()]
            vectors = np.frombuffer(data, self._vector_type).reshape(count, self.dim)
            yield VectorBlock(first, names, vectors.astype(np.float32, copy=False))


@contextlib.contextmanager
def open_vectors(path: Path) -> Iterator[VectorFile]:
    """Open an `.npz` and check what it says it holds.

    Raises:
        InputError: not such a file, damaged, or its arrays are not as this module's docstring says.
    """
    name = str(path)
    with contextlib.ExitStack() as stack:
        with _explained(name):
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = set(archive.namelist())
            for array in ("ids", "descriptors"):
                if f"{array}.npy" not in members:
                    found = ", ".join(sorted(member.removesuffix(".npy") for member in members)) or "nothing"
                    raise InputError(f"{name}: found {found}, expected the arrays ids and descriptors")
            ids = stack.enter_context(archive.open("ids.npy"))
            id_shape, _, id_type = _header(ids)
            vectors = stack.enter_context(archive.open("descriptors.npy"))
            shape, fortran_order, vector_type = _header(vectors)
        _check_ids(name, id_shape, id_type)
        _check_vectors(name, shape, fortran_order, vector_type)
        if id_shape[0] != shape[0]:
            raise InputError(f"{name}: found {id_shape[0]} ids and {shape[0]} descriptors, expected as many")
        yield VectorFile(name, shape[0], shape[1], ids, id_type, vectors, vector_type)


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(member)
    raise ValueError(f"array format {version} holds structures, expected a plain array")


def _check_ids(name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "US" or dtype.itemsize == 0 or len(shape) != 1:
        raise InputError(
            f"{name}: ids: found {dtype} of shape {shape}, expected strings of shape (n,); "
            "np.array(ids, dtype=str) makes them"
        )


def _check_vectors(name: str, shape: tuple[int, ...], fortran_order: bool, dtype: np.dtype[Any]) -> None:
    if dtype.kind != "f" or dtype.itemsize != 4 or len(shape) != 2:
        raise InputError(
            f"{name}: descriptors: found {dtype} of shape {shape}, expected float32 of shape (n, dim)"
        )
    if not 1 <= shape[1] <= MAX_DIMENSION:
        raise InputError(f"{name}: descriptors: found dimension {shape[1]}, expected 1 to {MAX_DIMENSION}")
    if fortran_order and min(shape) > 1:
        raise InputError(
            f"{name}: descriptors: found column order, expected row order; "
            "np.ascontiguousarray(descriptors) makes it"
        )


def _exactly(member: IO[bytes], size: int) -> bytes:
    data = member.read(size)
    if len(data) != size:
        raise EOFError("the data ends early")
    return data


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:
        raise InputError(f"{name}: not a readable .npz: {error}") from error

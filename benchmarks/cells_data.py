"""Codes of millions of made-up descriptors in files, made a block at a time: never as float32 as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from benchmarks.face_data import FaceData
from benchmarks.seed_data import SeedData, seed_data
from stream_cluster.matching import quantise

Kind = Literal["faces", "people"]
Order = Literal["random", "by_person", "by_camera"]

CAMERAS = 100
DIM = 512


def data_of(kind: Kind, objects: int) -> FaceData | SeedData:
    """`faces`: in the proportions of real ones. `people`: evenly spread over the sphere, the hard case."""
    return FaceData(objects, DIM, 1) if kind == "faces" else seed_data(objects, 1)


class CodesFile:
    """Codes of a file, read as they are needed: they take no memory, as those of a mapped file would."""

    def __init__(self, codes: npt.NDArray[np.int8]) -> None:
        """Of a mapped array."""
        assert isinstance(codes, np.memmap)
        self._length = len(codes)
        self._offset = int(codes.offset)
        self._path = str(codes.filename)

    def __len__(self) -> int:
        return self._length

    def rows(self, start: int, stop: int) -> npt.NDArray[np.int8]:
        """Rows start to stop, shape (stop - start, DIM)."""
        offset = self._offset + start * DIM
        return np.fromfile(self._path, np.int8, (stop - start) * DIM, offset=offset).reshape(-1, DIM)

    def some(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int8]:
        """These rows, ascending, shape (len(rows), DIM)."""
        mapped = np.memmap(self._path, np.int8, "r", self._offset, (self._length, DIM))
        return np.array(mapped[rows])


def codes_file(folder: Path, kind: Kind, objects: int) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int32]]:
    """Codes, mapped, shape (objects, DIM), and the person of each, in random order; made when missing."""
    path = folder / f"{kind}-{objects}.npy"
    people_path = folder / f"{kind}-{objects}.person.npy"
    if not people_path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        data = data_of(kind, objects)
        codes = np.lib.format.open_memmap(path, "w+", np.int8, (objects, DIM))
        first = 0
        for block in data.blocks():
            codes[first : first + len(block)] = quantise(block)
            first += len(block)
        codes.flush()
        np.save(people_path, data.person_of)
    return np.load(path, mmap_mode="r"), np.load(people_path)


def ordered(person: npt.NDArray[np.int32], order: Order) -> npt.NDArray[np.int64]:
    """In which order the objects arrive.

    `by_person`: all of one person together. `by_camera`: one camera after another, each of which sees its own
    hundredth of the people, in random order.
    """
    if order == "random":
        return np.arange(len(person))
    key = person.astype(np.int64)
    # Pictures of nobody are everywhere.
    nobody = key < 0
    key[nobody] = np.random.default_rng(7).integers(0, 1 << 30, int(nobody.sum()))
    if order == "by_camera":
        key = key * 2654435761 % (1 << 32) % CAMERAS
    return np.argsort(key, kind="stable")

"""Made-up faces in the proportions of real ones, in any number, of 128 or more dimensions.

    python -m benchmarks.face_data --objects 100000 [--dim 512] --output data.npz

The proportions are in `benchmarks/face_statistics.json`, measured by `benchmarks.face_statistics`. A
photograph is p + r·e, scaled to length 1:

p   The person: normal, with the spectrum `between`. Some strangers are more alike than normal vectors would
    be: there are LOOKS kinds of people, each of which shares ALIKE of the variance. Both numbers are chosen
    so that cosines of strangers have the measured quantiles (tests/unit/test_benchmark_face_data.py).
e   A direction, normal with the spectrum `within`; r has the measured quantiles and correlation within a
    person.

With more dimensions than were measured, the spectra are stretched: as much variance in more directions, so
that strangers are less alike, as with larger models. Numbers of photographs follow the measured power law,
up to MOST_PHOTOGRAPHS. Some pictures are nobody's, near one direction, as in `benchmarks.seed_data`.

A set is a function of (objects, dim, seed), apart from last bits that depend on the machine's BLAS.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import special

from benchmarks.face_statistics import PATH
from benchmarks.seed_data import BLOCK, COMMON, NOBODY, Vectors, draw_people, unit, write_npz
from stream_cluster.generate.hashing import hashed, hashed_directions, hashed_share

LOOKS = 200
ALIKE = 0.3
MOST_PHOTOGRAPHS = 200

_REAL = json.loads(PATH.read_text())


@dataclass(frozen=True)
class FaceData:
    """A set of `objects` vectors; nothing is kept but who is in which row."""

    objects: int
    dim: int = 512
    seed: int = 1

    def __len__(self) -> int:
        return self.objects

    @cached_property
    def person_of(self) -> npt.NDArray[np.int32]:
        """Person in each row, `NOBODY` for nobody's picture. int32, shape (objects,)."""
        return draw_people(self.objects, _REAL["power_law"], MOST_PHOTOGRAPHS, self.seed)

    def blocks(self) -> Iterator[Vectors]:
        """All rows in order, in blocks of float32 of shape (at most 8192, dim); rows have length 1."""
        for first in range(0, self.objects, BLOCK):
            yield self._block(first)

    def write(self, path: Path) -> None:
        """Write an `.npz` of `ids` and `descriptors`."""
        write_npz(path, self.objects, self.dim, self.blocks())

    @cached_property
    def _axes(self) -> Vectors:
        """A rotation, so that no coordinate is a principal direction: shape (dim, dim)."""
        normal = np.random.default_rng([self.seed, 5, self.dim]).standard_normal((self.dim, self.dim))
        axes: Vectors = np.linalg.qr(normal)[0].astype(np.float32)
        return axes

    def _block(self, first: int) -> Vectors:
        person = self.person_of[first : first + BLOCK].astype(np.int64)
        random = np.random.default_rng([self.seed, 6, first])
        latent = _person(self.seed, person, self.dim)
        latent[:, 0] += np.float32(_REAL["mean_length"])
        noise = random.standard_normal((len(person), self.dim), dtype=np.float32)
        residual = unit(noise * np.sqrt(_stretched("within", self.dim)))
        result = latent + residual * _residual_lengths(self.seed, person, random)[:, None]
        nobody = person == NOBODY
        cosine = random.uniform(*COMMON, len(person)).astype(np.float32)[nobody, None]
        result[nobody] = unit(noise[nobody]) * np.sqrt(1 - cosine**2)
        result[nobody, -1] += cosine[:, 0]
        return unit(result) @ self._axes


def _person(seed: int, person: npt.NDArray[np.int64], dim: int) -> Vectors:
    """What all photographs of a person have in common: float32, shape (n, dim)."""
    kind = (hashed(seed, "face-kind", person) % np.uint64(LOOKS)).astype(np.int64)
    alike = hashed_directions(seed, "face-kind-direction", kind, dim)
    own = hashed_directions(seed, "face-person", person, dim)
    mixed = np.float32(ALIKE**0.5) * alike + np.float32((1 - ALIKE) ** 0.5) * own
    # A direction of so many dimensions times their root is as good as normal.
    return mixed * np.sqrt(dim * _stretched("between", dim))


def _residual_lengths(seed: int, person: npt.NDArray[np.int64], random: np.random.Generator) -> Vectors:
    correlation = _REAL["residual_correlation"]
    of_person = special.ndtri(np.maximum(hashed_share(seed, "face-residual", person), 2.0**-53))
    score = correlation**0.5 * of_person + (1 - correlation) ** 0.5 * random.standard_normal(len(person))
    lengths = np.interp(special.ndtr(score), _REAL["residual_quantiles"], _REAL["residuals"])
    return lengths.astype(np.float32)


def _stretched(name: str, dim: int) -> Vectors:
    """A measured spectrum over `dim` directions, with the same sum: float32, shape (dim,)."""
    measured = np.array(_REAL[name])
    ranks = (np.arange(dim) + 0.5) * len(measured) / dim - 0.5
    values = np.interp(ranks, np.arange(len(measured)), measured)
    return (values * (measured.sum() / values.sum())).astype(np.float32)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.face_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--objects", type=int, required=True)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True, help="the .npz to write")
    options = parser.parse_args(arguments)
    FaceData(options.objects, options.dim, options.seed).write(options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Data like that of the published table: as many links at each threshold, at 10K, 100K and 1M objects.

    python -m benchmarks.seed_data --check [--sizes 10000,100000,1000000] [--sample 20000]
    python -m benchmarks.seed_data --objects 100000 --output data.npz

An object is a unit vector of 512 float32 values: a photograph of a person, or of nobody. Links per object
grow as a + b·n (`benchmarks.published`). Three parts of the data give these numbers, at any size:

people      1 to 30 photographs each, numbers by a power law. One of fidelity f is f·p + sqrt(1 - f²)·u, with
            the person's vector p and fresh noise u, so two of a person have a cosine of about f·f'. Most are
            clear, a few dim, a few poor: together they give a at the three thresholds.
strangers   The people's vectors lie in few effective dimensions (an exponentially decaying spectrum), so that
            2.6 pairs of 100,000 are above 0.5, and next to none above 0.81: b at 0.5.
unreadable  7 of 10,000 pictures show no face that the model could read. They look alike, whoever it was: near
            one direction, all their pairs above 0.81 and nearly half of them above 0.9: b at 0.81 and 0.9.

A set is a function of (objects, seed), apart from last bits that depend on the machine's BLAS. Memory: some
50 bytes an object and one block. The set of 2M objects is that of 1M twice, with other ids.
"""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.published import THRESHOLDS, nonzero, target_nonzero
from benchmarks.report import write_report
from stream_cluster.generate.hashing import hashed_directions
from stream_cluster.matching import CodeStore, all_pairs, limit_threads, quantise
from stream_cluster.matching.codes import pair_dots, similarities
from stream_cluster.matching.exact import ExactMatcher

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

DIM = 512
BLOCK = 8192
"""Rows made at once."""

_UNREADABLE = 6.9e-4
_MOST_PHOTOGRAPHS = 30
_POWER = 2.078  # of people, k^-2.078 have k photographs: 2.955 pairs of one person for each object
_LATENT = 128
_DECAY = 25.1  # of the spectrum, in dimensions: about twice as many are effective
# Share, and range of the fidelity. clear·clear > 0.9 > clear·dim > 0.81 > clear·poor > 0.5.
_CLEAR, _DIM_LIGHT, _POOR = (0.922, 0.965, 0.997), (0.0385, 0.85, 0.885), (0.0395, 0.64, 0.72)
COMMON = (0.913, 0.978)
"""Cosine of an unreadable picture to their common direction, from and to."""
NOBODY = -1
"""Person of a picture that shows nobody."""


@dataclass(frozen=True)
class SeedData:
    """A set of `objects` vectors; nothing is kept but who is in which row."""

    objects: int
    seed: int = 1
    copies: int = 1
    """With 2, every vector comes twice: `objects` is the number of different ones."""

    def __len__(self) -> int:
        return self.objects * self.copies

    @cached_property
    def person_of(self) -> npt.NDArray[np.int32]:
        """Person in each row of the first copy, -1 for nobody's picture. int32, shape (objects,)."""
        return draw_people(self.objects, _POWER, _MOST_PHOTOGRAPHS, self.seed)

    def blocks(self) -> Iterator[Vectors]:
        """All rows in order, in blocks of float32 of shape (at most 8192, 512); rows have length 1."""
        for _ in range(self.copies):
            for first in range(0, self.objects, BLOCK):
                yield self._block(first)

    def vectors(self) -> Vectors:
        """All rows at once, shape (len, 512)."""
        return np.concatenate(list(self.blocks()))

    @cached_property
    def _axes(self) -> Vectors:
        """Orthonormal rows that span the space of people, and one more: shape (129, 512)."""
        normal = np.random.default_rng([self.seed, 2]).standard_normal((DIM, _LATENT + 1))
        axes: Vectors = np.linalg.qr(normal)[0].T.astype(np.float32)
        return axes

    def _block(self, first: int) -> Vectors:
        person = self.person_of[first : first + BLOCK]
        random = np.random.default_rng([self.seed, 3, first])
        nobody = person == NOBODY
        latent = hashed_directions(self.seed, "seed-person", person.astype(np.int64), _LATENT)
        latent *= np.exp(-np.arange(_LATENT) / (2 * _DECAY)).astype(np.float32)
        towards = unit(latent) @ self._axes[:_LATENT]
        towards[nobody] = self._axes[_LATENT]
        fidelity = _fidelity(random, len(person))
        fidelity[nobody] = random.uniform(*COMMON, int(nobody.sum()))
        noise = random.standard_normal((len(person), DIM), dtype=np.float32)
        noise *= np.sqrt((1 - fidelity**2) / DIM).astype(np.float32)[:, None]
        towards *= fidelity.astype(np.float32)[:, None]
        return unit(towards + noise)

    def write(self, path: Path) -> None:
        """Write an `.npz` of `ids` and `descriptors`."""
        write_npz(path, len(self), DIM, self.blocks())


def draw_people(objects: int, power: float, most: int, seed: int) -> npt.NDArray[np.int32]:
    """Person of each object, `NOBODY` for nobody's picture, in random order. int32, shape (objects,).

    k^-power of the people have k photographs, up to `most`.
    """
    unreadable = round(_UNREADABLE * objects)
    share = np.cumsum(np.arange(1, most + 1) ** -power)
    # Multiples of the golden ratio instead of chance: even a small set has the numbers of a large one.
    position = (np.arange(1, objects + 1) * ((5**0.5 - 1) / 2)) % 1.0
    sizes = np.searchsorted(share / share[-1], position) + 1
    last = int(np.searchsorted(np.cumsum(sizes), objects)) + 1
    people = np.repeat(np.arange(last, dtype=np.int32), sizes[:last])
    people = np.concatenate((np.full(unreadable, NOBODY, np.int32), people))[:objects]
    return people[np.random.default_rng([seed, 1]).permutation(objects)]


def ids_of(objects: int) -> list[str]:
    """The ids that `write_npz` gives: numbers of one width."""
    width = len(str(objects - 1))
    return [f"{row:0{width}d}" for row in range(objects)]


def write_npz(path: Path, objects: int, dim: int, blocks: Iterable[Vectors]) -> None:
    """Write an `.npz` of `ids` and `descriptors`, block by block, not compressed."""
    width = len(str(objects - 1))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        with archive.open("ids.npy", "w", force_zip64=True) as member:
            _header(member, (objects,), np.dtype(f"S{width}"))
            for first in range(0, objects, BLOCK):
                rows = range(first, min(first + BLOCK, objects))
                member.write("".join(f"{row:0{width}d}" for row in rows).encode("ascii"))
        with archive.open("descriptors.npy", "w", force_zip64=True) as member:
            _header(member, (objects, dim), np.dtype("<f4"))
            for block in blocks:
                member.write(block.astype("<f4", copy=False).tobytes())


def seed_data(objects: int, seed: int = 1) -> SeedData:
    """The set of that many objects; above a million, one of half the size twice.

    Raises `ValueError` for an odd number above a million.
    """
    if objects <= 1_000_000:
        return SeedData(objects, seed)
    if objects % 2:
        raise ValueError(f"objects: found {objects}, expected an even number above a million")
    return SeedData(objects // 2, seed, copies=2)


def _fidelity(random: np.random.Generator, count: int) -> npt.NDArray[np.float64]:
    kinds = (_CLEAR, _DIM_LIGHT, _POOR)
    kind = random.choice(len(kinds), count, p=[share for share, _, _ in kinds])
    low, high = (np.array([part[column] for part in kinds])[kind] for column in (1, 2))
    return random.uniform(low, high)


def unit(vectors: Vectors) -> Vectors:
    """The rows scaled to length 1."""
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    result: Vectors = vectors / lengths
    return result


def _header(member: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    fields = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(member, fields)


# -- counting ------------------------------------------------------------------------------------------


def codes_of(data: SeedData) -> CodeStore:
    """The set as the product keeps it: half a gigabyte for a million objects."""
    store = CodeStore(DIM)
    for block in data.blocks():
        store.append(quantise(block))
    return store


def count_links(store: CodeStore, thresholds: Sequence[float]) -> dict[float, float]:
    """Links above each threshold among all rows, by the product's own matching."""
    counts = dict.fromkeys(thresholds, 0.0)
    for links in all_pairs(store, min(thresholds)):
        for threshold in thresholds:
            counts[threshold] += int((links.similarity > np.float32(threshold)).sum())
    return counts


def estimate_links(data: SeedData, store: CodeStore, sample: int) -> dict[float, float]:
    """Links above each threshold: counted within people, and from a sample of rows between strangers.

    `store` holds one copy of the data. A sample of rows alone would not do, as people have very different
    numbers of photographs. Unreadable pictures
    count as those of one person.
    """
    drawn = np.sort(np.random.default_rng(5).choice(data.objects, min(sample, data.objects), replace=False))
    strangers = _links_to_strangers(data, store, drawn)
    scale = data.objects / len(drawn) / 2  # each link is met at both of its ends
    within = _links_within_people(data, store)
    # A copy brings the same links between copies, and one from each vector to its copy.
    copies, twins = data.copies**2, data.objects * (data.copies * (data.copies - 1) // 2)
    return {t: (within[t] + strangers[t] * scale) * copies + twins for t in THRESHOLDS}


def _links_within_people(data: SeedData, store: CodeStore) -> dict[float, int]:
    counts = dict.fromkeys(THRESHOLDS, 0)
    order = np.argsort(data.person_of, kind="stable")
    person = data.person_of[order]
    # Objects of a person stand together now: neighbours, then those two apart, and so on.
    for apart in range(1, int(np.bincount(person + 1).max())):
        at = np.flatnonzero(person[apart:] == person[:-apart])
        for first in range(0, len(at), BLOCK):
            a, b = order[at[first : first + BLOCK]], order[at[first : first + BLOCK] + apart]
            dots = pair_dots(store.gather(a), store.gather(b))
            found = similarities(dots, store.gather_norms(a), store.gather_norms(b))
            for threshold in THRESHOLDS:
                counts[threshold] += int((found > np.float32(threshold)).sum())
    return counts


def _links_to_strangers(data: SeedData, store: CodeStore, rows: Rows) -> dict[float, int]:
    """Links of these rows, of the first copy, to other people in it."""
    matcher = ExactMatcher(DIM, store=store)
    counts = dict.fromkeys(THRESHOLDS, 0)
    for first in range(0, len(rows), 1024):
        part = rows[first : first + 1024]
        for hits in matcher.search(store.gather(part), min(THRESHOLDS)):
            other = data.person_of[part[hits.query]] != data.person_of[hits.row]
            for threshold in THRESHOLDS:
                counts[threshold] += int((other & (hits.similarity > np.float32(threshold))).sum())
    return counts


def check(sizes: Sequence[int], sample: int, count_up_to: int) -> dict[str, dict[str, Any]]:
    """Targets and what was found, one entry for each size and threshold."""
    results = {}
    for size in sizes:
        data = seed_data(size)
        exact = size <= count_up_to
        if exact:
            links = count_links(codes_of(data), THRESHOLDS)
        else:
            links = estimate_links(data, codes_of(SeedData(data.objects, data.seed)), sample)
        for threshold in THRESHOLDS:
            target, found = target_nonzero(size, threshold), nonzero(size, links[threshold])
            results[f"{size:,} at {threshold:g}"] = {
                "objects": size,
                "threshold": threshold,
                "target_nonzero": round(target),
                "nonzero": round(found),
                "deviation": round(found / target - 1, 4),
                "method": "counted" if exact else f"from {sample} rows",
            }
    return results


def _print(results: list[dict[str, Any]]) -> None:
    table = Table("objects", "threshold", "target", "found", "deviation", "method", title="non-zeros")
    for result in results:
        objects, threshold, target, found, deviation, method = result.values()
        table.add_row(
            f"{objects:,}", f"{threshold:g}", f"{target:,}", f"{found:,}", f"{deviation:+.1%}", method
        )
    Console().print(table)


def parse_sizes(text: str) -> list[int]:
    """Numbers separated by commas; an underscore may group digits."""
    return [int(part) for part in text.split(",")]


def main(arguments: list[str] | None = None) -> int:
    """The command. Ends with status 1 when a number is off by more than 5 %."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.seed_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="count links and compare with the targets")
    parser.add_argument("--sizes", type=parse_sizes, default=[10_000, 100_000, 1_000_000])
    parser.add_argument(
        "--sample", type=int, default=20_000, help="rows whose links are found, in larger ones"
    )
    parser.add_argument(
        "--count-up-to", type=int, default=200_000, help="in sets up to this size all links are counted"
    )
    parser.add_argument("--threads", type=int, default=0, help="0 uses all cores")
    parser.add_argument("--write", type=Path, help="write the results of --check as JSON")
    parser.add_argument("--objects", type=int, help="make a set of this size")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="the .npz to write")
    options = parser.parse_args(arguments)
    if (options.output is None) != (options.objects is None) or not (options.check or options.output):
        parser.error("expected --check, or --objects and --output, or all of them")
    limit_threads(options.threads)
    if options.output is not None:
        seed_data(options.objects, options.seed).write(options.output)
    if not options.check:
        return 0
    before = environment()
    results = check(options.sizes, options.sample, options.count_up_to)
    _print(list(results.values()))
    write_report(
        options.write,
        "seed_data",
        "python -m benchmarks.seed_data --check",
        parameters={"sample": options.sample, "count_up_to": options.count_up_to},
        environment=before,
        results=results,
    )
    return 0 if all(abs(result["deviation"]) <= 0.05 for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())

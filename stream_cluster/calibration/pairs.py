"""Pairs whose truth is known, from files, as counts of their cosines.

- A labelled `.npz`: `ids` and `descriptors` as `stream-cluster cluster` takes them, and `labels`, integers or
  strings of shape (n,): who each object is. Pairs with equal labels are genuine, all others are impostors.
- Pairs in CSV, gzipped or not, with a header: `cosine,same`, or `a,b,same` with two ids of an `.npz`. `same`
  is 1 or 0. Other columns are passed over.

Cosines are those of codes, by the definition that matching uses.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stream_cluster.calibration.scores import Scores
from stream_cluster.errors import InputError
from stream_cluster.matching import all_pairs, quantise
from stream_cluster.matching.codes import inverse_norms, pair_dots, similarities
from stream_cluster.matching.scale import EVERY_PAIR
from stream_cluster.model import Codes, Interrupt, InverseNorms, Progress
from stream_cluster.offline.sources import Source, read_rows
from stream_cluster.offline.vectors import open_vectors

_BLOCK_ROWS = 8192
_BLOCK_PAIRS = 1 << 18
_SAME: Mapping[str, bool] = {"0": False, "1": True}

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The objects of an `.npz`."""

    name: str
    ids: list[str]
    codes: Codes
    norms: InverseNorms

    def cosines(self, a: Indices, b: Indices) -> npt.NDArray[np.float32]:
        """Of pairs of rows, shape (len(a),)."""
        dots = pair_dots(self.codes[a], self.codes[b])
        return similarities(dots, self.norms[a], self.norms[b])


def read_descriptors(path: Path, interrupt: Interrupt, progress: Progress) -> Descriptors:
    """Read `ids` and `descriptors` of an `.npz` and make codes of them; stage `read`.

    Raises:
        InputError: not such a file, or a descriptor that is zero or not finite.
    """
    ids: list[str] = []
    blocks: list[Codes] = []
    with open_vectors(path) as file:
        for block in file.blocks(_BLOCK_ROWS):
            interrupt.check()
            usable = np.isfinite(block.vectors).all(axis=1) & block.vectors.any(axis=1)
            if not usable.all():
                bad = block.ids[int(np.argmin(usable))]
                raise InputError(f"{path}: descriptor of {bad}: found zeros, NaN or infinity")
            ids += block.ids
            blocks.append(quantise(block.vectors))
            progress("read", len(ids) / file.rows)
    if not blocks:
        raise InputError(f"{path}: found no objects")
    codes = np.concatenate(blocks)
    return Descriptors(str(path), ids, codes, inverse_norms(codes))


# -- labelled objects ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LabelledScores:
    """Scores of labelled objects."""

    scores: Scores
    impostor_pairs_in_all: int
    """How many there are; more than were counted when they were sampled."""


def scores_of_labelled(
    path: Path, max_impostor_pairs: int, seed: int, *, interrupt: Interrupt, progress: Progress
) -> LabelledScores:
    """All genuine pairs of a labelled `.npz`, and all impostor pairs or a sample of them.

    Above `max_impostor_pairs`, so many are drawn, each uniformly from all impostor pairs and independently of
    the others, so with replacement. Stages: `read`, `genuine`, `impostor`.

    Raises:
        InputError: the file is not as this module's docstring says.
        Cancelled: asked to stop.
    """
    objects = read_descriptors(path, interrupt, progress)
    labels = _read_labels(path, len(objects.ids))
    # By label, so that the objects of one label are neighbours.
    order = np.argsort(labels, kind="stable")
    labels = labels[order]
    objects = Descriptors(objects.name, objects.ids, objects.codes[order], objects.norms[order])
    sizes = np.bincount(labels).astype(np.int64)
    genuine = int((sizes * (sizes - 1) // 2).sum())
    impostors = len(labels) * (len(labels) - 1) // 2 - genuine
    scores = Scores()
    done = 0
    for a, b in _genuine_pairs(labels):
        interrupt.check()
        scores.add(objects.cosines(a, b), np.ones(len(a), np.bool_))
        done += len(a)
        progress("genuine", done / genuine)
    if impostors <= max_impostor_pairs:
        for links in all_pairs(
            objects.codes,
            EVERY_PAIR,
            interrupt=interrupt,
            progress=lambda _, share: progress("impostor", share),
        ):
            other = labels[links.a] != labels[links.b]
            scores.add(links.similarity[other], np.zeros(int(other.sum()), np.bool_))
    else:
        done = 0
        for a, b in _sampled_impostors(labels, sizes, max_impostor_pairs, seed):
            interrupt.check()
            scores.add(objects.cosines(a, b), np.zeros(len(a), np.bool_))
            done += len(a)
            progress("impostor", done / max_impostor_pairs)
    return LabelledScores(scores, impostors)


def _read_labels(path: Path, count: int) -> Indices:
    """A number for each object, equal for equal labels. Raises InputError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "labels" not in arrays:
                found = ", ".join(sorted(arrays.files))
                raise InputError(f"{path}: found {found}, expected the arrays ids, descriptors and labels")
            labels: npt.NDArray[Any] = arrays["labels"]
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: labels: not readable: {error}") from error
    if labels.shape != (count,) or labels.dtype.kind not in "iuUS":
        raise InputError(
            f"{path}: labels: found {labels.dtype} of shape {labels.shape}, expected integers or strings of "
            f"shape ({count},)"
        )
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def _genuine_pairs(labels: Indices) -> Iterator[tuple[Indices, Indices]]:
    """All pairs of positions with equal labels, each once, in blocks. `labels` are sorted."""
    first = np.arange(len(labels))
    distance = 0
    while len(first):
        distance += 1
        first = first[first + distance < len(labels)]
        # Positions that have a partner at this distance had one at every smaller distance.
        first = first[labels[first] == labels[first + distance]]
        for begin in range(0, len(first), _BLOCK_PAIRS):
            part = first[begin : begin + _BLOCK_PAIRS]
            yield part, part + distance


def _sampled_impostors(
    labels: Indices, sizes: Indices, count: int, seed: int
) -> Iterator[tuple[Indices, Indices]]:
    """`count` pairs of positions with different labels, drawn uniformly. `labels` are sorted."""
    begins = np.concatenate([[0], np.cumsum(sizes)])[labels]
    others = len(labels) - sizes[labels]
    ends = np.cumsum(others)
    random = np.random.default_rng(seed)
    for begin in range(0, count, _BLOCK_PAIRS):
        # Ordered pairs (a, b) are numbered: those of position 0, those of position 1, …
        number = random.integers(ends[-1], size=min(_BLOCK_PAIRS, count - begin))
        a = np.searchsorted(ends, number, side="right")
        b = number - (ends[a] - others[a])
        # The positions of a's own label are passed over.
        b += np.where(b >= begins[a], sizes[labels[a]], 0)
        yield a, b


# -- pairs in CSV --------------------------------------------------------------------------------------


def scores_of_pairs(
    source: Source, descriptors: Descriptors | None, *, interrupt: Interrupt, progress: Progress
) -> Scores:
    """Scores of pairs in CSV; `descriptors` are those that ids name. Stage `pairs`.

    Raises:
        InputError: the file is not as this module's docstring says; names the line.
        Cancelled: asked to stop.
    """
    read_bytes = 0

    def on_bytes(count: int) -> None:
        nonlocal read_bytes
        read_bytes += count
        progress("pairs", min(read_bytes / source.size_bytes, 1.0) if source.size_bytes else 0.0)

    rows = read_rows(source, interrupt, on_bytes)
    _, header = next(rows, (0, []))
    wanted = ("cosine", "same") if descriptors is None else ("a", "b", "same")
    if not set(wanted) <= set(header):
        found = ", ".join(header) or "nothing"
        more = "; pairs of ids (a, b) need --descriptors" if {"a", "b"} <= set(header) else ""
        raise InputError(f"{source.name}: found the columns {found}, expected {', '.join(wanted)}{more}")
    positions = [header.index(name) for name in wanted]
    pairs = _Pairs(descriptors)
    for number, row in rows:
        where = f"{source.name}:{number}"
        if len(row) != len(header):
            raise InputError(f"{where}: found {len(row)} fields, expected {len(header)}")
        *what, same = [row[position].strip() for position in positions]
        if same not in _SAME:
            raise InputError(f"{where}: same: found {same!r}, expected 0 or 1")
        pairs.add(what, _SAME[same], where)
    pairs.flush()
    return pairs.scores


class _Pairs:
    """Collects rows and counts them block by block."""

    def __init__(self, descriptors: Descriptors | None) -> None:
        self.scores = Scores()
        self._descriptors = descriptors
        self._row_of: dict[str, int] = {}
        if descriptors is not None:
            self._row_of = {object_id: row for row, object_id in enumerate(descriptors.ids)}
            if len(self._row_of) != len(descriptors.ids):
                raise InputError(f"{descriptors.name}: found an id twice, expected each once")
        self._what: list[tuple[float, ...]] = []
        self._same: list[bool] = []

    def add(self, what: list[str], same: bool, where: str) -> None:
        """One pair: its cosine, or its two ids. Raises InputError."""
        found = (_cosine(what[0], where),) if self._descriptors is None else self._rows(what, where)
        self._what.append(found)
        self._same.append(same)
        if len(self._what) == _BLOCK_PAIRS:
            self.flush()

    def flush(self) -> None:
        """Count what was collected."""
        if not self._what:
            return
        same = np.array(self._same, np.bool_)
        columns = np.array(self._what).T
        if self._descriptors is None:
            cosines = columns[0].astype(np.float32)
        else:
            cosines = self._descriptors.cosines(columns[0], columns[1])
        self.scores.add(cosines, same)
        self._what.clear()
        self._same.clear()

    def _rows(self, ids: list[str], where: str) -> tuple[int, ...]:
        for object_id in ids:
            if object_id not in self._row_of:
                assert self._descriptors is not None
                raise InputError(f"{where}: found {object_id!r}, expected an id of {self._descriptors.name}")
        return tuple(self._row_of[object_id] for object_id in ids)


def _cosine(text: str, where: str) -> float:
    try:
        cosine = float(text)
    except ValueError:
        cosine = math.nan
    if not -1 <= cosine <= 1:  # also of NaN
        raise InputError(f"{where}: cosine: found {text!r}, expected a number from -1 to 1")
    return cosine

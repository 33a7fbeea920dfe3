"""Aggregate figures of labelled real faces, from which `benchmarks.face_data` makes faces up.

    python -m benchmarks.face_statistics --data DIR [--write benchmarks/face_statistics.json]

DIR holds labelled faces (`benchmarks.faces`). The file has means and quantiles of them, and no descriptor
can be told from it. Descriptors are scaled to length 1.

between, within  Spectra. A residual is the difference of a descriptor from the mean of its person's n,
                 times sqrt(n / (n - 1)), so that its square has the expectation that it would have around
                 the true person. `within` is the covariance of residuals, `between` that of descriptors
                 over people, one of each, minus `within`; both along the eigenvectors of `between`, the
                 largest first.
residuals        Quantiles of the lengths of residuals, and their correlation within a person: of normal
                 scores, by analysis of variance (Fisher's intraclass correlation).
power_law        Exponent of the photographs per person, by maximum likelihood (Clauset, Shalizi, Newman,
                 "Power-law distributions in empirical data", SIAM Review 51, 2009, with k_min = 1).
strangers, same  Quantiles of cosines of pairs of two people, and of one: made-up faces are checked with
                 them.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize, special

from benchmarks.faces import FaceSet, read_faces

PATH = Path(__file__).with_suffix(".json")
RESIDUAL_QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
COSINE_QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def statistics(faces: FaceSet) -> dict[str, Any]:
    """All figures, see the module."""
    units = faces.vectors.astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    _, first, person, photographs = np.unique(
        faces.people, return_index=True, return_inverse=True, return_counts=True
    )
    means = np.zeros((len(photographs), units.shape[1]))
    np.add.at(means, person, units)
    means /= photographs[:, None]
    several = photographs[person] > 1
    counts = photographs[person][several]
    residuals = (units[several] - means[person[several]]) * np.sqrt(counts / (counts - 1))[:, None]
    within = residuals.T @ residuals / len(residuals)
    between, axes = np.linalg.eigh(np.cov(units[first].T) - within)
    lengths = np.linalg.norm(residuals, axis=1)
    strangers, same = _cosines(units, person)
    return {
        "photographs": len(units),
        "people": len(photographs),
        "dim": units.shape[1],
        "mean_length": _rounded(np.linalg.norm(units[first].mean(axis=0))),
        "power_law": _rounded(_power_law(photographs)),
        "between": _rounded(between[::-1]),
        "within": _rounded(np.diag(axes.T @ within @ axes)[::-1]),
        "residual_quantiles": list(RESIDUAL_QUANTILES),
        "residuals": _rounded(np.quantile(lengths, RESIDUAL_QUANTILES)),
        "residual_correlation": _rounded(_intraclass_correlation(lengths, person[several])),
        "cosine_quantiles": list(COSINE_QUANTILES),
        "strangers": _rounded(np.quantile(strangers, COSINE_QUANTILES)),
        "same": _rounded(np.quantile(same, COSINE_QUANTILES)),
    }


def _rounded(values: Any) -> Any:
    return np.round(values, 5).tolist()


def _power_law(photographs: Ints) -> float:
    def loss(exponent: float) -> float:
        return float(exponent * np.log(photographs).sum() + len(photographs) * np.log(special.zeta(exponent)))

    return float(optimize.minimize_scalar(loss, bounds=(1.1, 5.0), method="bounded").x)


def _intraclass_correlation(values: Floats, person: Ints) -> float:
    """Share of the variance of normal scores that lies between people, unequal numbers of photographs."""
    scores = special.ndtri((values.argsort().argsort() + 0.5) / len(values))
    _, person, counts = np.unique(person, return_inverse=True, return_counts=True)
    means = np.bincount(person, scores) / counts
    groups, total = len(counts), len(scores)
    between = float((counts * (means - scores.mean()) ** 2).sum()) / (groups - 1)
    within = float(((scores - means[person]) ** 2).sum()) / (total - groups)
    typical = (total - float((counts.astype(np.float64) ** 2).sum()) / total) / (groups - 1)
    return (between - within) / (between + (typical - 1) * within)


def _cosines(units: Floats, person: Ints) -> tuple[Floats, Floats]:
    """Cosines of all pairs of two people, and of one."""
    a, b = np.triu_indices(len(units), 1)
    cosines = (units @ units.T)[a, b]
    is_same = person[a] == person[b]
    return cosines[~is_same], cosines[is_same]


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.face_statistics",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of events.jsonl.gz and people.csv")
    parser.add_argument("--source", default="", help="where the faces are from, for the file")
    parser.add_argument("--write", type=Path, help="write the figures as JSON to this file")
    options = parser.parse_args(arguments)
    try:
        found = statistics(read_faces(options.data))
    except (OSError, ValueError) as error:
        print(f"benchmarks.face_statistics: {error}", file=sys.stderr)
        return 2
    text = json.dumps({"command": "make face-statistics", "source": options.source, **found}, indent=1)
    if options.write is None:
        print(text)
    else:
        options.write.write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Cosines of genuine and impostor pairs, as counts in narrow bins: bounded memory for any number of pairs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

BINS_PER_UNIT = 1 << 15
"""Bins are 0.00003 wide. A power of two, so that bounds are exact in float32 and a cosine's bin is too."""
BINS = 2 * BINS_PER_UNIT

Counts = npt.NDArray[np.int64]


def _no_pairs() -> Counts:
    return np.zeros(BINS, np.int64)


@dataclass(slots=True)
class Scores:
    """Counts, int64 of shape (BINS,). Bin k holds cosines above `bounds()[k]` and up to `bounds()[k + 1]`.

    The first bin holds whatever lies at or below its lower bound, -1, too.
    """

    genuine: Counts = field(default_factory=_no_pairs)
    """Pairs of one person."""
    impostor: Counts = field(default_factory=_no_pairs)
    """Pairs of two persons."""

    def add(self, cosines: npt.NDArray[np.floating], same: npt.NDArray[np.bool_]) -> None:
        """Count pairs: their cosines, and whether each is of one person. Both of shape (n,)."""
        # Open below and closed above, because a link is strictly above its threshold.
        bins = np.ceil(cosines.astype(np.float64) * BINS_PER_UNIT).astype(np.int64) + (BINS_PER_UNIT - 1)
        np.clip(bins, 0, BINS - 1, out=bins)
        self.genuine += np.bincount(bins[same], minlength=BINS)
        self.impostor += np.bincount(bins[~same], minlength=BINS)


def bounds() -> npt.NDArray[np.float64]:
    """Bounds of the bins, shape (BINS + 1,), from -1 to 1."""
    return np.arange(BINS + 1) / BINS_PER_UNIT - 1.0


def centres() -> npt.NDArray[np.float64]:
    """Middles of the bins, shape (BINS,)."""
    return bounds()[:-1] + 0.5 / BINS_PER_UNIT

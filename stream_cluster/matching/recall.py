"""What share of the true links an approximate matcher finds: an estimate with its confidence interval.

Links of one query are found or missed together, so that they say less than as many links of different
queries. The interval is Wilson's for a smaller number of independent links, the number that would scatter as
the queries do:

    p       links found / true links, over all queries
    v       sum over queries of (found - p * true)**2 / (sum of true)**2     variance of p, a ratio estimate
    n       p * (1 - p) / v, at most the true links; with nothing missed, the number of queries with links

Source of the interval: E. B. Wilson, Probable inference, the law of succession, and statistical inference,
Journal of the American Statistical Association 22 (1927).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

CONFIDENCE_Z = 1.96
"""Standard deviations on either side: 95%."""


@dataclass(frozen=True, slots=True)
class RecallEstimate:
    """Share of true links that were found, as far as a sample tells."""

    links_true: int
    """Links of the sample. 0: nothing is known, and the interval is [0, 1]."""
    links_found: int
    low: float
    """Lower end of the interval of 95% confidence."""
    high: float
    queries: int = 0
    """Queries of the sample with links."""

    def as_dict(self) -> dict[str, float | int | None]:
        """As JSON values; without a sample nothing is known."""
        return {
            "share": round(self.recall, 6) if self.links_true else None,
            "low": round(self.low, 6),
            "high": round(self.high, 6),
            "links_true": self.links_true,
            "links_found": self.links_found,
        }

    @property
    def recall(self) -> float:
        """Links found / true links; 1 when there were none."""
        return self.links_found / self.links_true if self.links_true else 1.0


def estimate(true: npt.NDArray[np.integer], found: npt.NDArray[np.integer]) -> RecallEstimate:
    """Estimate from true and found links of each query, parallel arrays."""
    counted = true > 0
    n_true, n_found = int(true.sum()), int(found.sum())
    queries = int(counted.sum())
    if n_true == 0:
        return RecallEstimate(0, 0, 0.0, 1.0)
    share = n_found / n_true
    scatter = float(((found - share * true) ** 2).sum()) / n_true**2
    independent = float(queries) if scatter == 0 else min(share * (1 - share) / scatter, float(n_true))
    low, high = wilson(share, max(independent, 1.0))
    return RecallEstimate(n_true, n_found, low, high, queries)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Interval of 95% confidence for a share seen in `count` independent trials."""
    z2 = CONFIDENCE_Z**2
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = CONFIDENCE_Z * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)

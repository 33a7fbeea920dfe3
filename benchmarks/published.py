"""The published figures of the clustering that this product replaces: 5 matcher workers, concurrency 4.

The 2M column is exactly four times the 1M column in its non-zeros: the set of 2M objects is that of 1M twice.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One cell of the published table. Time and memory are upper bounds."""

    memory_gb: float
    seconds: float
    nonzero: int
    """Entries of the similarity matrix above the threshold, each pair twice and the diagonal included."""


THRESHOLDS = (0.5, 0.81, 0.9)

_MIN, _H = 60.0, 3600.0
PUBLISHED: dict[tuple[int, float], Published] = {
    (10_000, 0.5): Published(1, 10, 71_587),
    (10_000, 0.81): Published(1, 10, 64_416),
    (10_000, 0.9): Published(1, 10, 60_354),
    (100_000, 0.5): Published(1, 4 * _MIN, 953_096),
    (100_000, 0.81): Published(1, 3 * _MIN, 648_656),
    (100_000, 0.9): Published(1, 3 * _MIN, 604_842),
    (1_000_000, 0.5): Published(3, 6 * _H, 33_338_128),
    (1_000_000, 0.81): Published(2, 4 * _H, 6_911_916),
    (1_000_000, 0.9): Published(2, 4 * _H, 6_241_064),
    (2_000_000, 0.5): Published(9, 30 * _H, 133_352_512),
    (2_000_000, 0.81): Published(4, 22 * _H, 27_647_664),
    (2_000_000, 0.9): Published(4, 20 * _H, 24_964_256),
}

# Links of each object among n: a + b·n, where a is what people give and b what strangers give. Through the
# published figures of 10K and 1M objects; those of 100K then lie within 0.2 % of it.
_GROWTH = {0.5: (2.94713, 1.32219e-5), 0.81: (2.71842, 2.3753e-7), 0.9: (2.51666, 1.0386e-7)}


def target_nonzero(objects: int, threshold: float) -> float:
    """Non-zeros that data of this size should have: published, or between and beyond by their growth.

    Raises `KeyError` for a threshold that was not published.
    """
    if (objects, threshold) in PUBLISHED:
        return PUBLISHED[objects, threshold].nonzero
    constant, per_object = _GROWTH[threshold]
    return objects * (1 + 2 * (constant + per_object * objects))


def nonzero(objects: int, links: float) -> float:
    """Non-zeros of a symmetric matrix with a full diagonal and that many links."""
    return objects + 2 * links

"""How many examples the long property tests try: a part in each run, all of them where time does not matter.

Hypothesis chooses others each time, so many short runs see more than one long one.
"""

from __future__ import annotations

import os

VARIABLE = "STREAM_CLUSTER_EXAMPLES"
_PART = 4
_LEAST = 25


def examples(every: int) -> int:
    """`every` with `STREAM_CLUSTER_EXAMPLES=all`, as `make test-all` sets it; else a part of it."""
    if os.environ.get(VARIABLE) == "all":
        return every
    return min(every, max(_LEAST, every // _PART))

"""The exact engines that the tests run alike: NumPy, and each path of the kernel that runs here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple
from unittest import mock

from stream_cluster.matching import exact, kernel, numpy_exact
from stream_cluster.matching.protocol import Matcher


class Engine(NamedTuple):
    module: ModuleType
    path: str = ""

    def __str__(self) -> str:
        return self.path or "numpy"

    def matcher(self, dim: int) -> Matcher:
        return exact.ExactMatcher(dim) if self.path else numpy_exact.NumpyMatcher(dim)

    @contextlib.contextmanager
    def use(self, max_hits: int | None = None) -> Iterator[ModuleType]:
        """The module with `scan` and `all_pairs`. `max_hits`: with tiles and chunks of a few hits."""
        with contextlib.ExitStack() as stack:
            if self.path:
                stack.enter_context(mock.patch.dict(os.environ, STREAM_CLUSTER_KERNEL=self.path))
            if max_hits is not None:
                stack.enter_context(mock.patch.object(self.module, "MAX_HITS", max_hits))
                if not self.path:
                    stack.enter_context(mock.patch.multiple(numpy_exact, TILE_ROWS=2, TILE_COLUMNS=3))
            yield self.module


NUMPY = Engine(numpy_exact)
NATIVE = [Engine(exact, path) for path in kernel.available_paths()]
ENGINES = [NUMPY, *NATIVE]

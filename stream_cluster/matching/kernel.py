"""The native kernel, or a clear word about why it is not there."""

from __future__ import annotations

try:
    from stream_cluster.matching import _kernel
except ImportError as missing:
    raise ImportError(
        f"the native matching kernel cannot be loaded ({missing}). It is built when the package is installed:"
        " run `make setup` in a clone, or `pip install .` with a C++17 compiler. On purpose nothing slower "
        "takes its place: the portable path of the kernel runs on every processor."
    ) from missing

PackedRows = _kernel.PackedRows
Run = _kernel.Run
Sketch = _kernel.Sketch
available_paths = _kernel.available_paths
pairs_of_codes = _kernel.pairs_of_codes
pairs_of_packed = _kernel.pairs_of_packed
path_in_use = _kernel.path_in_use
search = _kernel.search

__all__ = [
    "PackedRows",
    "Run",
    "Sketch",
    "available_paths",
    "pairs_of_codes",
    "pairs_of_packed",
    "path_in_use",
    "search",
]

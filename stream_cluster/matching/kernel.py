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

CellRows = _kernel.CellRows
PackedRows = _kernel.PackedRows
Run = _kernel.Run
Sketch = _kernel.Sketch
add_up = _kernel.add_up
available_paths = _kernel.available_paths
best = _kernel.best
nearest = _kernel.nearest
pairs_of_codes = _kernel.pairs_of_codes
pairs_of_packed = _kernel.pairs_of_packed
path_in_use = _kernel.path_in_use
scan_cells = _kernel.scan_cells
search = _kernel.search
search_cells = _kernel.search_cells

__all__ = [
    "CellRows",
    "PackedRows",
    "Run",
    "Sketch",
    "add_up",
    "available_paths",
    "best",
    "nearest",
    "pairs_of_codes",
    "pairs_of_packed",
    "path_in_use",
    "scan_cells",
    "search",
    "search_cells",
]

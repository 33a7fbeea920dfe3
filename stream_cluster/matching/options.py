"""The settings that matching needs."""

from __future__ import annotations

from typing import Protocol


class MatcherSettings(Protocol):
    """The settings `matching.*` that are needed here."""

    @property
    def engine(self) -> str:
        """`auto`, `exact`, `cells` or `hnsw`."""
        ...

    @property
    def cells_after(self) -> int:
        """With `auto`: rows from which on cells are used, unless HNSW is."""
        ...

    @property
    def target_recall(self) -> float:
        """Share of true links that cells have to find."""
        ...

    @property
    def cells_budget_share(self) -> float:
        """Share of the rows that a query should be compared with at most, in cells."""
        ...

    @property
    def cells_sample_share(self) -> float:
        """Comparisons to measure the recall of cells / comparisons to find links."""
        ...

    @property
    def map_codes(self) -> bool:
        """Whether the codes of cells lie in a mapped file."""
        ...

    @property
    def hnsw_after(self) -> int:
        """With `auto`: rows from which on HNSW is used."""
        ...

    @property
    def hnsw_m(self) -> int:
        """Links per node of the graph."""
        ...

    @property
    def hnsw_ef_construction(self) -> int:
        """Candidates kept while a row is put into the graph."""
        ...

    @property
    def hnsw_ef_search(self) -> int:
        """Candidates kept while a query is answered."""
        ...

    @property
    def recall_sample_share(self) -> float:
        """Share of the queries to HNSW that are answered exactly too, in [0, 1]."""
        ...

    @property
    def threads(self) -> int:
        """Threads for matching; 0 means one per core."""
        ...

"""Which objects are similar: descriptors as int8 codes, and matchers that find the pairs above a threshold.

Pure but for the file of the HNSW cache. Every engine reports bit-identical similarities (see `codes`).
"""

from __future__ import annotations

from stream_cluster.matching.codes import encode, quantise
from stream_cluster.matching.exact import all_pairs, scan
from stream_cluster.matching.matcher import RecallSample, SpaceMatcher
from stream_cluster.matching.protocol import Hits, Matcher
from stream_cluster.matching.store import CodeStore
from stream_cluster.matching.threads import limit_threads

__all__ = [
    "CodeStore",
    "Hits",
    "Matcher",
    "RecallSample",
    "SpaceMatcher",
    "all_pairs",
    "encode",
    "limit_threads",
    "quantise",
    "scan",
]

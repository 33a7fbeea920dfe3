"""What the product must answer, computed slowly and plainly from the messages alone."""

from __future__ import annotations

import numpy as np

from stream_cluster.matching import encode
from tests.support.oracle import naive_components, naive_links


def exact_clusters(messages, threshold, *, use_tracks=False):
    """Connected components of the messages' exact similarity graph, as a set of frozensets of ids."""
    if not messages:
        return set()
    codes = encode([np.asarray(message.descriptors[0].vector) for message in messages])
    pairs = [(a, b) for a, b, _ in naive_links(codes, threshold)]
    if use_tracks:
        first = {}
        for position, message in enumerate(messages):
            track = message.metadata.track_id
            if track is not None:
                pairs.append((first.setdefault(track, position), position))
    labels = naive_components(len(messages), pairs)
    groups = {}
    for message, label in zip(messages, labels, strict=True):
        groups.setdefault(label, set()).add(message.object_id)
    return {frozenset(group) for group in groups.values()}

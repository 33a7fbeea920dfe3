"""Figures of clusters in archives, against their definitions computed plainly and in float64."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.config import load_settings
from stream_cluster.matching import quantise
from tests.support.oracle import naive_components, naive_similarity
from tests.support.partitions import directory, message, partition_of, snapshot, vectors


def forest_of(links, count):
    """Of (similarity, a, b) the maximum spanning forest: best first, kept unless it closes a cycle."""
    label, kept = list(range(count)), []
    for similarity, a, b in sorted(links, key=lambda link: (-link[0], link[1], link[2])):
        if label[a] != label[b]:
            old, new = label[a], label[b]
            label = [new if value == old else value for value in label]
            kept.append((similarity, a, b))
    return kept


def sides(tree, removed, count):
    """Members on either side of a link once it is removed."""
    labels = naive_components(count, [(a, b) for number, (_, a, b) in enumerate(tree) if number != removed])
    _, a, b = tree[removed]
    return labels.count(labels[a]), labels.count(labels[b])


def expected_figures(codes, tracks, threshold, margin, least):
    """Cohesion, weakest link and bridges of one cluster, from all pairs of its members."""
    count = len(codes)
    similarity = naive_similarity(codes, codes)
    links = [
        (float(similarity[a, b]), a, b)
        for a in range(count)
        for b in range(a + 1, count)
        if similarity[a, b] > np.float32(threshold)
    ]
    if tracks is not None:
        last = {}
        for number, track in enumerate(tracks):
            if track in last:
                links.append((2.0, last[track], number))
            last[track] = number
    tree = forest_of(links, count)
    weakest = min((link[0] for link in tree if link[0] < 2), default=None)
    close = np.float32(threshold + margin)
    bridges = sum(
        1 for number, link in enumerate(tree) if link[0] <= close and min(sides(tree, number, count)) >= least
    )
    units = codes / np.linalg.norm(codes.astype(np.float64), axis=1, keepdims=True)
    centre = units.mean(axis=0) / np.linalg.norm(units.mean(axis=0))
    return float((units @ centre).mean()), weakest, bridges


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 40),
    people=st.integers(1, 5),
    threshold=st.sampled_from([0.3, 0.5, 0.6, 0.75, 0.9]),
    margin=st.sampled_from([0.0, 0.05, 0.2]),
    least=st.integers(1, 4),
    use_tracks=st.booleans(),
    linkage=st.sampled_from(["components", "average"]),
)
def test_cohesion_weakest_link_and_bridges_are_those_of_their_definitions(
    seed, count, people, threshold, margin, least, use_tracks, linkage
):
    made = vectors(count, people=people, seed=seed)
    tracks = (np.random.default_rng(seed).integers(0, count, count) // 2).tolist()
    codes = quantise(made)
    chaining = load_settings(None, {}, {"chaining.bridge_margin": margin, "chaining.bridge_objects": least})
    with directory() as folder:
        partition = partition_of(
            folder, [message(n, vector, track_id=f"t{tracks[n]}") for n, vector in enumerate(made)]
        )
        archive, _ = snapshot(
            partition,
            folder / "a.zip",
            settings=chaining,
            threshold=threshold,
            use_track_info=use_tracks,
            linkage=linkage,
        )
        partition.close()
        with zipfile.ZipFile(archive) as zipped:
            lines = [json.loads(line) for line in zipped.read("clusters.jsonl").splitlines()]
    assert sum(line["size"] for line in lines) == count
    for line in lines:
        members = sorted(int(object_id[-5:]) for object_id in line["objects"])
        of_tracks = [tracks[number] for number in members] if use_tracks else None
        cohesion, weakest, bridges = expected_figures(codes[members], of_tracks, threshold, margin, least)
        assert line["cohesion"] == pytest.approx(cohesion, abs=2e-6)
        assert line["weakest_link"] == (None if weakest is None else round(weakest, 6))
        assert line["bridges"] == bridges
        assert line["share"] == pytest.approx(len(members) / count, abs=1e-9)

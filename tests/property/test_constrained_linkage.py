"""Objects of low quality and objects that frames keep apart, against a reference that tries all pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stream_cluster.graph import average
from stream_cluster.graph.apart import Apart
from stream_cluster.graph.nearest import NearestGroups
from stream_cluster.matching import quantise
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.snapshot import linkage
from stream_cluster.snapshot.gate import Gate, attach_by_link
from stream_cluster.snapshot.rematch import Matching, Rematch
from stream_cluster.snapshot.selection import select
from tests.support.oracle import constrained_clusters, naive_components, naive_similarity
from tests.support.partitions import NOW_US, directory, message, open_partition, records, vectors

THRESHOLDS = st.sampled_from([-0.3, 0.0, 0.3, 0.5, 0.62, 0.8])
LOW = 0.4


@st.composite
def scenes(draw):
    """Objects of a few people, with frames, tracks and qualities; a list of (vector, metadata, quality)."""
    count = draw(st.integers(2, 40))
    points = vectors(
        count,
        people=draw(st.integers(1, 5)),
        dim=draw(st.sampled_from([4, 16])),
        seed=draw(st.integers(0, 2**32)),
    )
    frames = draw(st.integers(1, 20))
    tracks = draw(st.integers(1, 12))
    some = st.integers(0, 2)
    scene = []
    for point in points:
        metadata = {"source": draw(st.sampled_from(["cam1", "cam2"])) if draw(some) else None}
        metadata["frame_id"] = f"f{draw(st.integers(0, frames))}" if draw(some) else None
        metadata["track_id"] = f"t{draw(st.integers(0, tracks))}" if draw(st.booleans()) else None
        scene.append((point, metadata, draw(st.sampled_from([None, 0.1, LOW, 0.9]))))
    return scene


def as_sets(labels):
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)}


def frame_of(metadata):
    known = metadata["source"] is not None and metadata["frame_id"] is not None
    return (metadata["source"], metadata["frame_id"]) if known else None


def people_of(scene):
    return [metadata["track_id"] or number for number, (_, metadata, _) in enumerate(scene)]


def held(folder, scene):
    partition = open_partition(folder)
    partition.apply(
        records(
            message(number, point, quality=value, **metadata)
            for number, (point, metadata, value) in enumerate(scene)
        )
    )
    return partition


def chosen(view, *, tracks, frames, min_quality):
    (space,) = view.spaces("acme")
    return select(
        view,
        space,
        [],
        with_tracks=tracks,
        interrupt=Interrupt(),
        read_time_us=NOW_US,
        min_quality=min_quality,
        with_frames=frames,
    )


@pytest.fixture(params=["as it is", "rounds", "strongest first", "searched"])
def way(request, monkeypatch):
    """Merges as it is, by rounds alone, where no component is small, or with the kernel for few groups."""
    monkeypatch.setattr(average, "_ROUNDS", {"rounds": 10_000, "as it is": 8}.get(request.param, 1))
    monkeypatch.setattr(average, "_ENOUGH", 0.0 if request.param == "rounds" else 0.1)
    if request.param == "strongest first":
        monkeypatch.setattr(average, "DENSE_GROUPS", 4)
    if request.param == "searched":
        monkeypatch.setattr(linkage, "_SMALL_COMPONENT", 2)


@pytest.mark.usefixtures("way")
def test_constrained_average_linkage_is_that_of_the_reference():
    @settings(deadline=None)
    @given(scenes(), THRESHOLDS, st.sampled_from([2, 30, 10**6]), *[st.booleans()] * 4)
    def check(scene, threshold, capacity, tracks, frames, gated, from_forest):
        low = [n for n, (_, _, value) in enumerate(scene) if gated and value is not None and value < LOW]
        track_of = [metadata["track_id"] for _, metadata, _ in scene]
        expected, prevented, closest = constrained_clusters(
            quantise(np.stack([point for point, _, _ in scene])),
            threshold,
            tracks=track_of if tracks else None,
            frames=[frame_of(metadata) for _, metadata, _ in scene] if frames else None,
            people=people_of(scene),
            low=low,
        )
        assume(closest > 1e-6)
        with directory() as folder:
            partition = held(folder, scene)
            with partition.view() as view:
                selection = chosen(view, tracks=tracks, frames=frames, min_quality=LOW if gated else None)
                assert (np.flatnonzero(selection.low).tolist() if gated else []) == low
                found = linkage.labels_by_average(
                    view,
                    selection,
                    threshold,
                    Gate.of(selection.low, selection.tracks) if low else None,
                    from_forest=from_forest and threshold >= selection.space.floor_cosine,
                    interrupt=Interrupt(),
                    progress=no_progress,
                    capacity=capacity,
                )
            partition.close()
        assert as_sets(found.labels) == expected
        assert found.merges_prevented == prevented
        assert found.labels.max() + 1 == len(expected)
        assert all(len(set(found.components[list(cluster)].tolist())) == 1 for cluster in expected)

    check()


@settings(deadline=None)
@given(scenes(), THRESHOLDS, st.booleans())
def test_components_form_without_low_quality_which_is_attached_by_its_strongest_link(
    scene, threshold, tracks
):
    codes = quantise(np.stack([point for point, _, _ in scene]))
    similarity = naive_similarity(codes, codes)
    low = np.array([value is not None and value < LOW for _, _, value in scene])
    linked = (similarity > np.float32(threshold)) & ~low & ~low[:, None]
    track_of = [metadata["track_id"] for _, metadata, _ in scene]
    if tracks:
        on_one = np.array([[one is not None and one == other for other in track_of] for one in track_of])
        linked |= on_one
    formed = naive_components(len(scene), np.argwhere(linked))
    expected = list(formed)
    for label in set(formed):
        members = [n for n, own in enumerate(formed) if own == label]
        if low[members].all():
            strongest = max(
                ((similarity[n, m], -m) for n in members for m in np.flatnonzero(~low)), default=(-9, 0)
            )
            if strongest[0] > np.float32(threshold):
                for n in members:
                    expected[n] = formed[-strongest[1]]
    with directory() as folder:
        partition = held(folder, scene)
        with partition.view() as view:
            selection = chosen(view, tracks=tracks, frames=False, min_quality=LOW)
            gate = Gate.of(selection.low, selection.tracks)
            held_codes = view.codes(selection.space, selection.rows)
            matching = Matching(
                held_codes, threshold, Rematch(), Interrupt(), no_progress, passing=gate.passing()
            )
            labels = linkage.labels_by_matching(matching, selection, threshold)
            labels = attach_by_link(held_codes, labels, gate, threshold, Interrupt())
        partition.close()
    assert as_sets(labels) == as_sets(np.array(expected))


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 6), st.integers(0, 3)), max_size=40),
    st.integers(2, 6),
)
def test_conflicts_are_those_of_any_two_members(entries, count):
    """Entries of (object, frame, person); groups are remainders, and hold no conflict themselves."""
    group_of = np.arange(10) % count
    kept = []
    for entry in entries:
        others = (one for one in kept if group_of[one[0]] == group_of[entry[0]])
        if all(one[1] != entry[1] or one[2] == entry[2] for one in others):
            kept.append(entry)
    arrays = np.array(kept, np.int64).reshape(-1, 3)
    occupied = Apart(*arrays.T).among(group_of)
    a, b = np.triu_indices(count, 1)
    expected = {
        (int(group_of[x]), int(group_of[y]))
        for x, frame, person in kept
        for y, other_frame, other in kept
        if frame == other_frame and person != other
    }
    assert occupied.conflict(a, b).tolist() == [(x, y) in expected for x, y in zip(a, b, strict=True)]
    listed = {
        pair
        for one, other in occupied.pairs(np.arange(count))
        for pair in zip(one.tolist(), other.tolist(), strict=True)
    }
    assert listed | {(y, x) for x, y in listed} == expected


@given(
    st.dictionaries(st.tuples(st.integers(0, 5), st.integers(0, 9)), st.integers(0, 3), max_size=40),
    st.integers(1, 4),
    st.randoms(),
)
def test_the_nearest_groups_do_not_depend_on_the_order_in_which_candidates_come(found, limit, random):
    expected = []
    for unit in {unit for unit, _ in found}:
        candidates = sorted((-value, unit, group) for (one, group), value in found.items() if one == unit)
        expected += candidates[:limit]
    nearest = NearestGroups(limit)
    shuffled = random.sample(sorted(found.items()), len(found))
    for (unit, group), value in shuffled:
        nearest.add(np.array([unit]), np.array([group]), np.array([value], np.float32))
    units, groups, values = nearest.result()
    assert list(zip((-values).tolist(), units.tolist(), groups.tolist(), strict=True)) == sorted(expected)

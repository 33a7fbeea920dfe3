"""Two archives beside each other, against the definitions taken literally."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_cluster.evaluation.archive import ArchivedCluster, ArchivedClusters
from stream_cluster.evaluation.compare import KINDS, compare
from stream_cluster.evaluation.measures import measure

OBJECTS = 12

# Cluster of each object, None where the object is not in the archive.
labellings = st.lists(st.none() | st.integers(0, 4), min_size=OBJECTS, max_size=OBJECTS).filter(
    lambda labels: any(label is not None for label in labels)
)


def archived(clusters):
    """An archive of these clusters, given as lists of ids."""
    ordered = sorted(clusters, key=lambda ids: (-len(ids), ids))
    lines = [ArchivedCluster(number, ids, ids[0]) for number, ids in enumerate(ordered)]
    numbers = np.repeat([line.cluster for line in lines], [len(line.objects) for line in lines])
    ids = [one for line in lines for one in line.objects]
    return ArchivedClusters(lines, ids, numbers, {}, "acme", "t", None, [])


def archive_of(labels):
    groups = {}
    for number, label in enumerate(labels):
        if label is not None:
            groups.setdefault(label, []).append(f"o{number:02}")
    return archived(list(groups.values()))


def expected(old, new):
    """(kind, old clusters, new clusters) as sets of ids, by the definitions."""
    olds = [frozenset(line.objects) for line in old.lines]
    news = [frozenset(line.objects) for line in new.lines]
    found = []
    for one in news:
        of = [other for other in olds if other & one]
        if not of:
            found.append(("new", (), (one,)))
        elif len(of) > 1:
            found.append(("merged", tuple(sorted(of, key=sorted)), (one,)))
    for one in olds:
        to = [other for other in news if other & one]
        if not to:
            found.append(("gone", (one,), ()))
        elif len(to) > 1:
            found.append(("split", (one,), tuple(sorted(to, key=sorted))))
        elif sum(1 for other in olds if other & to[0]) == 1:
            kind = "unchanged" if to[0] == one else "grown" if to[0] - one else "shrunk"
            found.append((kind, (one,), (to[0],)))
    return Counter(found)


@given(labellings, labellings)
def test_what_became_of_every_cluster_is_what_the_definitions_say(before, after):
    old, new = archive_of(before), archive_of(after)
    found = compare(old, new)
    seen = Counter()
    for change in found.changes:
        olds = [frozenset(old.lines[position].objects) for position in change.old]
        news = [frozenset(new.lines[position].objects) for position in change.new]
        seen[change.kind, tuple(sorted(olds, key=sorted)), tuple(sorted(news, key=sorted))] += 1
        had, has = frozenset().union(*olds), frozenset().union(*news)
        assert (change.gained, change.lost) == (len(has - had), len(had - has))
        assert change.objects == (len(has) or len(had))
    wanted = expected(old, new)
    assert seen == Counter({key: n for key, n in wanted.items() if key[0] != "unchanged"})
    by_kind = Counter()
    for (kind, _, _), count in wanted.items():
        by_kind[kind] += count
    assert dict(found.counts) == {kind: by_kind[kind] for kind in KINDS}
    both = [at for at in range(OBJECTS) if before[at] is not None and after[at] is not None]
    assert (found.objects_old, found.objects_new, found.common) == (len(old.ids), len(new.ids), len(both))
    if both:
        rand = measure([before[at] for at in both], [after[at] for at in both]).adjusted_rand
        assert found.adjusted_rand == pytest.approx(rand)
    else:
        assert found.adjusted_rand is None


def test_changes_come_by_kind_and_the_largest_first():
    old = archived([["a", "b", "c"], ["d", "e"], ["f"], ["g", "h"], ["i"], ["x"]])
    new = archived([["a", "b", "c", "d", "e", "n"], ["g"], ["h"], ["i", "j"], ["k", "l", "m"], ["o"], ["x"]])
    found = compare(old, new)
    kinds = [change.kind for change in found.changes]
    assert kinds == sorted(kinds, key=KINDS.index)
    assert kinds == ["merged", "split", "gone", "new", "new", "grown"]
    merged, split, _, first, second, _ = found.changes
    assert [old.lines[position].id for position in merged.old] == ["a", "d"]
    assert (merged.objects, merged.gained, merged.lost) == (6, 1, 0)
    assert (split.objects, split.gained, split.lost) == (2, 0, 0)
    assert (first.objects, second.objects) == (3, 1)
    assert found.counts["unchanged"] == 1


def test_an_archive_beside_itself_is_unchanged():
    archive = archived([["a", "b"], ["c"]])
    found = compare(archive, archive)
    assert found.changes == []
    assert found.counts["unchanged"] == 2
    assert found.adjusted_rand == 1

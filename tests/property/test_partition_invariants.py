"""The invariants of streaming: order, batching, restarts, repetition, filters, thresholds, accounts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from stream_cluster.config import load_settings
from stream_cluster.messages import Filters
from stream_cluster.state import compaction
from tests.support.examples import examples
from tests.support.partitions import (
    FLOOR,
    apply_in_batches,
    clusters_of,
    directory,
    manifest_of,
    message,
    open_partition,
    records,
    snapshot,
    time_text,
    vectors,
)
from tests.support.reference import exact_clusters

counts = st.integers(1, 40)
seeds = st.integers(0, 9999)
batch_sizes = st.lists(st.integers(1, 15), max_size=6)
above_floor = st.floats(FLOOR, 0.999)
any_threshold = st.one_of(st.sampled_from([-1.0, 0.0, 0.2, FLOOR, 0.9, 1.0]), st.floats(-0.5, 1))
few = settings(max_examples=examples(60), deadline=None)


def objects(count, seed, **options):
    return [message(number, vector, **options) for number, vector in enumerate(vectors(count, seed=seed))]


@few
@given(count=counts, seed=seeds, sizes=batch_sizes, order=st.randoms(), threshold=above_floor)
def test_any_order_and_any_batches_give_the_components_of_the_exact_graph(
    count, seed, sizes, order, threshold
):
    messages = objects(count, seed)
    expected = exact_clusters(messages, threshold)
    order.shuffle(messages)
    with directory() as folder:
        partition = open_partition(folder)
        apply_in_batches(partition, records(messages), sizes)
        archive, result = snapshot(partition, folder / "a.zip", threshold=threshold)
        assert result.method == "forest"
        assert clusters_of(archive) == expected
        partition.close()


@few
@given(count=counts, seed=seeds, sizes=batch_sizes, restarts=st.sets(st.integers(0, 5)))
def test_restarts_between_batches_change_no_byte_of_the_archive(count, seed, sizes, restarts):
    all_records = records(objects(count, seed))
    with directory() as folder:
        (folder / "once").mkdir()
        once = open_partition(folder / "once")
        once.apply(all_records)
        expected, _ = snapshot(once, folder / "once.zip", threshold=0.6)
        once.close()
        (folder / "often").mkdir()
        partition = open_partition(folder / "often")
        begin = 0
        for number, size in enumerate([*sizes, count]):
            if number in restarts:
                partition.close()
                partition = open_partition(folder / "often")
                assert partition.next_offset == min(begin, count)
            if all_records[begin : begin + size]:
                partition.apply(all_records[begin : begin + size])
            begin += size
        archive, _ = snapshot(partition, folder / "often.zip", threshold=0.6)
        assert archive.read_bytes() == expected.read_bytes()
        partition.close()


@few
@given(count=counts, seed=seeds, repeated=st.lists(st.integers(0, 39), max_size=20))
def test_objects_delivered_again_change_nothing_and_are_counted(count, seed, repeated):
    messages = objects(count, seed)
    again = [messages[number % count] for number in repeated]
    with directory() as folder:
        partition = open_partition(folder)
        partition.apply(records(messages))
        before, _ = snapshot(partition, folder / "before.zip", threshold=0.6)
        # The same records: below next_offset. The same objects in new records: known ids.
        same = partition.apply(records(messages))
        assert (same.records, same.accepted) == (0, 0)
        if again:
            outcome = partition.apply(records(again, first_offset=count))
            assert (outcome.accepted, outcome.duplicates) == (0, len(again))
        after, _ = snapshot(partition, folder / "after.zip", threshold=0.6)
        assert clusters_of(after) == clusters_of(before)
        counts = manifest_of(after)["counts"]
        assert counts["objects_received"] == count + len(again) == counts["objects"] + counts["duplicates"]
        partition.close()


@few
@given(
    count=counts,
    seed=seeds,
    threshold=any_threshold,
    begin=st.integers(0, 40),
    length=st.integers(0, 40),
    sources=st.none() | st.sets(st.sampled_from(["cam0", "cam1", "cam2"]), min_size=1),
    use_tracks=st.booleans(),
)
def test_a_filtered_task_gives_the_components_over_the_filtered_objects_only(
    count, seed, threshold, begin, length, sources, use_tracks
):
    messages = [
        message(number, vector, source=f"cam{number % 3}", track_id=f"t{number // 4}" if number % 5 else None)
        for number, vector in enumerate(vectors(count, seed=seed))
    ]
    chosen = [
        one
        for number, one in enumerate(messages)
        if begin <= number < begin + length and (sources is None or one.metadata.source in sources)
    ]
    filters = {"create_time__gte": time_text(begin), "create_time__lt": time_text(begin + length)}
    if sources is not None:
        filters["sources"] = sorted(sources)
    with directory() as folder:
        partition = open_partition(folder)
        partition.apply(records(messages))
        if chosen:
            archive, _ = snapshot(
                partition,
                folder / "a.zip",
                threshold=threshold,
                filters=Filters(**filters),
                use_track_info=use_tracks,
            )
            assert clusters_of(archive) == exact_clusters(chosen, threshold, use_tracks=use_tracks)
            counts = manifest_of(archive)["counts"]
            assert counts["filtered_out"] + counts["selected"] == counts["objects"] == count
            assert counts["selected"] == len(chosen)
        partition.close()


@few
@given(count=counts, seed=seeds, sizes=batch_sizes, threshold=above_floor, use_tracks=st.booleans())
def test_the_forest_and_matching_again_agree(count, seed, sizes, threshold, use_tracks):
    messages = [
        message(number, vector, track_id=f"t{number % 7}")
        for number, vector in enumerate(vectors(count, seed=seed))
    ]
    with directory() as folder:
        archives = []
        for name, floor in (("stream", FLOOR), ("collect", 1.0)):
            (folder / name).mkdir()
            partition = open_partition(folder / name, floor=floor)
            apply_in_batches(partition, records(messages), sizes)
            archive, result = snapshot(
                partition, folder / f"{name}.zip", threshold=threshold, use_track_info=use_tracks
            )
            archives.append((archive, result.method))
            partition.close()
        (streamed, by_forest), (collected, by_matching) = archives
        assert (by_forest, by_matching) == ("forest", "rematch")
        assert clusters_of(streamed) == clusters_of(collected)


@few
@given(seed=seeds, sizes=batch_sizes, threshold=above_floor)
def test_accounts_never_meet(seed, sizes, threshold):
    shared = vectors(12, seed=seed)
    acme = [message(number, vector, account="acme") for number, vector in enumerate(shared)]
    other = [message(number, vector, account="other") for number, vector in enumerate(shared)]
    mixed = [one for pair in zip(acme, other, strict=True) for one in pair]
    with directory() as folder:
        partition = open_partition(folder)
        apply_in_batches(partition, records(mixed), sizes)
        for account, messages in (("acme", acme), ("other", other)):
            archive, _ = snapshot(partition, folder / f"{account}.zip", account=account, threshold=threshold)
            assert clusters_of(archive) == exact_clusters(messages, threshold)
            assert manifest_of(archive)["counts"]["objects_received"] == len(messages)
        partition.close()


@few
@given(count=st.integers(5, 40), seed=seeds, sizes=batch_sizes, threshold=above_floor)
def test_compactions_of_the_forest_change_no_cluster(count, seed, sizes, threshold):
    messages = objects(count, seed)
    least, compaction.MIN_PENDING_LINKS = compaction.MIN_PENDING_LINKS, 2
    try:
        with directory() as folder:
            partition = open_partition(folder)
            apply_in_batches(partition, records(messages), sizes)
            archive, _ = snapshot(partition, folder / "a.zip", threshold=threshold)
            assert clusters_of(archive) == exact_clusters(messages, threshold)
            partition.close()
    finally:
        compaction.MIN_PENDING_LINKS = least


@few
@given(count=st.integers(10, 40), seed=seeds, sizes=batch_sizes)
def test_an_hnsw_space_answers_like_an_exact_one_when_it_is_small(count, seed, sizes):
    messages = objects(count, seed)
    hnsw = load_settings(None, {}, {"matching.engine": "hnsw"})
    with directory() as folder:
        partition = open_partition(folder, settings=hnsw)
        apply_in_batches(partition, records(messages), sizes)
        archive, _ = snapshot(partition, folder / "a.zip", threshold=0.6)
        assert clusters_of(archive) == exact_clusters(messages, 0.6)
        partition.close()

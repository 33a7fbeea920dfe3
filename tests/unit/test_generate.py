from __future__ import annotations

import base64
import struct
import tracemalloc
from collections import Counter

import msgspec
import numpy as np
import pytest

from stream_cluster.errors import InputError
from stream_cluster.generate import FAULTS, GenerateOptions, generate_events
from stream_cluster.generate.hashing import hashed, hashed_directions, hashed_share
from stream_cluster.generate.options import ENCODINGS
from stream_cluster.generate.scene import BLOCK
from stream_cluster.messages.decode import DecodeRules, decode_events
from stream_cluster.messages.objects import ObjectMessage
from stream_cluster.messages.record import RawRecord, Reason

LIMIT_BYTES = 40_000
RULES = DecodeRules(partition_of=lambda _account: 0, max_message_bytes=LIMIT_BYTES, uint8_offset=128)


def decoded(records):
    raw = [
        RawRecord("events", r.partition_offset, i, 0, r.key, r.value, r.content_type)
        for i, r in enumerate(records)
    ]
    return decode_events(raw, RULES)


def generated(**options):
    return list(generate_events(GenerateOptions(**{"dim": 16, **options})))


@pytest.mark.parametrize("message_format", ["json", "msgpack"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_and_format_is_a_valid_message(encoding, message_format):
    records = generated(events=20, encoding=encoding, format=message_format, descriptor="both", version=7)
    for record, message in zip(records, decoded(records), strict=True):
        assert isinstance(message, ObjectMessage), message
        assert message.object_id == record.event_id
        assert message.metadata.create_time_us == record.create_time_us
        assert [(d.type, d.version, len(d.vector)) for d in message.descriptors] == [
            ("face", 7, 16),
            ("body", 7, 16),
        ]


def test_encodings_hold_the_same_vectors():
    float_vectors, *others = [
        [m.descriptors[0].vector.astype(np.float64) for m in decoded(generated(events=5, encoding=encoding))]
        for encoding in ENCODINGS
    ]
    for vectors in others:
        for a, b in zip(float_vectors, vectors, strict=True):
            assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.999


def test_sdk_data_is_the_platforms_raw_form():
    (record,) = generated(events=1, encoding="sdk", version=62)
    data = base64.b64decode(msgspec.json.decode(record.value)["descriptors"][0]["data"])
    assert data[:4] == b"dp\0\0"
    assert struct.unpack("<I", data[4:8]) == (62,)
    assert len(data) == 8 + 16


@pytest.mark.parametrize("message_format", ["json", "msgpack"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_broken_message_is_rejected_with_its_reason(encoding, message_format):
    records = generated(
        events=400, encoding=encoding, format=message_format, bad_share=0.9, too_large_bytes=LIMIT_BYTES
    )
    reasons = Counter(record.expected_reason for record in records)
    assert set(reasons) == {None, *FAULTS}
    for record, result in zip(records, decoded(records), strict=True):
        if record.expected_reason == "wrong_dimension":
            # Only the space knows its dimension.
            assert len(result.descriptors[0].vector) != 16
        elif record.expected_reason is None:
            assert isinstance(result, ObjectMessage)
        else:
            assert result.reason == record.expected_reason, (record.value[:200], result.detail)


def test_faults_are_rejection_reasons():
    assert set(FAULTS) <= {reason.value for reason in Reason}


def test_a_wrong_partition_is_only_marked_on_the_record():
    records = generated(events=300, bad_share=0.5, faults=("wrong_partition",))
    assert {r.partition_offset for r in records} == {0, 1}
    assert all((r.partition_offset == 1) == (r.expected_reason == "wrong_partition") for r in records)


def test_an_accounts_first_message_is_good_even_when_all_are_to_be_broken():
    first = {}
    for record in generated(events=200, accounts=("a", "b", "c"), bad_share=1.0):
        first.setdefault(record.account_id, record)
        assert (record.expected_reason is None) == (first[record.account_id] is record)
    assert set(first) == {"a", "b", "c"}


def test_broken_share_is_as_asked():
    records = generated(events=2000, bad_share=0.1, metadata=False, too_large_bytes=16_384)
    assert 150 <= sum(r.expected_reason is not None for r in records) <= 250


def test_good_messages_do_not_depend_on_the_broken_ones():
    clean = {r.event_id: r for r in generated(events=300)}
    mixed = generated(events=300, bad_share=0.3, too_large_bytes=16_384)
    good = [r for r in mixed if r.expected_reason is None]
    assert 150 < len(good) < 270
    assert all(clean[r.event_id].value == r.value for r in good)


def test_equal_options_give_equal_records_and_another_seed_gives_others():
    assert generated(events=300) == generated(events=300)
    assert {r.event_id for r in generated(events=300)}.isdisjoint(
        r.event_id for r in generated(events=300, seed=2)
    )


def test_a_longer_stream_starts_with_the_same_events():
    long = generated(events=2 * BLOCK + 3, people=50)
    assert long[: BLOCK + 1] == generated(events=BLOCK + 1, people=50)


def peak_bytes(events):
    options = GenerateOptions(events=events, dim=16, people=100, metadata=False)
    tracemalloc.start()
    for _ in generate_events(options):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_events():
    assert peak_bytes(6 * BLOCK) < 1.2 * peak_bytes(2 * BLOCK)


def test_zero_events_are_an_empty_stream():
    assert generated(events=0) == []


def test_ids_are_unique_and_times_ascend():
    records = generated(events=1000, events_per_second=5.0)
    assert len({r.event_id for r in records}) == 1000
    times = [r.create_time_us for r in records]
    assert times[0] == 1_777_615_200_000_000  # 2026-05-01T06:00:00Z
    assert times == sorted(times)
    assert 150 < (times[-1] - times[0]) / 1e6 < 260


def test_a_track_is_one_person_at_one_camera_without_another_in_between():
    records = generated(events=1000, cameras=4, people=100)
    tracks = {}
    for record in records:
        message = msgspec.json.decode(record.value)
        tracks.setdefault(message["source"], []).append((message["track_id"], record.person))
    assert len(tracks) == 4
    lengths = []
    for seen in tracks.values():
        runs = [pair for i, pair in enumerate(seen) if i == 0 or seen[i - 1] != pair]
        assert len({track for track, _ in runs}) == len(runs)
        lengths.append(len(seen) / len(runs))
    assert 2.5 < np.mean(lengths) < 3.5


def test_a_camera_belongs_to_one_account():
    seen = {}
    for record in generated(events=500, cameras=5, accounts=("a", "b")):
        assert record.key == record.account_id.encode()
        assert (
            seen.setdefault(msgspec.json.decode(record.value)["source"], record.account_id)
            == record.account_id
        )
    assert sorted(seen.values()) == ["a", "a", "a", "b", "b"]


def test_some_people_are_seen_very_often_and_many_once_or_never():
    counts = Counter(r.person for r in generated(events=3000, people=1000, track_length=1))
    assert max(counts.values()) > 40
    assert sum(count == 1 for count in counts.values()) > 100
    assert len(counts) < 1000


def test_cosines_are_those_of_a_recogniser():
    records = generated(events=1500, dim=512, people=300, metadata=False)
    vectors = np.stack([m.descriptors[0].vector for m in decoded(records)])
    people = np.array([r.person for r in records])
    upper = np.triu_indices(len(records), 1)
    cosines = (vectors @ vectors.T)[upper]
    same = (people[:, None] == people)[upper]
    assert 0.68 < cosines[same].mean() < 0.72
    assert 0.55 < np.percentile(cosines[same], 1) < np.percentile(cosines[same], 99) < 0.85
    assert abs(cosines[~same].mean()) < 0.01
    assert 0.08 < cosines[~same].std() < 0.12
    assert 0.35 < cosines[~same].max() < 0.55


def test_better_pictures_are_nearer_to_the_person():
    messages = decoded(generated(events=2000, dim=256, people=1, metadata=False))
    quality = np.array([m.descriptors[0].quality for m in messages])
    vectors = np.stack([m.descriptors[0].vector for m in messages])
    centre = vectors.mean(axis=0)
    assert np.corrcoef(quality, vectors @ centre)[0, 1] > 0.5


def test_face_and_body_of_a_person_are_unrelated():
    messages = decoded(generated(events=300, dim=256, people=1, descriptor="both"))
    face, body = (np.mean([m.descriptors[i].vector for m in messages], axis=0) for i in (0, 1))
    assert abs(face @ body) / np.linalg.norm(face) / np.linalg.norm(body) < 0.3


def test_looks_stay_with_the_person_and_places_with_the_camera():
    genders, places = {}, {}
    for record, message in zip(records := generated(events=500), decoded(records), strict=True):
        metadata = message.metadata
        assert genders.setdefault(record.person, metadata.gender) == metadata.gender
        place = (metadata.city, metadata.street, metadata.longitude, metadata.handler_id)
        assert places.setdefault(metadata.source, place) == place
    assert set(genders.values()) == {0, 1}
    assert len(set(places.values())) == len(places) == 8


def test_without_metadata_events_carry_only_what_matching_needs():
    (record,) = generated(events=1, metadata=False)
    message = msgspec.json.decode(record.value)
    assert set(message) == {"event_id", "account_id", "create_time", "source", "track_id", "descriptors"}
    assert set(message["descriptors"][0]) == {"type", "version", "encoding", "data", "quality"}


def test_images_are_named_only_when_asked_for():
    (plain,), (pictured,) = generated(events=1), generated(events=1, with_images=True)
    assert plain.image is None
    assert "image" not in msgspec.json.decode(plain.value)["descriptors"][0]
    assert pictured.image == f"{pictured.event_id}.jpg"
    assert msgspec.json.decode(pictured.value)["descriptors"][0]["image"] == pictured.image


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"events": -1}, "events must be between 0"),
        ({"people": 0}, "people must be between 1"),
        ({"cameras": 0}, "cameras must be between 1"),
        ({"dim": 1}, "dim must be between 2 and 4096, found 1"),
        ({"seed": -1}, "seed must be"),
        ({"version": 2**31}, "version must be"),
        ({"events_per_second": 0}, "events_per_second must be"),
        ({"events_per_second": float("nan")}, "events_per_second must be a number"),
        ({"track_length": 0.5}, "track_length must be"),
        ({"same_person_cosine": 1.0}, "same_person_cosine must be"),
        ({"identity_dim": 1}, "identity_dim must be"),
        ({"bad_share": 1.5}, "bad_share must be"),
        ({"too_large_bytes": 10}, "too_large_bytes must be"),
        ({"descriptor": "hand"}, "descriptor must be one of face, body, both, found 'hand'"),
        ({"encoding": "float64"}, "encoding must be one of"),
        ({"format": "xml"}, "format must be one of json, msgpack"),
        ({"faults": ("late",)}, "faults must be one of"),
        ({"bad_share": 0.1, "faults": ()}, "names no kind"),
        ({"accounts": ()}, "accounts must be"),
        ({"accounts": ("a", "a")}, "accounts must be"),
        ({"accounts": ("a/b",)}, "printable"),
        ({"accounts": ("a", "b"), "cameras": 1}, "2 accounts need at least as many cameras"),
        ({"start_time": "soon"}, "is not an RFC 3339 time"),
        ({"start_time": "2026-05-01T06:00:00"}, "has no offset"),
        ({"start_time": "9999-12-31T00:00:00Z", "events": 10**6}, "after the year 9999"),
    ],
)
def test_a_value_out_of_range_is_an_input_error(options, message):
    with pytest.raises(InputError, match=message):
        GenerateOptions(**options)


def test_hashes_are_uniform_and_streams_independent():
    counters = np.arange(10_000, dtype=np.int64)
    shares = hashed_share(3, "a", counters)
    assert abs(shares.mean() - 0.5) < 0.01
    assert 0 <= shares.min() < shares.max() < 1
    assert abs(np.corrcoef(shares, hashed_share(3, "b", counters))[0, 1]) < 0.05
    assert abs(np.corrcoef(shares, hashed_share(4, "a", counters))[0, 1]) < 0.05
    assert len(np.unique(hashed(3, "a", counters))) == 10_000


def test_hashed_directions_are_isotropic_unit_vectors():
    directions = hashed_directions(1, "x", np.arange(4000, dtype=np.int64), 32)
    assert np.allclose(np.linalg.norm(directions, axis=1), 1, atol=1e-6)
    assert np.abs(directions.mean(axis=0)).max() < 0.02
    assert np.allclose(np.cov(directions.T), np.eye(32) / 32, atol=0.005)

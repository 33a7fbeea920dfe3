from __future__ import annotations

import csv
import gzip
import io
import sys

import msgspec
import numpy as np
import pytest
from PIL import Image

from stream_cluster.errors import InputError
from stream_cluster.generate import GenerateOptions, draw_face, generate_events, write_events

SMALL = GenerateOptions(events=30, dim=16, people=5)


def test_lines_are_the_values_of_the_stream(tmp_path):
    summary = write_events(SMALL, tmp_path / "events.jsonl")
    lines = (tmp_path / "events.jsonl").read_bytes().splitlines()
    assert lines == [record.value for record in generate_events(SMALL)]
    assert (summary.events, summary.rejections, summary.images) == (30, {}, 0)


def test_gzip_by_name_and_byte_identical_when_repeated(tmp_path):
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_events(SMALL, tmp_path / name)
    packed = (tmp_path / "a.jsonl.gz").read_bytes()
    assert gzip.decompress(packed).splitlines() == [record.value for record in generate_events(SMALL)]
    assert packed == (tmp_path / "b.jsonl.gz").read_bytes()


def test_standard_output_when_no_file_is_given(monkeypatch):
    captured = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(captured))
    write_events(SMALL, None)
    assert len(captured.getvalue().splitlines()) == 30


def test_truth_lists_the_good_events_with_their_person(tmp_path):
    options = GenerateOptions(events=200, dim=16, bad_share=0.3, too_large_bytes=16_384)
    summary = write_events(options, tmp_path / "e.jsonl", truth=tmp_path / "truth.csv")
    with (tmp_path / "truth.csv").open(newline="") as rows:
        truth = {row["event_id"]: int(row["person"]) for row in csv.DictReader(rows)}
    assert len(truth) == 200 - sum(summary.rejections.values())
    people = {record.event_id: record.person for record in generate_events(options)}
    assert truth.items() <= people.items()


def test_a_file_has_one_line_per_message_and_no_wrong_partition(tmp_path):
    options = GenerateOptions(events=400, dim=16, bad_share=0.9, too_large_bytes=16_384)
    summary = write_events(options, tmp_path / "e.jsonl")
    assert len((tmp_path / "e.jsonl").read_bytes().split(b"\n")) == 401
    assert "wrong_partition" not in summary.rejections
    assert len(summary.rejections) == 10


def test_images_are_drawn_under_the_names_in_the_messages(tmp_path):
    options = GenerateOptions(events=6, dim=16)
    summary = write_events(options, tmp_path / "e.jsonl", images=tmp_path / "out" / "images")
    lines = (tmp_path / "e.jsonl").read_bytes().splitlines()
    named = {msgspec.json.decode(line)["descriptors"][0]["image"] for line in lines}
    assert {path.name for path in (tmp_path / "out" / "images").iterdir()} == named
    assert summary.images == len(named) == 6


def test_progress_ends_at_one(tmp_path):
    shares = []
    write_events(SMALL, tmp_path / "e.jsonl", progress=lambda stage, share: shares.append((stage, share)))
    assert shares == [("generate", 0.0), ("generate", 1.0)]


def test_a_failure_leaves_no_file_behind(tmp_path):
    def interrupt(stage, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_events(SMALL, tmp_path / "e.jsonl", truth=tmp_path / "t.csv", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_events(SMALL, tmp_path / "missing" / "e.jsonl")


def test_messagepack_has_no_file_form(tmp_path):
    with pytest.raises(InputError, match="JSON lines"):
        write_events(GenerateOptions(format="msgpack"), tmp_path / "e.jsonl")


def pixels(picture):
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"), np.float64)


def test_a_drawn_face_is_a_small_jpeg_and_repeatable():
    picture = draw_face(3, 0, 1)
    image = Image.open(io.BytesIO(picture))
    assert (image.format, image.size) == ("JPEG", (96, 96))
    assert picture == draw_face(3, 0, 1)
    assert picture != draw_face(3, 1, 1)


def test_photographs_of_one_person_look_more_alike_than_those_of_strangers():
    # The middle of the picture is face, not wall.
    middle = [[pixels(draw_face(person, photo, 1))[30:70, 30:66] for photo in (0, 1)] for person in range(6)]
    own = [np.abs(a - b).mean() for a, b in middle]
    strangers = [np.abs(middle[i][0] - middle[j][1]).mean() for i in range(6) for j in range(6) if i != j]
    assert np.median(own) < 0.6 * np.median(strangers)

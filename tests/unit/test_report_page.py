"""report.html without a browser: what it holds, its limits, and that nothing from elsewhere is markup."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import zipfile

import msgspec
import numpy as np
import pytest
from PIL import Image

from stream_cluster.config import Settings, load_settings
from stream_cluster.errors import Cancelled
from stream_cluster.messages import TaskWarning
from stream_cluster.model import Interrupt
from stream_cluster.snapshot.report.charts import Curve, curve_svg, size_rows
from stream_cluster.snapshot.report.text import escaped
from stream_cluster.snapshot.report.words import request_in_words
from tests.support.images import picture
from tests.support.pages import HOSTILE, content_of, manifest_of, sizes_of, write_page
from tests.support.partitions import (
    deletion,
    message,
    open_partition,
    partition_of,
    records,
    snapshot,
    vectors,
)
from tests.support.partitions import (
    manifest_of as manifest_in,
)

AXES = np.eye(8, dtype=np.float32)


def data_of(page: bytes, name: str):
    """A block of the page's data."""
    pattern = rb'<script type="application/json" id="data-%s">(.*?)</script>' % name.encode()
    found = re.search(pattern, page, re.DOTALL)
    return None if found is None else json.loads(found[1])


def page_in(archive):
    with zipfile.ZipFile(archive) as zipped:
        return zipped.read("report.html")


def page_of(tmp_path, content, **settings):
    counts = write_page(tmp_path / "report.html", content, **settings)
    return (tmp_path / "report.html").read_bytes(), counts


def with_photos(tmp_path, photos):
    """A partition of objects with images, and settings that find the images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, data in photos.items():
        (folder / f"{number}.jpg").write_bytes(data)
    partition = open_partition(tmp_path)
    objects = [
        message(number, AXES[number // 2], image=f"{number}.jpg", source="gate") for number in range(6)
    ]
    partition.apply(records(objects))
    settings = load_settings(None, {}, {"images.roots": [{"kind": "directory", "path": str(folder)}]})
    return partition, settings


def test_an_archive_holds_the_page_unless_the_task_or_the_settings_say_otherwise(tmp_path):
    partition = partition_of(tmp_path, [message(number, AXES[number]) for number in range(3)])
    off = load_settings(None, {}, {"page.enabled": False})
    cases = [(Settings(), None, True), (Settings(), False, False), (off, None, False), (off, True, True)]
    for number, (settings, asked, expected) in enumerate(cases):
        archive, _ = snapshot(
            partition,
            tmp_path / f"{number}.zip",
            settings=settings,
            report={"html": asked} and _report(asked),
        )
        with zipfile.ZipFile(archive) as zipped:
            assert ("report.html" in zipped.namelist()) is expected
        assert ("page" in manifest_in(archive)["counts"]) is expected
    partition.close()


def _report(html):
    from stream_cluster.messages import Report  # noqa: PLC0415

    return Report(html=html)


def test_the_same_snapshot_gives_the_same_page_which_lists_what_the_archive_holds(tmp_path):
    objects = [message(number, vector, source=f"cam{number % 3}", track_id=f"t{number // 4}")
               for number, vector in enumerate(vectors(60))]  # fmt: skip
    partition = partition_of(tmp_path, objects)
    first, result = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    again, _ = snapshot(partition, tmp_path / "b.zip", threshold=0.6)
    assert first.read_bytes() == again.read_bytes()
    page = page_in(first)
    with zipfile.ZipFile(first) as zipped:
        clusters = [json.loads(line) for line in zipped.read("clusters.jsonl").splitlines()]
    columns, members = data_of(page, "clusters"), data_of(page, "members-0")
    assert columns["size"] == columns["listed"] == [cluster["size"] for cluster in clusters]
    assert members["id"] == [object_id for cluster in clusters for object_id in cluster["objects"]]
    assert {members["tracks"][number] for number in members["track"]} == {f"t{n}" for n in range(15)}
    facts = data_of(page, "facts")
    assert sorted(facts["sources"]) == ["cam0", "cam1", "cam2"]
    counts = manifest_in(first)["counts"]["page"]
    assert counts == {"clusters": result.clusters, "objects": 60, "thumbnails": 0, "images_undecodable": 0}
    partition.close()


def test_figures_of_clusters_are_those_of_their_definition(tmp_path):
    made = vectors(40, people=4)
    partition = partition_of(tmp_path, [message(number, vector) for number, vector in enumerate(made)])
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    with zipfile.ZipFile(archive) as zipped:
        clusters = [json.loads(line)["objects"] for line in zipped.read("clusters.jsonl").splitlines()]
    columns = data_of(page_in(archive), "clusters")
    central = iter(data_of(page_in(archive), "members-0")["central"])
    for number, ids in enumerate(clusters):
        units = made[[int(object_id[-5:]) for object_id in ids]]
        centre = units.mean(axis=0) / np.linalg.norm(units.mean(axis=0))
        assert columns["cohesion"][number] == pytest.approx((units @ centre).mean() * 10_000, abs=60)
        for cosine in units @ centre:
            assert next(central) == pytest.approx(cosine * 10_000, abs=100)
        if len(ids) == 1:
            assert columns["weakest"][number] is None
            assert columns["a"][number] == columns["b"][number] == -1
            continue
        # The weakest link of a maximum spanning tree is the highest threshold at which nothing falls apart.
        cosines = units @ units.T
        ends = cosines[columns["a"][number], columns["b"][number]]
        assert columns["weakest"][number] == pytest.approx(ends * 10_000, abs=100)
        reached = {0}
        while len(reached) < len(ids):
            outside = [row for row in range(len(ids)) if row not in reached]
            best = max((cosines[a, b], b) for a in reached for b in outside)
            assert best[0] * 10_000 >= columns["weakest"][number] - 100
            reached.add(best[1])
    partition.close()


def test_chaining_is_warned_of_with_the_cluster_and_the_ends_of_its_bridges(tmp_path):
    # Two people of twelve, and one object between them.
    def near(axis, number):
        vector = AXES[axis] + 0.05 * np.roll(AXES[2], number % 4)
        return vector / np.linalg.norm(vector)

    between = (AXES[0] + AXES[1]) / np.sqrt(2)
    made = [near(0, n) for n in range(12)] + [near(1, n) for n in range(12)] + [between]
    partition = partition_of(tmp_path, [message(number, vector) for number, vector in enumerate(made)])
    archive, result = snapshot(partition, tmp_path / "chained.zip", threshold=0.69)
    (warning,) = manifest_in(archive)["warnings"]
    # What a status says is what the manifest says.
    assert [msgspec.to_builtins(TaskWarning(**one)) for one in result.warnings] == [warning]
    assert (warning["code"], warning["cluster"], warning["size"]) == ("large_cluster", 0, 25)
    assert warning["bridges"] == 2
    assert "acme-00024" in warning["objects"]
    assert "acme-00024" in warning["pair"]
    assert f"the weakest is between {warning['pair'][0]} and {warning['pair'][1]}" in warning["message"]
    assert "may be several clusters that chain" in page_in(archive).decode()
    apart, _ = snapshot(partition, tmp_path / "apart.zip", threshold=0.75)
    assert manifest_in(apart)["warnings"] == []
    partition.close()


def test_the_curve_has_the_clusters_of_a_task_at_each_threshold(tmp_path):
    partition = partition_of(tmp_path, [message(n, vector) for n, vector in enumerate(vectors(60))])
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.7)
    curve = data_of(page_in(archive), "curve")
    assert curve["thresholds"][0] == 0.45  # the floor
    chosen = curve["thresholds"].index(0.7)
    assert [curve[name][chosen] for name in ("clusters", "singletons", "largest")] == [
        manifest_in(archive)["counts"][name] for name in ("clusters", "singletons", "largest_cluster")
    ]
    assert curve["thresholds"][-1] == 1
    # Every one of them, as it is: a link of the forest lies at each.
    assert 20 < len(curve["thresholds"]) <= 62
    for index in range(0, len(curve["thresholds"]), 5):
        _, result = snapshot(partition, tmp_path / "b.zip", threshold=curve["thresholds"][index])
        # The page rounds thresholds, so a link may lie between.
        assert abs(result.clusters - curve["clusters"][index]) <= 1
        assert abs(result.largest_cluster - curve["largest"][index]) <= 12
    assert curve["clusters"] == sorted(curve["clusters"])
    assert curve["largest"] == sorted(curve["largest"], reverse=True)
    partition.close()


def test_covers_are_of_the_highest_quality_among_those_with_an_image(tmp_path):
    content = content_of([9, 4, 3], pictures=True)
    page, _ = page_of(tmp_path, content)
    columns, members = data_of(page, "clusters"), data_of(page, "members-0")
    begin = 0
    for cover, listed in zip(columns["cover"], columns["listed"], strict=True):
        rows = range(begin, begin + listed)
        ranks = [
            (members["image"][row] >= 0, members["quality"][row] is not None, members["quality"][row] or 0)
            for row in rows
        ]
        assert ranks[cover] == max(ranks)
        begin += listed


def test_thumbnails_are_small_upright_and_without_metadata_and_broken_images_are_counted(tmp_path):
    broken = bytearray(picture(side=64))
    broken[40:-2] = bytes(len(broken) - 42)
    photos = {number: picture(colour=number, side=300) for number in range(5)} | {5: bytes(broken)}
    partition, settings = with_photos(tmp_path, photos)
    archive, _ = snapshot(partition, tmp_path / "a.zip", settings=settings, threshold=0.6, save_images=True)
    counts = manifest_in(archive)["counts"]
    assert counts["images"]["saved"] in {5, 6}
    assert counts["page"]["thumbnails"] == 5
    assert counts["page"]["images_undecodable"] == counts["images"]["saved"] - 5
    for text in data_of(page_in(archive), "pictures-0"):
        (tmp_path / "t.jpg").write_bytes(base64.b64decode(text))
        with Image.open(tmp_path / "t.jpg") as image:
            assert max(image.size) == 96
            assert not image.getexif()
    partition.close()


def test_each_thumbnail_is_of_the_image_of_its_object(tmp_path):
    partition, settings = with_photos(
        tmp_path, {number: picture(colour=40 * number, side=100 + number) for number in range(6)}
    )
    archive, _ = snapshot(partition, tmp_path / "a.zip", settings=settings, threshold=0.6, save_images=True)
    page = page_in(archive)
    facts, members = data_of(page, "facts"), data_of(page, "members-0")
    assert sorted(facts["pictured"]) == list(range(6))
    for member, text in zip(facts["pictured"], data_of(page, "pictures-0"), strict=True):
        with Image.open(io.BytesIO(base64.b64decode(text))) as image:
            red = image.convert("RGB").getpixel((50, 50))[0]
        assert red == pytest.approx(40 * int(members["id"][member][-5:]), abs=6)
    partition.close()


@pytest.mark.parametrize("limit", [300_000, 600_000])
def test_the_page_never_has_more_bytes_than_it_may(limit, tmp_path):
    for content in (content_of(sizes_of(4000)), content_of(sizes_of(300), pictures=True)):
        page, counts = page_of(tmp_path, content, max_bytes=limit)
        assert len(page) <= limit
        assert counts["clusters"] > 0
        assert len(data_of(page, "clusters")["size"]) == counts["clusters"]


def test_of_a_large_cluster_the_oldest_the_cover_and_the_weakest_pair_are_always_listed(tmp_path):
    content = content_of([400, 3], pictures=True)
    page, _ = page_of(tmp_path, content, cluster_members=5)
    columns, members = data_of(page, "clusters"), data_of(page, "members-0")
    assert 5 <= columns["listed"][0] <= 8
    assert columns["listed"][1] == 3
    shown = content.shown
    assert members["id"][0] == shown.ids[int(shown.clusters.members(0)[0])]
    ends = [members["id"][columns[end][0]] for end in "ab"]
    assert ends == [shown.ids[int(end[0])] for end in (shown.quality.weakest_a, shown.quality.weakest_b)]


def test_hostile_text_is_nowhere_markup(tmp_path):
    page, _ = page_of(tmp_path, content_of([5, 2, 1], pictures=True, hostile=True))
    text = page.decode()
    assert "<script>document" not in text
    assert "<img src=x" not in text
    assert "\u202e" not in re.sub(r'<script type="application/json".*?</script>', "", text, flags=re.DOTALL)
    # As many script elements as the page has blocks of data, and its own.
    assert text.count("<script") == text.count("</script>")
    assert data_of(page, "members-0")["id"][0].startswith(HOSTILE[:200])


def test_the_policy_names_the_hashes_of_the_one_style_and_the_one_script(tmp_path):
    page, _ = page_of(tmp_path, content_of([2]))
    policy = re.search(rb'Content-Security-Policy" content="([^"]*)"', page)[1].decode()
    for pattern in (rb"<style>(.*?)</style>", rb"<script>(.*?)</script>"):
        (found,) = re.findall(pattern, page, re.DOTALL)
        assert base64.b64encode(hashlib.sha256(found).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(rb"(https?:)?//[a-z]", page.replace(b"http://www.w3.org/2000/svg", b""))


def test_the_request_is_said_in_words():
    manifest = manifest_of(content_of([3]).shown.clusters, 3, pictures=False, hostile=False)
    said = re.sub(r"<[^>]*>", "", request_in_words(manifest))
    assert said == (
        "Events with a face descriptor (version 62) of the account acme, only those with source cam7 or cam8 "
        "and age from 18. Two are linked when more similar than 0.52; what links connect is one cluster. "
        "Objects of one track are kept together."
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [("<b>&\"'", "&lt;b&gt;&amp;&quot;&#x27;"), ("a\u202eb\x00", "a\\u202eb\\u0000"), ("é中", "é中")],
)
def test_text_is_escaped_and_unseen_characters_are_shown(text, shown):
    assert escaped(text) == shown


def test_sizes_are_counted_in_classes_that_double():
    rows = re.findall(r"<th scope=row>([^<]*)<td>([^<]*)<td>([^<]*)", size_rows(np.array([9, 4, 3, 2, 1, 1])))
    assert rows == [("1", "2", "2"), ("2", "1", "2"), ("3\u20134", "2", "7"), ("5\u20138", "0", "0"),
                    ("9\u201316", "1", "9")]  # fmt: skip


def test_the_drawing_marks_the_chosen_threshold_and_the_cliff():
    values = np.array([1, 5, 9])
    curve = Curve(np.array([0.4, 0.7, 1.0]), values, values, values[::-1], 9, 0.7, 0.45)
    drawn = curve_svg(curve)
    assert 'class="mark chosen"' in drawn
    assert "cliff 0.45" in drawn
    assert "cliff" not in curve_svg(Curve(curve.thresholds, values, values, values, 9, 0.7, None))


def test_a_page_that_is_being_made_is_cancelled(tmp_path):
    partition = partition_of(tmp_path, [message(number, AXES[number]) for number in range(3)])
    from stream_cluster.messages import Content, TaskRequest  # noqa: PLC0415
    from stream_cluster.snapshot.request import resolve_request  # noqa: PLC0415
    from stream_cluster.snapshot.run import run_snapshot  # noqa: PLC0415
    from tests.support.partitions import NOW_US  # noqa: PLC0415

    task = TaskRequest(task_id="t", account_id="acme", content=Content(objects_type="events"))
    interrupt = Interrupt()

    def progress(stage, share):
        if stage == "page":
            interrupt.cancel()

    with partition.view() as view, pytest.raises(Cancelled):
        run_snapshot(
            view,
            resolve_request(task, Settings(), NOW_US),
            tmp_path / "a.zip",
            interrupt=interrupt,
            progress=progress,
            as_of=None,
        )
    assert not (tmp_path / "a.zip").exists()
    partition.close()


def test_objects_after_a_deletion_are_shown_under_their_own_facts(tmp_path):
    partition = partition_of(tmp_path, [message(n, AXES[n], source=f"cam{n}") for n in range(4)])
    partition.apply(records([deletion("acme-00001")], first_offset=4))
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    page = page_in(archive)
    members, facts = data_of(page, "members-0"), data_of(page, "facts")
    cameras = [facts["sources"][number] for number in members["source"]]
    assert list(zip(members["id"], cameras, strict=True)) == [
        ("acme-00000", "cam0"), ("acme-00002", "cam2"), ("acme-00003", "cam3")
    ]  # fmt: skip
    partition.close()


def test_objects_without_the_descriptor_are_counted_apart(tmp_path):
    faces = [message(number, AXES[number]) for number in range(3)]
    bodies = [message(number, AXES[number], kind="body") for number in (2, 3, 4)]
    partition = partition_of(tmp_path, [*faces, *bodies])
    archive, _ = snapshot(partition, tmp_path / "a.zip", threshold=0.6)
    assert manifest_in(archive)["counts"]["without_descriptor"] == 2
    assert "have no such descriptor<td>2" in page_in(archive).decode()
    partition.close()

"""All images of a snapshot: order, counts, limits, cancel."""

from __future__ import annotations

import random
import threading
import time

import pytest

from stream_cluster.config import ImageSettings
from stream_cluster.config.image_roots import DirectoryRoot, HttpRoot
from stream_cluster.errors import Cancelled, TaskError
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.snapshot.images.faults import ImageFault
from stream_cluster.snapshot.images.save import Wanted, entry_name, save_images
from tests.support.images import later, picture, serving

PICTURE = picture()


def save(wanted, *roots, account_id="acme", interrupt=None, progress=no_progress, **limits):
    """(entries written as [(name, bytes)], counts that are not 0); all counts must reconcile."""
    wanted = list(wanted)
    written = []
    counts = save_images(
        iter(wanted),
        len(wanted),
        lambda name, data: written.append((name, data)),
        ImageSettings(roots=roots, **limits),
        account_id=account_id,
        interrupt=interrupt or Interrupt(),
        progress=progress,
    )
    assert list(counts) == ["wanted", "saved", *(fault.value for fault in ImageFault)]
    assert counts["wanted"] == sum(counts.values()) - counts["wanted"] == len(wanted)
    assert counts["saved"] == len(written)
    return written, {reason: count for reason, count in counts.items() if count}


def numbered(count, suffix=".jpg"):
    return [Wanted(number // 3, f"e{number}", f"{number}{suffix}") for number in range(count)]


@pytest.fixture
def folder(tmp_path):
    for number in range(20):
        (tmp_path / f"{number}.jpg").write_bytes(picture(colour=number))
    return tmp_path


def test_images_are_written_in_the_order_asked_whatever_order_they_come_in():
    delays = random.Random(1)

    def answer(ask):
        time.sleep(delays.random() * 0.02)
        ask.send(picture(colour=int(ask.path[1:-4])))

    with serving(answer) as server:
        root = HttpRoot(url=server.url, allow_private=True)
        written, counts = save(numbered(40), root, concurrency=8)
    assert written == [
        (f"images/{number // 3}/e{number}.jpg", picture(colour=number)) for number in range(40)
    ]
    assert counts == {"wanted": 40, "saved": 40}
    assert 1 < server.most_under_way <= 8


def test_every_reason_is_counted_and_none_ends_the_work(folder, tmp_path):
    (folder / "empty.jpg").touch()
    (folder / "text.jpg").write_text("no image")
    (folder / "large.jpg").write_bytes(bytes(5000))
    (folder / "link.jpg").symlink_to("1.jpg")
    references = ["0.jpg", None, "none.jpg", "empty.jpg", "text.jpg", "large.jpg", "link.jpg", "../x"]
    references += ["1.jpg", "gone/x.jpg", "web/x.jpg", "web/hang.jpg"]
    with serving(lambda ask: ask.hang() if "hang" in ask.path else ask.send(b"", 500)) as server:
        roots = (
            DirectoryRoot(path=str(folder)),
            DirectoryRoot(prefix="gone/", path=str(tmp_path / "gone")),
            HttpRoot(prefix="web/", url=server.url, allow_private=True),
        )
        wanted = [Wanted(0, f"e{number}", reference) for number, reference in enumerate(references)]
        written, counts = save(wanted, *roots, image_max_bytes=1000, image_timeout_s=0.3)
    assert [name for name, _ in written] == ["images/0/e0.jpg", "images/0/e8.jpg"]
    assert counts == {
        "wanted": 12,
        "saved": 2,
        "no_reference": 1,
        "missing": 1,
        "truncated": 1,
        "wrong_type": 1,
        "too_large": 1,
        "refused": 2,
        "unreachable": 2,
        "timeout": 1,
    }


def test_a_reference_without_a_root_is_counted(folder):
    _, counts = save([Wanted(0, "e", "0.jpg")], DirectoryRoot(prefix="cam7/", path=str(folder)))
    assert counts == {"wanted": 1, "no_root": 1}


def test_the_extension_is_that_of_the_content(folder):
    (folder / "lies.exe").write_bytes(picture("webp"))
    written, _ = save([Wanted(4, "e", "lies.exe")], DirectoryRoot(path=str(folder)))
    assert [name for name, _ in written] == ["images/4/e.webp"]


@pytest.mark.parametrize(
    "object_id", ["../../etc/passwd", "..", ".", "a/b", "C:\\x", "a\0b", "é" * 128, ".hidden", "/abs"]
)
def test_any_id_becomes_one_component_of_the_entry_name(object_id):
    _, cluster, name = entry_name(Wanted(7, object_id, None), "jpg").split("/")
    assert (cluster, name.startswith(".")) == ("7", False)
    assert name.isascii()
    assert name.endswith(".jpg")
    assert not {"\\", "\0", ":"}.intersection(name)


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_the_total_bytes_end_the_saving_at_the_same_image_however_many_are_under_way(folder, concurrency):
    wanted = [*numbered(20), Wanted(9, "bare", None)]
    sizes = [len(picture(colour=number)) for number in range(20)]
    written, counts = save(
        wanted, DirectoryRoot(path=str(folder)), concurrency=concurrency, total_max_bytes=sum(sizes[:7])
    )
    assert len(written) == 7
    assert counts == {"wanted": 21, "saved": 7, "no_reference": 1, "over_total_limit": 13}


def test_the_total_seconds_end_the_saving_and_not_the_task():
    began = time.monotonic()
    with serving(lambda ask: ask.hang() if ask.path != "/0.jpg" else ask.send(PICTURE)) as server:
        root = HttpRoot(url=server.url, allow_private=True)
        _, counts = save(numbered(30), root, concurrency=4, total_timeout_s=0.5)
        assert time.monotonic() - began < 2
    assert counts == {"wanted": 30, "saved": 1, "over_total_limit": 29}
    assert len(server.requests) <= 5


def test_no_more_images_are_held_than_may_be_under_way():
    """The first one is late: those behind it wait, and no further ones are asked for."""
    asked = threading.Event()

    def answer(ask):
        if ask.path == "/0.jpg":
            asked.wait(5)
        ask.send(PICTURE)

    with serving(answer) as server:
        late = later(0.4, lambda: (seen.append(len(server.requests)), asked.set()))
        seen = []
        _, counts = save(numbered(30), HttpRoot(url=server.url, allow_private=True), concurrency=4)
        late.join()
    assert seen == [4]
    assert counts == {"wanted": 30, "saved": 30}


def test_a_cancel_is_noticed_within_a_second_while_a_server_is_silent():
    interrupt = Interrupt()
    began = time.monotonic()
    with serving(lambda ask: ask.hang()) as server:
        later(0.2, interrupt.cancel).join()
        with pytest.raises(Cancelled):
            save(numbered(30), HttpRoot(url=server.url, allow_private=True), interrupt=interrupt)
        assert time.monotonic() - began < 1.2


def test_a_cancel_while_waiting_is_noticed_within_a_second():
    interrupt = Interrupt()
    with serving(lambda ask: ask.hang()) as server:
        cancelled_at = []
        thread = later(0.3, lambda: (cancelled_at.append(time.monotonic()), interrupt.cancel()))
        with pytest.raises(Cancelled):
            save(numbered(30), HttpRoot(url=server.url, allow_private=True), interrupt=interrupt)
        assert time.monotonic() - cancelled_at[0] < 1
        thread.join()


def test_a_cancel_does_not_wait_for_a_file_system_that_hangs(folder, monkeypatch):
    interrupt = Interrupt()
    hold = threading.Event()
    monkeypatch.setattr(
        "stream_cluster.snapshot.images.directory.read_below", lambda *_: hold.wait(20) and PICTURE
    )
    thread = later(0.2, interrupt.cancel)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        save(numbered(5), DirectoryRoot(path=str(folder)), interrupt=interrupt)
    assert time.monotonic() - began < 1.2
    hold.set()
    thread.join()


def test_a_passed_deadline_ends_the_work():
    with serving(lambda ask: ask.hang()) as server, pytest.raises(TaskError) as caught:
        save(numbered(5), HttpRoot(url=server.url, allow_private=True), interrupt=Interrupt(deadline_s=0.2))
    assert caught.value.code == "deadline_exceeded"


def test_progress_is_told_as_the_stage_images_and_never_goes_back(folder):
    seen = []
    save(
        [Wanted(0, f"e{number}", "0.jpg") for number in range(300)],
        DirectoryRoot(path=str(folder)),
        progress=lambda stage, share: seen.append((stage, share)),
    )
    assert {stage for stage, _ in seen} == {"images"}
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0, 1)
    assert len(shares) > 4


def test_an_entry_that_cannot_be_written_ends_the_work(folder):
    def full(_name, _data):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        save_images(
            iter(numbered(20)),
            20,
            full,
            ImageSettings(roots=(DirectoryRoot(path=str(folder)),)),
            account_id="acme",
            interrupt=Interrupt(),
            progress=no_progress,
        )


@pytest.mark.parametrize("kind", ["directory", "http"])
def test_a_root_with_a_folder_for_each_account_shows_none_the_images_of_another(tmp_path, kind):
    for account in ("acme", "other"):
        (tmp_path / account).mkdir()
        (tmp_path / account / "0.jpg").write_bytes(picture(colour=len(account)))
    references = ["0.jpg", "../other/0.jpg", "other/0.jpg", "%2e%2e/other/0.jpg"]
    wanted = [Wanted(0, f"e{number}", reference) for number, reference in enumerate(references)]

    def answer(ask):
        path = tmp_path / ask.path[1:]
        ask.send(path.read_bytes()) if path.is_file() else ask.send(b"", 404)

    with serving(answer) as server:
        root = (
            DirectoryRoot(path=str(tmp_path), per_account=True)
            if kind == "directory"
            else HttpRoot(url=server.url, allow_private=True, per_account=True)
        )
        for account in ("acme", "other"):
            written, counts = save(wanted, root, account_id=account)
            assert written == [("images/0/e0.jpg", picture(colour=len(account)))]
            assert counts == {"wanted": 4, "saved": 1, "refused": 2, "missing": 1}
        assert save(wanted[:1], root, account_id="ac%2fme") == ([], {"wanted": 1, "refused": 1})

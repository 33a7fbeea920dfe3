"""References: which root one belongs to, and which are refused."""

from __future__ import annotations

import pytest

from stream_cluster.config.image_roots import DirectoryRoot
from stream_cluster.snapshot.images.faults import NoImage
from stream_cluster.snapshot.images.references import choose_root, parts_of

ROOTS = [
    DirectoryRoot(prefix="cam7/", path="/seven"),
    DirectoryRoot(prefix="cam7/old/", path="/old"),
    DirectoryRoot(prefix="cam8/", path="/eight"),
]


@pytest.mark.parametrize(
    "reference",
    [
        "a.jpg",
        "cam7/2026-05-01/000123.jpg",
        "with space/and (brackets) +&=.png",
        "100%.jpg",
        "a%20b/c.jpg",
        "Площадь/人/é.webp",
        "...jpg",
        "a..b/.hidden",
        "cam:7/x.jpg",
    ],
)
def test_a_relative_path_of_names_is_taken_as_it_stands(reference):
    assert "/".join(parts_of(reference)) == reference


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "/etc/passwd",
        "a//b",
        "a/",
        "..",
        "a/../b",
        "a/./b",
        "a/.../b",
        "a/.. /b",
        "a/..;x/b",
        "a\\b",
        "a\0b",
        "a\nb",
        "http://host/a.jpg",
        "file:///etc/passwd",
        "%2e%2e/a",
        "%2E./a",
        "a%2fb",
        "a%5cb",
        "%252e%252e/a",
        "%25252e%25252e/a",
        "a%00b",
        "a%0db",
        "%c0%ae%c0%ae/a",
        "\uff0e\uff0e/a",
        "\u2025/a",
        "a\uff0fb",
        "a\u2100b",
        "a\u202eb",
        "%EF%BC%8E%EF%BC%8E/a",
        "a\ud800b",
        "%" + "25" * 100 + "2e",
    ],
)
def test_what_could_lead_elsewhere_in_any_reading_is_refused(reference):
    with pytest.raises(NoImage) as caught:
        parts_of(reference)
    assert caught.value.fault.value == "refused"


@pytest.mark.parametrize(
    ("reference", "path", "rest"),
    [
        ("cam7/x.jpg", "/seven", "x.jpg"),
        ("cam7/old/x.jpg", "/old", "x.jpg"),
        ("cam8/a/b", "/eight", "a/b"),
        ("cam7/older/x", "/seven", "older/x"),
        ("other/x", "/all", "other/x"),
        ("cam7", "/all", "cam7"),
    ],
)
def test_the_longest_prefix_chooses_the_root_whatever_their_order(reference, path, rest):
    roots = [DirectoryRoot(path="/all"), *ROOTS]
    for order in (roots, roots[::-1]):
        root, left = choose_root(order, reference)
        assert (root.path, left) == (path, rest)


def test_a_reference_that_no_root_takes_has_none():
    with pytest.raises(NoImage) as caught:
        choose_root(ROOTS, "cam9/x.jpg")
    assert caught.value.fault.value == "no_root"

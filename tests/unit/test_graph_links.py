from __future__ import annotations

import numpy as np
import pytest

from stream_cluster.graph.links import pack_links, unpack_links
from stream_cluster.model import Links, no_links


def test_packed_links_are_the_columns_little_endian_without_a_header():
    links = Links(np.array([1, 2], np.uint32), np.array([258, 3], np.uint32), np.array([0.5, -1], np.float32))
    assert pack_links(links) == bytes.fromhex("01000000 02000000 02010000 03000000 0000003f 000080bf")


def test_unpacking_gives_back_what_was_packed():
    random = np.random.default_rng(1)
    links = Links(
        random.integers(0, 2**31, 999).astype(np.uint32),
        random.integers(2**31, 2**32, 999).astype(np.uint32),
        random.standard_normal(999).astype(np.float32),
    )
    again = unpack_links(pack_links(links))
    assert (again.a.dtype, again.b.dtype, again.similarity.dtype) == (np.uint32, np.uint32, np.float32)
    assert np.array_equal(again.a, links.a)
    assert np.array_equal(again.b, links.b)
    assert np.array_equal(again.similarity, links.similarity)


def test_no_links_pack_to_no_bytes():
    assert pack_links(no_links()) == b""
    assert len(unpack_links(b"")) == 0


@pytest.mark.parametrize("length", [1, 4, 11, 13, 23])
def test_bytes_that_are_no_whole_links_are_refused(length):
    with pytest.raises(ValueError, match=f"found {length} bytes, expected a multiple of 12"):
        unpack_links(bytes(length))

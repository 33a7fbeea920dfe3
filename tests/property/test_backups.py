"""Whatever backups there are: the newest stays, names sort as backups do, and no changed byte is restored."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_cluster.errors import BackupDamaged
from stream_cluster.model import Interrupt, no_progress
from stream_cluster.state.backup import pack
from stream_cluster.state.backup.choose import outdated
from stream_cluster.state.backup.manifest import (
    BackupKey,
    Manifest,
    decode_manifest,
    encode_manifest,
    next_epoch,
    parse_key,
)
from tests.support.partitions import directory

KEYS = st.builds(
    BackupKey, st.integers(0, 9_999_999_999), st.integers(0, 2**63 - 1), st.integers(0, 9_999_999_999_999_999)
)


@given(st.lists(KEYS, unique=True))
def test_names_sort_as_backups_do_and_say_which_they_are(keys):
    assert sorted(key.name for key in keys) == [key.name for key in sorted(keys)]
    assert [parse_key(key.name) for key in keys] == keys


@given(
    st.lists(KEYS, unique=True, min_size=1),
    st.integers(1, 5),
    st.none() | st.integers(1, 10**16),
    st.integers(0, 10**16),
)
def test_the_newest_stays_and_of_the_others_no_more_and_no_older_ones_than_allowed(keys, keep, max_age, now):
    gone = outdated(keys, keep=keep, max_age_us=max_age, now_us=now)
    assert len(set(gone)) == len(gone)
    left = sorted(set(keys) - set(gone), reverse=True)
    assert left[0] == max(keys)
    assert len(left) <= keep
    assert max_age is None or all(now - key.created_us <= max_age for key in left[1:])
    if max_age is None:
        assert left == sorted(keys, reverse=True)[:keep]


@given(st.lists(st.integers(0, 10**9)), st.lists(KEYS), st.integers(0, 10**9))
def test_an_epoch_is_new_and_above_all_others(taken, keys, generation):
    epoch = next_epoch(taken, keys, generation)
    assert epoch >= max(1, generation)
    assert all(epoch > other for other in taken)
    assert all(epoch > key.epoch for key in keys)


def packed(folder: Path, data: bytes) -> tuple[Manifest, list[bytes]]:
    path = folder / "database"
    path.write_bytes(data)
    packer = pack.Packer(path, Interrupt(), no_progress)
    blocks = list(packer)
    made = Manifest(
        topic="t",
        partition=0,
        partitions=1,
        partitioner="murmur2",
        epoch=1,
        next_offset=2,
        created_us=3,
        made_by="0",
        state_format=2,
        offsets=[],
        objects=0,
        fingerprint="",
        database_bytes=len(data),
        database_sha256=packer.database_sha256,
        data=f"{BackupKey(1, 2, 3).name[:-5]}-01234567.zst",
        data_bytes=sum(packer.blocks),
        data_sha256=packer.data_sha256,
        block_bytes=pack.BLOCK_BYTES,
        blocks=packer.blocks,
    )
    return decode_manifest(encode_manifest(made), made.key.name), blocks


class Target(io.BytesIO):
    """Like a file that can be synced."""

    def fileno(self) -> int:
        return 1


def unpacked(made: Manifest, blocks: list[bytes], monkeypatch: pytest.MonkeyPatch) -> bytes:
    target = Target()
    with monkeypatch.context() as patch:
        patch.setattr(pack.os, "fsync", lambda _: None)
        pack.unpack(made, iter(blocks), target, Interrupt(), no_progress)
    return target.getvalue()


@given(st.data(), st.binary(min_size=1, max_size=300))
def test_what_was_packed_comes_back_and_no_changed_byte_does(data, content):
    with pytest.MonkeyPatch.context() as patch, directory() as folder:
        patch.setattr(pack, "BLOCK_BYTES", 64)
        made, blocks = packed(folder, content)
        assert len(blocks) == -(-len(content) // 64)
        assert unpacked(made, blocks, patch) == content
        number = data.draw(st.integers(0, len(blocks) - 1))
        place = data.draw(st.integers(0, len(blocks[number]) - 1))
        harmed = bytearray(blocks[number])
        harmed[place] ^= data.draw(st.integers(1, 255))
        for others in (
            [*blocks[:number], bytes(harmed), *blocks[number + 1 :]],
            blocks[:number],
            [*blocks[:number], blocks[number][:-1], *blocks[number + 1 :]],
        ):
            with pytest.raises(BackupDamaged):
                unpacked(made, others, patch)

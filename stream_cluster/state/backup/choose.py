"""Which backups stay, and whether one is better than what is on the disk. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from stream_cluster.state.backup.manifest import BackupKey

Reason = Literal["empty_disk", "log_gap", "far_behind"]
"""Why a backup is restored: there is no database; the log no longer has what the database needs next; the
backup is so far ahead that reading the log up to it would take longer."""


def newest_first(keys: Iterable[BackupKey]) -> list[BackupKey]:
    """Of several owners, the latest owner's first; of one owner, the furthest first."""
    return sorted(keys, reverse=True)


def outdated(keys: Iterable[BackupKey], *, keep: int, max_age_us: int | None, now_us: int) -> list[BackupKey]:
    """Backups that go: all but the newest `keep`, and of these all but the newest that are too old.

    The newest stays however old it is: it says what the state is, or it would have been replaced.
    """
    ordered = newest_first(keys)
    old = [key for key in ordered[1:keep] if max_age_us is not None and now_us - key.created_us > max_age_us]
    return [*ordered[keep:], *old]


def reason_to_restore(local: int | None, begin: int, end: int, far_behind: int | None) -> Reason | None:
    """Whether to look for a backup.

    Args:
        local: next_offset of the database on the disk; None when there is none, or it has applied nothing.
        begin, end: of the log.
        far_behind: records that a backup has to be ahead to replace a good database; None: however many.
    """
    if local is None:
        return "empty_disk"
    if local < begin:
        return "log_gap"
    # No backup can be ahead of the log.
    if far_behind is not None and end - local >= far_behind:
        return "far_behind"
    return None


def candidates(
    keys: Sequence[BackupKey],
    reason: Reason,
    *,
    local: int | None,
    begin: int,
    end: int,
    far_behind: int | None,
) -> list[BackupKey]:
    """Backups that would help, the best first."""
    ordered = newest_first(keys)
    if reason == "empty_disk":
        # Even one that the log has a gap after, or that is ahead of it: the gap is then found, and named.
        return ordered
    assert local is not None
    within = [key for key in ordered if key.next_offset <= end]
    if reason == "log_gap":
        return [key for key in within if key.next_offset >= begin]
    assert far_behind is not None
    return [key for key in within if key.next_offset >= max(begin, local + far_behind)]

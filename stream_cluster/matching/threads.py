"""How many threads the numeric libraries may use."""

from __future__ import annotations

import os

from threadpoolctl import ThreadpoolController

_limit: int | None = None


def core_count() -> int:
    """Cores that this process may run on, which a container may limit below the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_threads(threads: int) -> int:
    """The setting `matching.threads` as a number of threads: 0 means one per core."""
    if threads < 0:
        raise ValueError(f"threads: found {threads}, expected 0 (all cores) or more")
    return threads or core_count()


def thread_limit() -> int:
    """Threads that the kernel may use for one search: what `limit_threads` set, or else one per core."""
    return _limit or core_count()


def limit_threads(threads: int) -> int:
    """Let the kernel and the BLAS library use this many threads, 0 for one per core; return the number.

    Holds for the whole process until called again: BLAS has one thread pool, so a limit that came and
    went with each search would race with every other thread that matches.
    """
    global _limit  # noqa: PLW0603 - it mirrors a setting of the process
    count = resolve_threads(threads)
    if count != _limit:  # looking for the libraries takes milliseconds
        ThreadpoolController().limit(limits=count, user_api="blas")
        _limit = count
    return count

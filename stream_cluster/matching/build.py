"""A graph or cells that are made in a background thread while exact matching goes on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


def end_with_process(owner: object, stop: threading.Event, thread: threading.Thread) -> None:
    """Let the end of the process stop a thread that `owner` started, and wait for it.

    The interpreter cuts daemon threads off wherever they are: in the midst of native code, whose own threads
    then use what is destroyed already.
    """
    weakref.finalize(owner, _end, stop, thread)


def _end(stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    if thread is not threading.current_thread():
        thread.join()


class IndexBuild(Generic[_T]):
    """Runs `make` in a thread; whoever started it asks for the result when `done`.

    Until then the thread alone touches the matcher that it makes.
    """

    def __init__(self, make: Callable[[Callable[[], bool]], _T]) -> None:
        """Start. `make` is given a function that says when to stop early, and returns the matcher."""
        self._make = make
        self._stop = threading.Event()
        self._matcher: _T | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="index-build", daemon=True)
        self._thread.start()
        end_with_process(self, self._stop, self._thread)

    @property
    def done(self) -> bool:
        """True once `result` does not wait."""
        return not self._thread.is_alive()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False if it did not come in time."""
        self._thread.join(timeout_s)
        return self.done

    def stop(self) -> None:
        """Ask the thread to end, and wait for it: at most as long as one chunk of rows takes."""
        self._stop.set()
        self._thread.join()

    def result(self) -> _T:
        """The matcher that was made.

        Raises:
            Exception: whatever the build ended with.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._matcher is not None, "the thread ends with a matcher or an error"
        return self._matcher

    def _run(self) -> None:
        try:
            self._matcher = self._make(self._stop.is_set)
        except Exception as error:
            # Also MemoryError: the build is optional, its failure is handed to whoever asks.
            self._error = error

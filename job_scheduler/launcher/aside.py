"""A thread for what calls the program's own code: its log handlers.

They may be slow, may wait for a lock, may call ``run()``. The threads that listen to the
zygote must never wait for any of that, and nothing is logged while a lock of ours is held.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class _Aside:
    """Does one thing after the other, in the order in which they came."""

    def __init__(self) -> None:
        self._todo: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._lock = threading.RLock()  # a signal handler may come here too
        self._thread: threading.Thread | None = None

    def do(self, action: Callable[[], object]) -> None:
        """Have it done soon; at once if there is no thread for it."""
        self._todo.put(action)
        if not self._has_thread():
            with contextlib.suppress(queue.Empty):
                while True:
                    _try(self._todo.get_nowait())

    def _has_thread(self) -> bool:
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._work, name="job_scheduler log", daemon=True)
                with contextlib.suppress(RuntimeError):  # the system has none: the next time
                    thread.start()
                    self._thread = thread
            return self._thread is not None

    def _work(self) -> None:
        while True:
            _try(self._todo.get())

    def finish(self, timeout: float) -> None:
        """Wait until all that was asked for so far is done, for ``timeout`` seconds at most."""
        if self._thread is not None and self._thread is not threading.current_thread():
            done = threading.Event()
            self.do(done.set)
            done.wait(timeout)


def _try(action: Callable[[], object]) -> None:
    try:
        action()
    except BaseException:  # whatever a handler raises, the next thing is to be done too
        traceback.print_exc()


_aside = _Aside()


def do_aside(action: Callable[[], object]) -> None:
    """Have something done in a thread where it may take its time."""
    _aside.do(action)


def finish_aside(timeout: float) -> None:
    """Wait until that is done, for ``timeout`` seconds at most."""
    _aside.finish(timeout)


def _start_anew() -> None:
    global _aside
    _aside = _Aside()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)

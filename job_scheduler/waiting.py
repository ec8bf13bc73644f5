"""Waiting until a program is told to end."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType


class _ToldToEndError(BaseException):
    """SIGTERM has come."""


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _ToldToEndError


def wait_for_the_end(ended: threading.Event, shutdown: Callable[..., None]) -> None:
    """Block until ``ended`` is set, or the program gets SIGINT or SIGTERM; then shut down.

    The first signal has running jobs waited for, the second stops them. Signals reach the main
    thread only; elsewhere it waits for the event alone. A handler that the program has set for
    SIGTERM is left in place.
    """
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    )
    if ours:
        signal.signal(signal.SIGTERM, _end)
    try:
        with contextlib.suppress(KeyboardInterrupt, _ToldToEndError):
            ended.wait()
        try:
            shutdown()
        except (KeyboardInterrupt, _ToldToEndError):
            shutdown(timeout=0)
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

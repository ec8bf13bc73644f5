"""Waiting until a program is told to end."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    Handler = signal.Handlers | Callable[[int, FrameType | None], object]


class _ToldToEndError(BaseException):
    """SIGTERM has come."""


def _end(_number: int, _frame: FrameType | None) -> None:
    raise _ToldToEndError


def wait_for_the_end(ended: threading.Event, shutdown: Callable[..., None]) -> None:
    """Block until ``ended`` is set, or the program gets SIGINT or SIGTERM; then shut down.

    The first signal has running jobs waited for, the second stops them, and further ones are
    ignored until that is done. Signals reach the main thread only; elsewhere it waits for the
    event alone. Handlers that the program has set are left in place.
    """
    with contextlib.ExitStack() as signals:
        _handle(signals, signal.SIGTERM, signal.SIG_DFL, _end)
        with contextlib.suppress(KeyboardInterrupt, _ToldToEndError):
            ended.wait()
        try:
            shutdown()
        except (KeyboardInterrupt, _ToldToEndError):
            _handle(signals, signal.SIGINT, signal.default_int_handler, signal.SIG_IGN)
            _handle(signals, signal.SIGTERM, _end, signal.SIG_IGN)
            shutdown(timeout=0)


def _handle(
    until: contextlib.ExitStack, number: signal.Signals, before: Handler, handler: Handler
) -> None:
    """Set a signal's handler for a while; not in other threads, nor in place of the program's."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(number) is before:
        until.callback(signal.signal, number, before)
        signal.signal(number, handler)


def refuse_in_an_event_loop(what: str) -> None:
    """Raise ``RuntimeError`` if this thread runs an asyncio loop, which would stand still."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"{what} would stop the event loop that it is called on, also for Ctrl-C: call it "
            f"outside of async functions, or 'await asyncio.to_thread(...)' it"
        )

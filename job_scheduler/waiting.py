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


class _ToldToEndError(BaseException):
    """SIGTERM or SIGINT has come."""


class _Ends:
    """Counts how often the program was told to end, and interrupts it where that is wanted."""

    def __init__(self) -> None:
        self.told = 0
        self._interrupts = False

    def handle(self, _number: int, _frame: FrameType | None) -> None:
        """A handler of signals; they may come at any time, also while one is handled."""
        self.told += 1
        if self._interrupts:
            self._interrupts = False  # what is being left is not to be interrupted again
            raise _ToldToEndError

    def call(self, to_be_left: Callable[[], object], told: int) -> None:
        """Call this, and leave it once the program was told more often than so many times.

        ``KeyboardInterrupt`` comes of a handler that the program has set.
        """
        try:
            self._interrupts = True
            if self.told == told:
                to_be_left()
            self._interrupts = False
        except KeyboardInterrupt:
            self._interrupts = False
            self.told += 1
        except _ToldToEndError:
            pass


def wait_for_the_end(ended: threading.Event, shutdown: Callable[..., None]) -> None:
    """Block until ``ended`` is set, or the program gets SIGINT or SIGTERM; then shut down.

    The first signal has running jobs waited for, the second stops them, and further ones are
    ignored until that is done. Signals reach the main thread only; elsewhere it waits for the
    event alone. Handlers that the program has set are left in place.
    """
    ends = _Ends()
    with contextlib.ExitStack() as signals:
        _handle(signals, signal.SIGTERM, signal.SIG_DFL, ends)
        _handle(signals, signal.SIGINT, signal.default_int_handler, ends)
        ends.call(ended.wait, told=0)
        told = min(ends.told, 1)
        ends.call(shutdown, told=told)
        if ends.told > told:
            shutdown(timeout=0)


def _handle(
    until: contextlib.ExitStack,
    number: signal.Signals,
    before: signal.Handlers | Callable[[int, FrameType | None], object],
    ends: _Ends,
) -> None:
    """Handle a signal for a while; not in other threads, nor in place of the program's handler."""
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and signal.getsignal(number) is before:
        until.callback(signal.signal, number, before)
        signal.signal(number, ends.handle)


def refuse_in_an_event_loop(what: str) -> None:
    """Raise ``RuntimeError`` if this thread runs an asyncio loop, which would stand still."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        raise RuntimeError(
            f"{what} would stop the event loop that it is called on, also for Ctrl-C: call it "
            f"outside of async functions, or 'await asyncio.to_thread(...)' it"
        )

"""The parents: each makes this process what it shall be and returns what has to stay alive."""

from __future__ import annotations

import gc
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HEAVY_OBJECTS = 800_000  # about 300 MB
_LIGHT_THREADS = 8
_LIGHT_PAUSE = 0.01


def bare() -> object:
    """A program that has imported nothing but the peer."""
    return None


def heavy() -> object:
    """A web process: flask, and a heap of small objects."""
    import flask

    gc.disable()
    objects = [{"id": i, "name": f"name {i}", "at": (i * 0.5, i)} for i in range(_HEAVY_OBJECTS)]
    gc.enable()
    return flask, objects


def threads() -> object:
    """The same with threads that wake often and do next to nothing."""
    kept_alive = heavy()
    for _ in range(_LIGHT_THREADS):
        _start_thread(_doze)
    return kept_alive


def hog() -> object:
    """The same beside a thread that never lets go of the interpreter by itself."""
    kept_alive = heavy()
    _start_thread(_hog)
    return kept_alive


PARENTS = {parent.__name__: parent for parent in (bare, heavy, threads, hog)}
TITLES = {
    "bare": "bare parent",
    "heavy": "heavy parent",
    "threads": "heavy, 8 light threads",
    "hog": "heavy, beside a GIL hog",
}
NEEDS = {"bare": (), "heavy": ("flask",), "threads": ("flask",), "hog": ("flask",)}
"""Parent -> what has to be installed."""


def _start_thread(function: Callable[[], None]) -> None:
    import threading

    threading.Thread(target=function, daemon=True).start()


def _doze() -> None:
    wakings = 0
    while True:
        time.sleep(_LIGHT_PAUSE)
        wakings += 1


def _hog() -> None:
    turns = 0
    while True:
        turns += 1

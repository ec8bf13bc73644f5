"""Sending a packet without giving up the interpreter's lock.

``socket.send`` releases the lock around the system call, and a thread that computes beside it
takes it, for 5 ms by default. A send that cannot block has no need to: it takes some
microseconds. So the C library's ``send`` is called by way of ``ctypes``, which can keep the
lock; where that is not possible, nothing is sent and the caller does it the usual way.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_FLAGS: Final = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)


def send_keeping_gil(descriptor: int, packet: bytes) -> bool:
    """Send a packet if that is possible at once; False if it was not sent, for whatever reason."""
    return _send is not None and _send(descriptor, packet, len(packet), _FLAGS) == len(packet)


def _find_send() -> Callable[[int, bytes, int, int], int] | None:
    try:
        import ctypes

        send: Any = ctypes.PyDLL(None).send
        send.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int)
        send.restype = ctypes.c_ssize_t
    except Exception:  # no ctypes, no such function: each platform has its own way to say so
        return None
    return send  # type: ignore[no-any-return]


_send = _find_send()

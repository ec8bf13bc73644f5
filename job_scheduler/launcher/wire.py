"""The messages between a program, its zygote and the zygote's children.

A message is one packet on a Unix SOCK_SEQPACKET socket: a marshalled tuple ``(kind, ...,
payload)``. Packets are sent whole or not at all, so any thread and any child may send without
a lock, and a sender killed half-way leaves nothing half-sent. A payload above ``INLINE_LIMIT``
is attached: it travels as a memory file whose descriptor goes with the packet. Whoever asks for
something numbers the request, and the answer has the same number.

Values (arguments, results) are ``marshal`` where that is exact, which spares the zygote the
import of ``pickle``, and pickles otherwise. Both ends are the same interpreter, a requirement
of ``marshal``.
"""

from __future__ import annotations

import _socket
import marshal
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Requests, from the program to the zygote.
LOAD = 1  # number, class_id, module, qualname, max_running, memory_limit, main
RUN = 2  # run_id, class_id, name, timeout, payload: arguments
STOP = 3  # run_id: cancel it, waiting or running
SIGNAL = 4  # run_id, signal number: for the process alone, as os.kill
CLOSE = 5  # no more requests will come; finish what was accepted
HAND_BACK = 6  # give the waiting runs back, they are started elsewhere
LOAD_MAIN = 7  # number, main: import the program's main module

# Reports, from the zygote and its children to the program.
BOOTED = 10  # pid of the zygote
READY = 11  # number of Python threads in the zygote
BROKEN = 12  # payload: why the zygote could not be prepared
LOADED = 13  # number of the request, number of Python threads in the zygote
REFUSED = 14  # number of the request, payload: why the import failed
STARTED = 15  # run_id, time, pid: sent by the child before any code of the user's; no payload
RESULT = 16  # run_id, payload: the return value
FAILURE = 17  # run_id, type, payload: message, traceback and names of base classes
ENDED = 18  # run_id, wait status or None, reason, peak kB, CPU s, time, payload: stderr's tail
HANDED_BACK = 19  # whether these are all, payload: ids of runs that will not start here

# Reasons in ENDED, when it was not the job that decided.
CANCELLED = "cancelled"
TIMEOUT = "timeout"
NO_PROCESS = "no process"
UNSEEN = "unseen"

INLINE_LIMIT = 32 * 1024
"""Bytes of payload above which it travels as a memory file."""

REPORT_LIMIT = 80 * 1024
"""Bytes of payload in a report of the zygote's own, which never travels as a memory file."""

_PACKET_LIMIT = REPORT_LIMIT + 16 * 1024
_FD_SIZE = 4

_MARSHAL = b"m"
_PICKLE = b"p"
_ATOMS = frozenset({type(None), bool, int, float, str, bytes})
_CONTAINERS = frozenset({dict, list, tuple})
_MOST_NODES = 500


def encode(value: Any) -> bytes:
    """Turn a value into bytes; raises what ``pickle`` raises for one that cannot be sent."""
    if _is_plain(value):
        return _MARSHAL + marshal.dumps(value)
    import pickle

    return _PICKLE + pickle.dumps(value, protocol=5)


def decode(data: bytes) -> Any:
    """Turn the bytes of :func:`encode` into the value again."""
    body = memoryview(data)[1:]
    if data[:1] == _MARSHAL:
        return marshal.loads(body)
    import pickle

    return pickle.loads(body)


def decode_ahead(data: bytes | None) -> Any:
    """The value, if decoding it runs no code of the user's; else None."""
    return marshal.loads(data[1:]) if data is not None and data[:1] == _MARSHAL else None


def refers_to_main(data: bytes) -> bool:
    """Whether decoding these bytes needs the program's main module."""
    if data[:1] != _PICKLE or b"__main__" not in data:
        return False
    return "__main__" in _modules_in(data[1:])


def _modules_in(pickled: bytes) -> set[str]:
    """The modules that a pickle of protocol 5 refers to: each is pushed before a STACK_GLOBAL."""
    from pickletools import genops

    modules: set[str] = set()
    memo: list[Any] = []
    before_last: Any = None
    last: Any = None
    operations: Any = genops(pickled)
    for operation, value, _ in operations:
        if operation.name == "MEMOIZE":
            memo.append(last)
        elif operation.name in ("BINGET", "LONG_BINGET"):
            before_last, last = last, memo[value]
        elif operation.name == "STACK_GLOBAL":
            modules.add(before_last)
            last = None
        else:
            before_last, last = last, value
    return modules


def _is_plain(value: Any) -> bool:
    """Whether marshal gives back exactly this value.

    It would also take what it then changes (a ``bytearray`` becomes ``bytes``), so the types
    are looked at here. A large or a circular value is left to pickle.
    """
    todo = [value]
    seen = 0
    for item in todo:
        kind = type(item)
        if kind in _ATOMS:
            continue
        if kind not in _CONTAINERS:
            return False
        seen += 1 + len(item)
        if seen > _MOST_NODES:
            return False
        todo += item
        if kind is dict:
            todo += item.values()
    return True


def pack(*header: Any, payload: bytes = b"") -> tuple[bytes, bytes | None]:
    """Make a packet, and what is too large for it and has to travel beside it."""
    if len(payload) <= INLINE_LIMIT:
        return marshal.dumps((*header, payload)), None
    return marshal.dumps((*header, None)), payload


def announcement(run_id: str, at: float) -> bytes:
    """STARTED but for the sender's pid, which the child adds as its last four bytes.

    ``marshal`` writes an integer so, little-endian; the rest is made before the fork, where it
    costs less.
    """
    return marshal.dumps((STARTED, run_id, at, 0), 2)[:-4]


def send(
    socket: _socket.socket, packet: bytes, attachment: bytes | None = None, flags: int = 0
) -> None:
    """Send one packet whole; raises ``OSError`` and then has sent nothing."""
    if attachment is None:
        socket.send(packet, flags)
        return
    memory_file = os.memfd_create("job_scheduler")
    try:
        view = memoryview(attachment)
        while view:
            view = view[os.write(memory_file, view) :]
        pass_on(socket, packet, memory_file, flags)
    finally:
        os.close(memory_file)


def pass_on(socket: _socket.socket, packet: bytes, memory_file: int | None, flags: int = 0) -> None:
    """Send one packet, with the memory file that has come with it."""
    if memory_file is None or memory_file < 0:
        socket.send(packet, flags)
    else:
        rights = memory_file.to_bytes(_FD_SIZE, sys.byteorder)
        socket.sendmsg([packet], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)], flags)


def receive(socket: _socket.socket, *, wait: bool = False) -> tuple[Any, int | None] | None:
    """Take the next packet, if one is there: its tuple and its memory file.

    None at the end of the stream; ``BlockingIOError`` if nothing waits and ``wait`` is not set.
    The memory file of a packet is -1 when it was sent but this process had no descriptor free.
    """
    how = _socket.MSG_CMSG_CLOEXEC | (0 if wait else _socket.MSG_DONTWAIT)
    packet, ancillary, flags, _ = socket.recvmsg(_PACKET_LIMIT, _socket.CMSG_SPACE(_FD_SIZE), how)
    if not packet:
        return None
    if ancillary:
        return marshal.loads(packet), int.from_bytes(ancillary[0][2][:_FD_SIZE], sys.byteorder)
    return marshal.loads(packet), -1 if flags & _socket.MSG_CTRUNC else None


def take_payload(inline: bytes | None, memory_file: int | None) -> bytes:
    """The payload of a packet, read from its memory file if it was attached; closes that."""
    if inline is not None:
        return inline
    if memory_file is None or memory_file < 0:
        raise OSError("no file descriptor was free to receive a large value")
    try:
        size = os.fstat(memory_file).st_size
        parts = []
        position = 0
        while position < size:
            part = os.pread(memory_file, size - position, position)
            parts.append(part)
            position += len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)
    finally:
        os.close(memory_file)

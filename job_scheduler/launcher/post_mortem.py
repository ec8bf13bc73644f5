"""What probably ended a process that a signal killed, in words, from the little that is known."""

from __future__ import annotations

import contextlib
import signal
from typing import Final

_CAUSES: Final = {
    "SIGSEGV": "a fault in native code; the end of its stderr has the traceback",
    "SIGBUS": "memory that could not be had, as on a full /dev/shm or in a file cut short; the "
    "end of its stderr has the traceback",
    "SIGFPE": "an arithmetic fault in native code; the end of its stderr has the traceback",
    "SIGILL": "native code made for another processor; the end of its stderr has the traceback",
    "SIGABRT": "native code that gave up (abort); the end of its stderr has the traceback",
    "SIGXCPU": "its limit of processor time (RLIMIT_CPU)",
    "SIGPIPE": "writing to a pipe that nobody reads",
    "SIGALRM": "an alarm that it had set and did not handle",
    "SIGHUP": "the end of a terminal or session",
    "SIGSYS": "a system call that is not allowed (seccomp)",
    "SIGXFSZ": "its limit of file size (RLIMIT_FSIZE)",
}


def describe_death(
    number: int,
    *,
    sent: int | None = None,
    out_of_memory: bool = False,
    peak_memory: int | None = None,
    cpu_time: float | None = None,
) -> str:
    """One sentence: the signal, what was used, and the likely cause.

    Args:
        number: the signal that ended the process.
        sent: the last signal that this program has sent it, if any.
        out_of_memory: whether the kernel has killed something for memory meanwhile.
        peak_memory: in bytes.
        cpu_time: in seconds.
    """
    name = name_of_signal(number)
    used = []
    if peak_memory:
        used.append(f"{readable_size(peak_memory)} peak")
    if cpu_time is not None:
        used.append(f"{cpu_time:.1f} s of processor time")
    return ", ".join([f"killed by {name}", *used, _cause(name, sent == number, out_of_memory)])


def _cause(name: str, sent_by_us: bool, out_of_memory: bool) -> str:
    if sent_by_us:
        return "sent by this program"
    if name == "SIGKILL" and out_of_memory:
        return "probably the kernel's out-of-memory killer"
    if name in ("SIGKILL", "SIGTERM", "SIGINT"):
        return "sent by itself or by something else than this scheduler"
    return f"probably {_CAUSES[name]}" if name in _CAUSES else "cause unknown"


def name_of_signal(number: int) -> str:
    """``SIGKILL`` for 9; signals without a name are numbered."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def readable_size(size: int) -> str:
    """Bytes as people write them, in decimal units."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.1f} {name}"
    return f"{size} bytes"


class OutOfMemoryWatch:
    """Tells whether the kernel has killed something for memory lately.

    Its counter is that of this program's control group, else that of the whole system; where
    neither can be read, the answer is always no.
    """

    def __init__(self) -> None:
        paths = (_events_of_control_group(), "/proc/vmstat")
        self._path = next((path for path in paths if _count_kills(path) is not None), "")
        self._known = _count_kills(self._path) or 0
        self._looked_at = 0.0

    def look(self, at: float) -> None:
        """Forget what was before, at the start of a job; ``at`` is its time, in seconds."""
        if abs(at - self._looked_at) >= 1:
            self._looked_at = at
            self._known = _count_kills(self._path) or 0

    def has_struck(self) -> bool:
        """Whether it has since; each of its kills explains one death."""
        struck = (_count_kills(self._path) or 0) > self._known
        self._known += struck
        return struck


def _count_kills(path: str) -> int | None:
    with contextlib.suppress(OSError, ValueError), open(path) as file:
        for line in file:
            key, _, value = line.partition(" ")
            if key == "oom_kill":
                return int(value)
    return None


def _events_of_control_group() -> str:
    with contextlib.suppress(OSError), open("/proc/self/cgroup") as file:
        for line in file:
            if line.startswith("0::/"):
                return f"/sys/fs/cgroup{line[3:].rstrip()}/memory.events".replace("//", "/")
    return ""

"""Starting a zygote, and waiting until it is ready."""

from __future__ import annotations

import contextlib
import marshal
import os
import select
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import LaunchError
from job_scheduler.launcher import wire
from job_scheduler.launcher.line import Line

if TYPE_CHECKING:
    from job_scheduler.launcher.base import Settings

_BOOT: Final = """\
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
import _socket, marshal
control = _socket.socket(fileno=int(sys.argv[2]))
settings = marshal.loads(control.recv(1 << 20))
sys.path[:] = settings["path"]
for descriptor in map(int, sys.argv[2:]):
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)
if not settings["bind_now"]:
    del os.environ["LD_BIND_NOW"]
from job_scheduler.launcher.zygote import main
main(control, settings, int(sys.argv[3]), int(sys.argv[4]))
"""
"""What the zygote's interpreter runs. It forks at once, so that it is nobody's child.

It was started with ``LD_BIND_NOW``: symbols bound later would be bound, and their pages copied,
in each child anew. The jobs do not inherit that setting.
"""

_SOCKET_BUFFER: Final = 4 * 1024 * 1024


def start_zygote(settings: Settings) -> Line:
    """Start a zygote and wait until it has run the initializer; raises ``LaunchError``."""
    try:
        return _start_zygote(settings)
    except (OSError, subprocess.SubprocessError) as error:
        raise LaunchError(f"the launching process could not be started: {error}") from error


def _start_zygote(settings: Settings) -> Line:
    with contextlib.ExitStack() as theirs:
        control, its_control = _socket_pair()
        theirs.callback(its_control.close)
        reports, its_reports = _socket_pair()
        theirs.callback(its_reports.close)
        line = Line(control, reports)
        caller = _own_pidfd()
        if caller >= 0:
            theirs.callback(os.close, caller)
        process = _start([its_control.fileno(), its_reports.fileno(), caller])
    try:
        control.send(marshal.dumps(_settings_for_zygote(settings)))
        _wait_until_ready(line, settings.start_timeout)
    except BaseException:
        process.kill()
        line.kill()
        raise
    finally:
        process.wait()
    return line


def _start(descriptors: list[int]) -> subprocess.Popen[bytes]:
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return subprocess.Popen(
        [_interpreter(), *flags, "-c", _BOOT, "job_scheduler-zygote", *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "LD_BIND_NOW": "1"},
        pass_fds=[descriptor for descriptor in descriptors if descriptor >= 0],
    )


def _interpreter() -> str:
    """The Python to start; in a program that embeds one, ``sys.executable`` is that program."""
    name = os.path.basename(sys.executable or "")
    if "python" in name or "pypy" in name:
        return sys.executable
    beside = os.path.join(sys.exec_prefix, "bin", f"python3.{sys.version_info.minor}")
    if os.path.exists(beside):
        return beside
    raise LaunchError(
        f"sys.executable is {sys.executable!r}, no Python interpreter, and there is no {beside}: "
        f"set sys.executable to the interpreter that the jobs shall run in"
    )


def _own_pidfd() -> int:
    """A descriptor by which the zygote sees this program die; -1 before Linux 5.3."""
    try:
        return os.pidfd_open(os.getpid())
    except (AttributeError, OSError):
        return -1


def _settings_for_zygote(settings: Settings) -> dict[str, Any]:
    return {
        "path": [
            os.path.abspath(entry) if os.path.exists(entry or ".") else entry
            for entry in sys.path
            if isinstance(entry, str)  # as Python, which passes over all others
        ],
        "bind_now": "LD_BIND_NOW" in os.environ,
        "max_processes": settings.max_processes,
        "grace": settings.grace,
        "spares": settings.spares,
        "spare_seconds": settings.spare_seconds,
        "initializer": settings.initializer,
        "captured": list(settings.captured),
        "on_parent_exit": settings.on_parent_exit,
    }


def _wait_until_ready(line: Line, timeout: float) -> None:
    """Take the first reports; raises ``LaunchError`` if READY is not among them."""
    poll = select.poll()
    poll.register(line.reports, select.POLLIN)
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if not poll.poll(max(0, deadline - time.monotonic()) * 1000):
            continue
        received = wire.receive(line.reports)
        if received is None:
            raise LaunchError(
                "the launching process ended before it was ready; its stderr says why"
            )
        report, memory_file = received
        if report[0] == wire.BOOTED:
            line.set_pid(report[1])
        elif report[0] == wire.BROKEN:
            text = wire.decode(wire.take_payload(report[-1], memory_file))
            raise LaunchError(f"the initializer failed in the launching process:\n{text}")
        else:
            line.threads = report[1]
            return
    raise LaunchError(
        f"the launching process was not ready after {timeout:g} s: does the initializer end?"
    )


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
    return ours, theirs

"""The limit of fork: a small C program, compiled for the benchmark."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from launching import memory
from launching.peers.base import IN_FLIGHT
from launching.programs import MeasurementError, run_command

MEGABYTES = 4  # of private memory; the zygote has 3.5 with the smallest job
_IDLE = 8
_SOURCE = Path(__file__).with_name("fork.c")


@functools.cache
def compiler() -> str | None:
    """The C compiler, if there is one."""
    configured = (sysconfig.get_config_var("CC") or "cc").split()[0]
    return shutil.which("cc") or shutil.which(configured)


def measure(seconds: float) -> dict[str, Any]:
    """What the peers give, for fork, _exit and wait in C; nothing without a compiler."""
    cc = compiler()
    if cc is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        program = os.path.join(folder, "fork")
        subprocess.run([cc, "-O2", "-o", program, _SOURCE], check=True)
        arguments = map(str, (MEGABYTES, seconds, IN_FLIGHT, _IDLE))
        with run_command(program, *arguments) as process:
            before, during = _look(process), _look(process)
            assert process.stdout is not None
            figures: dict[str, Any] = json.loads(process.stdout.readline())
    figures["memory"] = (during - before) / _IDLE
    return figures


def _look(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    assert process.stdin is not None
    if process.stdout.readline() != "look\n":
        raise MeasurementError("the C program failed")
    occupied = memory.settled(os.getpid())
    process.stdin.write("\n")
    process.stdin.flush()
    return occupied

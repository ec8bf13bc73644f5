"""The job that fails when a disk is nearly full, so that somebody hears of it in time."""

import os
from typing import Any

from job_scheduler import Job


class CheckDiskSpace(Job):
    """Fails when a disk has too little space left.

    Args:
        path: a file or folder on the disk.
        at_least: how much has to be free, in per cent.
    """

    timeout = 60  # a network drive that is away answers late, or never

    def process(self, *, path: str = "/", at_least: float = 10.0) -> dict[str, Any]:
        disk = os.statvfs(path)
        free = 100 * disk.f_bavail / max(1, disk.f_blocks)
        left = disk.f_bavail * disk.f_frsize / 1e9
        said = f"{path}: {free:.1f} % free, {left:.1f} GB"
        if free < at_least:
            raise RuntimeError(f"{said}; at least {at_least:g} % must be")
        print(f"{said}\n", end="", flush=True)
        return {"path": path, "free_percent": round(free, 1), "free_gb": round(left, 1)}

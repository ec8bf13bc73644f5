"""What the benchmarks' command lines share."""

from __future__ import annotations

import sys


def show_progress(text: str) -> None:
    """Say what goes on, in place of what was said before; only to somebody who watches."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def names(text: str) -> list[str]:
    """What stands between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]

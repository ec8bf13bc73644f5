"""Times, durations and sizes as people say them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from datetime import datetime

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)


def away(instant: datetime, now: datetime) -> str:
    """``in 5 min``, ``3 h 20 min ago``; the ES module says it in the same words."""
    seconds = (instant - now).total_seconds()
    if -1 < seconds < 1:
        return "now"
    distance = _distance(abs(seconds))
    return f"in {distance}" if seconds > 0 else f"{distance} ago"


def _distance(seconds: float) -> str:
    whole = int(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < _DAY:
        hours, rest = divmod(whole, _HOUR)
        return f"{hours} h {rest // _MINUTE} min" if hours < 6 else f"{hours} h"
    days = whole // _DAY
    return "1 day" if days == 1 else f"{days:,} days"


def lasting(seconds: float) -> str:
    """``0.12 s``, ``48 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def day_and_time(instant: datetime) -> str:
    """``21 Nov 17:02:03``."""
    # Far sooner than by %H:%M:%S, and a page has a thousand of them.
    clock = f"{instant.hour:02}:{instant.minute:02}:{instant.second:02}"
    return f"{instant.day} {_MONTHS[instant.month - 1]} {clock}"


def size(count: int) -> str:
    """``512 B``, ``3.4 MB``."""
    value, units = float(count), ["B", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        del units[0]
    return f"{value:.1f} {units[0]}" if units[0] != "B" else f"{count} B"

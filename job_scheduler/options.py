"""The options of a scheduler that say how jobs are run here."""

from __future__ import annotations

from job_scheduler.errors import InvalidOptionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

OPTIONS = (
    "max_processes",
    "max_threads",
    "max_waiting",
    "grace",
    "spares",
    "initializer",
    "capture_stdout",
    "on_parent_exit",
    "wait_at_exit",
    "eager",
    "start_method",
)


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ``InvalidOptionError`` for a value that an option cannot have, or an unknown option."""
    for name in options:
        if name not in OPTIONS:
            raise InvalidOptionError(f"{name!r} is no option; there are {', '.join(OPTIONS)}")
    allowed = {
        "on_parent_exit": ("finish", "terminate"),
        "start_method": ("zygote", "spawn"),
    }
    for name, values in allowed.items():
        if options.get(name, values[0]) not in values:
            raise InvalidOptionError(f"{name} is {options[name]!r}; it must be one of {values}")
    for name, least in (
        ("max_processes", 1),
        ("max_threads", 1),
        ("max_waiting", 1),
        ("spares", 0),
    ):
        value = options.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidOptionError(f"{name} is {value!r}; it must be a whole number from {least}")
    for name in ("capture_stdout", "wait_at_exit", "eager"):
        if not isinstance(options.get(name, False), bool):
            raise InvalidOptionError(f"{name} is {options[name]!r}; it must be True or False")
    grace = options.get("grace", 0)
    if isinstance(grace, bool) or not isinstance(grace, (int, float)) or not 0 <= grace < 1e6:
        raise InvalidOptionError(f"grace is {grace!r}; it must be a number of seconds")
    initializer = options.get("initializer", "a:b")
    if not isinstance(initializer, str) or not all(initializer.partition(":")):
        raise InvalidOptionError(
            f"initializer is {initializer!r}; it must be a string 'package.module:function', "
            f"since it is called in another process"
        )

"""The fields of an entry that are plain values: each is read from its text.

A reader takes the field's name and node, and raises ``ValueError`` with a sentence that has the
field, what stands there and what is allowed.
"""

from __future__ import annotations

import re
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, Final

from yaml.nodes import Node, ScalarNode

from job_scheduler.config.document import NUMBER_TAGS, is_null, kind_of, values_of
from job_scheduler.config.report import nearest
from job_scheduler.durations import parse_duration
from job_scheduler.instants import to_utc

if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[str, Node], Any]

_LONGEST: Final = 1_000

_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?")
_TIMESTAMP_TAG: Final = "tag:yaml.org,2002:timestamp"

_FIRST_YEAR: Final = 1970
_LAST_YEAR: Final = 9000

_AT_ONCE: Final = ("startup", "boot")


def read_text(name: str, node: Node) -> str:
    """The text of a plain value, whatever type YAML would give it."""
    if not isinstance(node, ScalarNode) or is_null(node):
        raise ValueError(f"{name} is {kind_of(node)}; it must be a text")
    text: str = node.value.strip()
    if not text:
        raise ValueError(f"{name} is empty; it must be a text")
    if len(text) > _LONGEST:
        raise ValueError(f"{name} has {len(text):,} characters; {_LONGEST:,} are the most")
    return text


def is_none(node: Node) -> bool:
    """Whether nothing stands there: what YAML takes for that, an empty text, or ``None``."""
    if is_null(node):
        return True
    return isinstance(node, ScalarNode) and node.value.strip().casefold() in (
        "",
        "none",
        "null",
        "~",
    )


def read_delay(name: str, node: Node) -> timedelta:
    """A length of time, or at once."""
    if is_none(node) or read_text(name, node).casefold() in _AT_ONCE:
        return timedelta(0)
    return _read_duration(name, node, zero=True, or_else="'startup', for at once")


def read_frequency(name: str, node: Node) -> timedelta | None:
    """A length of time, or None for once."""
    return None if is_none(node) else _read_duration(name, node, or_else="None, for once")


def _read_grace(name: str, node: Node) -> timedelta:
    return _read_duration(name, node, or_else="None, for no limit")


def _read_duration(
    name: str, node: Node, *, zero: bool = False, or_else: str = "leave it out"
) -> timedelta:
    text = read_text(name, node)
    value: str | float = text
    if node.tag in NUMBER_TAGS and _NUMBER.fullmatch(text):
        value = float(text) if "." in text else int(text)
    return parse_duration(value, name, zero=zero, or_else=or_else)


def _read_jitter(name: str, node: Node) -> timedelta:
    return _read_duration(name, node, zero=True)


def _read_instant(name: str, node: Node) -> datetime:
    text = read_text(name, node)
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        value = _read_yaml_instant(name, node, text)
    years = range(_FIRST_YEAR, _LAST_YEAR + 1)
    if value.year not in years:
        raise ValueError(f"{name} is {text!r}; its year must be {years[0]} to {years[-1]}")
    return to_utc(value, name)


def _read_yaml_instant(name: str, node: Node, text: str) -> datetime:
    """YAML knows forms that ISO 8601 does not: ``2026-1-31 9:00:00 +1``."""
    try:
        value = values_of(node) if node.tag == _TIMESTAMP_TAG else None
    except ValueError:
        value = None
    if isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime.combine(value, time())
    raise ValueError(
        f"{name} is {text!r}, which is no instant; give one like '2026-01-31 09:00' (local time) "
        f"or '2026-01-31T09:00:00+01:00'"
    )


def _word_of(*words: str) -> Reader:
    def read(name: str, node: Node) -> str:
        text = read_text(name, node)
        if text not in words:
            raise ValueError(f"{name} is {text!r}; {nearest(text, words)}")
        return text

    return read


def _whole_number_from(least: int) -> Reader:
    def read(name: str, node: Node) -> int:
        text = read_text(name, node)
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < least:
            raise ValueError(f"{name} is {text!r}; it must be a whole number from {least}")
        return int(text)

    return read


def _read_overlap(name: str, node: Node) -> str | int:
    text = read_text(name, node)
    if text in ("skip", "queue"):
        return text
    if re.fullmatch("[0-9]{1,9}", text) and int(text) >= 1:
        return int(text)
    raise ValueError(
        f"{name} is {text!r}; it must be 'skip', 'queue', or how many may run at one time, a whole "
        f"number from 1"
    )


def is_left_out(name: str, node: Node) -> bool:
    """Whether nothing stands there for a policy; ``none`` is one of the ways to catch up."""
    return is_null(node) if name == "catch_up" else is_none(node)


POLICIES: Final[dict[str, Reader]] = {
    "misfire_grace_time": _read_grace,
    "catch_up": _word_of("latest", "all", "none"),
    "overlap": _read_overlap,
    "jitter": _read_jitter,
    "start": _read_instant,
    "end": _read_instant,
    "pause_on_failures": _whole_number_from(1),
    "max_retries": _whole_number_from(0),
    "timeout": _read_duration,
}
"""The policies of an entry, and what reads them."""

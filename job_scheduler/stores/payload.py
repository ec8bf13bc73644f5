"""What a store on disk keeps of arguments: JSON, and nothing that comes back as something else.

=========================================  ======================================================
taken                                      comes back as
=========================================  ======================================================
``None``, booleans, whole numbers, texts   themselves; members of a ``StrEnum`` or ``IntEnum`` as
                                           their plain value
finite ``float``                           itself, to the last bit (but -0.0 as 0.0)
``list``, ``dict`` with texts as keys      themselves
``tuple``                                  a ``list``: JSON has no other sequence
=========================================  ======================================================

Everything else is refused, with the path to it and what to send instead: dates, ``UUID``,
``Decimal``, bytes, sets, objects. So are texts with a NUL or half a surrogate pair, which
PostgreSQL cannot hold: what one store takes, every store does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import ArgumentsError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST: Final = 100

_LARGE: Final = 1e16
"""From here on ``repr`` writes a float with an exponent, which PostgreSQL turns into a whole
number."""

_LARGEST_WHOLE: Final = 10_000
"""Bits of a whole number; Python refuses to write some more as text."""

_INSTEAD: Final = {
    "datetime": "value.isoformat()",
    "date": "value.isoformat()",
    "time": "value.isoformat()",
    "timedelta": "value.total_seconds()",
    "UUID": "str(value)",
    "Decimal": "str(value)",
    "bytes": "base64.b64encode(value).decode()",
    "bytearray": "base64.b64encode(value).decode()",
    "set": "sorted(value)",
    "frozenset": "sorted(value)",
}

_read: Final = json.JSONDecoder().raw_decode
"""Reads what begins at once, as what a store has written does."""

_compact: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encode(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The arguments of a job as a JSON text; raises ``ArgumentsError`` with the path to a value.

    The text has two keys, ``args`` and ``kwargs``; an empty one is left out.
    """
    content: dict[str, Any] = {}
    if args:
        content["args"] = list(args)
    if kwargs:
        content["kwargs"] = kwargs
    has_large = [_check(value, name, 0) for name, value in content.items()]
    return _text(content, any(has_large))


def decode(text: str | None) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments from what :func:`encode` has made, or from what was put there by hand.

    A list is taken as ``args``, and a dictionary with other keys as ``kwargs``.
    """
    content = None if text is None else _read(text.lstrip())[0]
    if isinstance(content, list):
        return tuple(content), {}
    if not isinstance(content, dict):
        return (), {}
    if content.keys() <= {"args", "kwargs"}:
        return tuple(content.get("args") or ()), content.get("kwargs") or {}
    return (), content


def encode_result(value: Any) -> str:
    """What a job returned, as a JSON text; raises ``ArgumentsError`` with the path to a value."""
    return _text(value, _check(value, "result", 0))


def encode_with(plain: dict[str, Any], name: str, value: Any) -> str:
    """Plain values and one more under this name, which is checked, as a JSON text."""
    return _text({**plain, name: value}, _check(value, name, 0))


def _text(value: Any, has_large: bool) -> str:
    return "".join(_written(value)) if has_large else _compact(value)


def _check(value: Any, path: str, depth: int) -> bool:
    """Raise unless it is JSON; tells whether there is a large float in it."""
    if isinstance(value, str):
        _check_text(value, path)
        return False
    if value is None:
        return False
    if isinstance(value, int):
        if value.bit_length() > _LARGEST_WHOLE:
            raise ArgumentsError(f"{path} is a number of more than 3,000 digits; send str(value)")
        return False
    if isinstance(value, float):
        if value - value != 0:
            raise ArgumentsError(f"{path} is {value!r}, which is no number that JSON has")
        return abs(value) >= _LARGE
    if depth > _DEEPEST:
        raise ArgumentsError(f"{path} is nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict):
        return _check_dict(value, path, depth)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        found = [_check(each, f"{path}[{at}]", depth + 1) for at, each in enumerate(value)]
        return any(found)
    raise ArgumentsError(f"{path} is {_described(value)}, which is not JSON; {_instead(value)}")


def _check_dict(value: dict[Any, Any], path: str, depth: int) -> bool:
    found = False
    for key, each in value.items():
        if not isinstance(key, str):
            raise ArgumentsError(
                f"{path} has the key {key!r}, a {type(key).__name__}; JSON has only texts as keys"
            )
        _check_text(key, f"the key {key!r} of {path}")
        found |= _check(each, f"{path}[{key!r}]", depth + 1)
    return found


def _check_text(text: str, path: str) -> None:
    if "\0" in text:
        raise ArgumentsError(f"{path} has the character NUL, which no store can keep")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ArgumentsError(
                f"{path} is no text in Unicode: {text[error.start : error.end]!r} is half a "
                f"character"
            ) from None


def _described(value: Any) -> str:
    text = repr(value)
    return f"{text[:100]}{'...' if len(text) > 100 else ''}, a {type(value).__qualname__}"


def _instead(value: Any) -> str:
    for kind in type(value).__mro__:
        if kind.__name__ in _INSTEAD:
            return f"send {_INSTEAD[kind.__name__]}"
    if hasattr(value, "_asdict"):
        return "send value._asdict() or list(value)"
    return "send what the job needs to find it: an id, a path, a dict of plain values"


def _written(value: Any) -> Iterator[str]:
    """The text in pieces, with large floats written out: ``1e16`` is ``10000000000000000.0``."""
    if isinstance(value, float) and abs(value) >= _LARGE:
        yield format(value, ".1f")
    elif isinstance(value, dict):
        yield "{"
        for at, (key, each) in enumerate(value.items()):
            yield f"{',' if at else ''}{_compact(str(key))}:"
            yield from _written(each)
        yield "}"
    elif isinstance(value, (list, tuple)):
        yield "["
        for at, each in enumerate(value):
            if at:
                yield ","
            yield from _written(each)
        yield "]"
    else:
        yield _compact(value)

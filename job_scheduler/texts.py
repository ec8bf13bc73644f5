"""Text that others wrote, made fit to be shown: on one line, and without passwords.

Jobs use this too, in processes of their own, so it imports next to nothing.
"""

from __future__ import annotations

import re
from typing import Final

_LONGEST: Final = 1_000

_UNSHOWN: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters, among them line breaks and what begins ANSI escapes
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of writing
    "\u2028\u2029"  # line breaks for some who read logs
    "\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # not seen at all
    "\U000e0000-\U000e0fff"
    "\ud800-\udfff"  # halves of characters, which cannot be encoded
    "]"
)

_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}

_NAMED: Final = re.compile(
    r"((?:password|passwd|secret|token)[^=&#\s]{0,50}\s*=\s*)('[^']*'|[^&#\s]*)", re.IGNORECASE
)


def one_line(text: object, most: int = _LONGEST) -> str:
    """The text as one line that shows what is in it, cut after so many characters.

    Control characters, ANSI escapes, what turns the direction of writing, and what cannot be seen
    or encoded, are written as Python escapes them: nobody can forge a line of a log, or hide a
    part of one.
    """
    shown = str(text)
    rest = len(shown) - most
    if rest > 0:
        shown = f"{shown[:most]}... ({rest:,} characters more)"
    return _UNSHOWN.sub(_escaped, shown)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return _SHORT.get(character) or character.encode("unicode_escape").decode("ascii")


def without_password(url: str) -> str:
    """The address with ``***`` in place of each password, also where it is not well-formed.

    What stands between the first colon and the last ``@`` is taken for one, since a password that
    was not percent-encoded may have colons and slashes; so is what follows ``password=``.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    before, at, after = rest.rpartition("@")
    if at:
        user, colon, _password = before.partition(":")
        before = f"{user}:***" if colon else before
    return _NAMED.sub(r"\1***", f"{scheme}{separator}{before}{at}{after}")

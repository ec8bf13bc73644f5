"""What logs and pages show of parameters and texts: all but what looks like a secret.

The API gives parameters as they were sent; what only looks on must not learn a password from it.
Masking too much costs a look into the API, too little a leak, so doubtful names are masked.
"""

from __future__ import annotations

import re
from typing import Any, Final

from job_scheduler.texts import one_line, without_password

__all__ = ["is_secret", "masked", "masked_text", "one_line", "without_password"]

MASK: Final = "***"
_DEEPEST: Final = 50

_WITHIN: Final = (
    "password", "passwd", "passphrase", "passcode", "passwort", "pwd", "secret", "credential",
    "authorization", "apikey", "privatekey", "accesskey", "signingkey", "encryptionkey",
    "sessionid", "cookie", "authtoken", "accesstoken", "refreshtoken", "webhookurl",
)  # fmt: skip
"""What is secret also within longer names, written without any - and _."""

_WORDS: Final = {
    "auth", "bearer", "cvc", "cvv", "dsn", "jwt", "otp", "pass", "pin", "token", "tokens",
}  # fmt: skip
"""What is secret as a word of its own: not in author, tokenizer or passenger."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

_URL: Final = re.compile(r"(?<=://)([^\s/:@]{0,200}):[^\s]{1,1000}@")

_NAMED: Final = re.compile(
    r"""((?:passw(?:or)?d|passphrase|pwd|secret|token(?!i[sz])|api[_-]?key|access[_-]?key|private[_-]?key)
    [\w-]{0,40}["']?\s{0,5}[=:]\s{0,5})
    ("[^"]{1,1000}"|'[^']{1,1000}'|[^\s"'&,;]{1,1000})""",
    re.IGNORECASE | re.VERBOSE,
)

_SECRETS: Final = re.compile(
    r"""(?<![A-Za-z0-9])(?:
    (?<=(?i:Bearer)\s)[^\s"',;]{4,} | (?<=(?i:Basic)\s)[A-Za-z0-9+/=_-]{8,}
    | (?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{4,} | whsec_[A-Za-z0-9+/=]{4,}           # Stripe
    | sk-[A-Za-z0-9_-]{16,}                                                           # models
    | (?:AKIA|ASIA)[A-Z0-9]{12,}                                                      # AWS
    | gh[opsur]_[A-Za-z0-9]{16,} | github_pat_[A-Za-z0-9_]{16,} | glpat-[\w-]{16,}
    | xox[abeoprs]-[A-Za-z0-9-]{8,} | xapp-[A-Za-z0-9-]{8,}                           # Slack
    | AIza[A-Za-z0-9_-]{30,} | ya29\.[A-Za-z0-9_-]{16,}                               # Google
    | SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,} | npm_[A-Za-z0-9]{30,} | pypi-[\w-]{16,}
    | eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*                    # JWT
    | (?<=hooks\.slack\.com/services/)\S+
    )""",
    re.VERBOSE,
)

_KEY_BLOCK: Final = re.compile(
    r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----(?:(?!-----).)*(?:-----END [A-Z ]{0,40}-----)?",
    re.DOTALL,
)


def masked(parameters: Any) -> Any:
    """The same with ``***`` for what looks like a secret, by its key or by itself.

    What is nested deeper than anybody reads is masked as a whole.
    """
    return _masked(parameters, 0)


def _masked(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return masked_text(value)
    if not isinstance(value, (dict, list, tuple)):
        return value
    if depth >= _DEEPEST:
        return MASK
    if isinstance(value, dict):
        return {key: _of_key(key, each, value, depth) for key, each in value.items()}
    return [_masked(each, depth + 1) for each in value]


def _of_key(key: Any, value: Any, around: dict[Any, Any], depth: int) -> Any:
    """Also of ``{"name": "password", "value": "..."}``, as lists of headers have it."""
    named = around.get("name", around.get("key")) if key == "value" else None
    if is_secret(key) or (isinstance(named, str) and is_secret(named)):
        return None if value is None else MASK
    return _masked(value, depth + 1)


def is_secret(key: object) -> bool:
    """Whether what is under this key is not for everybody: ``apiKey``, ``DB-PASSWORD``."""
    text = str(key)[:200]
    joined = "".join(each for each in text.lower() if each.isalnum())
    if any(part in joined for part in _WITHIN):
        return True
    return any(word.lower() in _WORDS for word in _WORD.findall(text)) or joined.endswith("token")


def masked_text(text: str) -> str:
    """The text with ``***`` for each part that looks like a secret."""
    text = _KEY_BLOCK.sub(MASK, text)
    text = _URL.sub(rf"\1:{MASK}@", text)
    text = _NAMED.sub(_keep_name, text)
    return _SECRETS.sub(MASK, text)


def _keep_name(match: re.Match[str]) -> str:
    quote = match[2][0] if match[2][0] in "\"'" else ""
    return f"{match[1]}{quote}{MASK}{quote}"

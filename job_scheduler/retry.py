"""Whether and when a run that failed is tried again."""

from __future__ import annotations

import builtins
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.durations import parse_duration
from job_scheduler.errors import InvalidOptionError

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_RETRIES: Final = 2**31 - 1
"""As much as PostgreSQL keeps."""

Kind = type[BaseException] | str
"""An exception's class, or its name: of a job in another process only the names are known."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often a failed run is tried again, after which delays, and for which errors.

    The nth retry comes ``delay`` times ``factor`` to the power of n - 1 after the failure, but
    no more than ``max_delay``; ``jitter`` spreads it, so that what failed together is not tried
    together. Timeouts and crashes count as failures; what was cancelled is not tried again.

    Args:
        max_retries: how often at most, from 0 to 2,147,483,647.
        delay: before the first retry: seconds, a string like ``"30s"``, or a ``timedelta``.
        factor: by which each delay is longer than the one before, from 1.
        max_delay: the longest delay.
        jitter: the part of a delay, from 0 to 1, by which it may be shorter or longer.
        retry_on: only these errors, as classes or names, or what derives from them; default: all.
            What is no exception of the job itself is named ``JobTimeout`` (a ``TimeoutError``),
            ``JobKilled``, ``JobExited``, ``JobLost`` or ``MemoryLimitExceeded``.
        give_up_on: not these, even if they are among ``retry_on``.

    Raises ``InvalidOptionError`` (a ``ValueError``).
    """

    max_retries: int
    delay: timedelta
    factor: float
    max_delay: timedelta
    jitter: float
    retry_on: frozenset[str] | None
    give_up_on: frozenset[str]

    def __init__(
        self,
        max_retries: int = 3,
        *,
        delay: float | str | timedelta = 1,
        factor: float = 2.0,
        max_delay: float | str | timedelta = 3600,
        jitter: float = 0.1,
        retry_on: Kind | Iterable[Kind] | None = None,
        give_up_on: Kind | Iterable[Kind] = (),
    ) -> None:
        _check_number("max_retries", max_retries, 0, int)
        if max_retries > _MOST_RETRIES:
            raise InvalidOptionError(
                f"max_retries is {max_retries!r}; it must be at most {_MOST_RETRIES:,}"
            )
        _check_number("factor", factor, 1, (int, float))
        _check_number("jitter", jitter, 0, (int, float))
        if jitter > 1:
            raise InvalidOptionError(f"jitter is {jitter!r}; it must be from 0 to 1")
        values = {
            "max_retries": max_retries,
            "delay": parse_duration(delay, "delay", zero=True),
            "factor": float(factor),
            "max_delay": parse_duration(max_delay, "max_delay", zero=True),
            "jitter": float(jitter),
            "retry_on": None if retry_on is None else _names("retry_on", retry_on),
            "give_up_on": _names("give_up_on", give_up_on),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def wants(self, retries: int, kinds: Iterable[str]) -> bool:
        """Whether to try again after so many retries and an error of this kind.

        ``kinds`` are the names of the error's class and of its bases.
        """
        if retries >= self.max_retries:
            return False
        names = set(kinds)
        if names & self.give_up_on:
            return False
        return self.retry_on is None or bool(names & self.retry_on)

    def delay_before(self, retry: int, chance: Callable[[], float] = random.random) -> timedelta:
        """How long to wait before the nth retry, counted from 1; ``chance`` gives 0 to 1."""
        most = self.max_delay.total_seconds()
        try:
            seconds = min(self.delay.total_seconds() * self.factor ** (retry - 1), most)
        except OverflowError:
            seconds = most if self.delay else 0.0
        return timedelta(seconds=seconds * (1 + self.jitter * (2 * chance() - 1)))


def retry_policy(value: object, what: str) -> RetryPolicy | None:
    """What a user gave as ``retry``: a policy, a number of retries, or None.

    Raises ``InvalidOptionError``.
    """
    if value is None or isinstance(value, RetryPolicy):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return RetryPolicy(value)
    raise InvalidOptionError(f"{what} is {value!r}; give a RetryPolicy or a number of retries")


def _check_number(name: str, value: object, least: int, kind: type | tuple[type, ...]) -> None:
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not value >= least or value in (float("inf"),):  # type: ignore[operator]
        what = "whole number" if kind is int else "number"
        raise InvalidOptionError(f"{name} is {value!r}; it must be a {what} from {least}")


def _names(what: str, kinds: Kind | Iterable[Kind]) -> frozenset[str]:
    if isinstance(kinds, (type, str)) or not isinstance(kinds, Iterable):
        kinds = [kinds]
    return frozenset(_name(what, kind) for kind in kinds)


def _name(what: str, kind: Any) -> str:
    if isinstance(kind, str) and kind.isidentifier():
        kind = getattr(builtins, kind, kind)  # IOError is OSError
    if isinstance(kind, type) and issubclass(kind, BaseException):
        return kind.__qualname__
    if isinstance(kind, str) and all(part.isidentifier() for part in kind.split(".")):
        return kind.rpartition(".")[2]
    raise InvalidOptionError(
        f"{what} has {kind!r}; give an exception's class or its name, or a list of those"
    )

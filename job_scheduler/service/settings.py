"""What the service is told by its environment, its ``.env`` and its command line.

===================================  ===========================================================
variable                             what it says
===================================  ===========================================================
DATABASE_URL                         where jobs and runs are kept: ``sqlite:///scheduler.db``, in
                                     the working folder, or ``postgresql://user:password@host/db``
DEBUG                                ``true`` for debug logs
MAX_CONCURRENT_JOBS                  how many jobs go on at one time in this server
JOB_SCHEDULER_HOST                   the address to listen on
JOB_SCHEDULER_PORT                   the port; 0: any that is free
JOB_SCHEDULER_API_KEY                what a client has to send, if it is set
JOB_SCHEDULER_ALLOW_UNAUTHENTICATED  ``1`` to listen for others without an API key
JOB_SCHEDULER_TRUSTED_HOSTS          names by which clients call the server, with commas between
JOB_SCHEDULER_JOBS                   folders and modules of jobs, with commas between
JOB_SCHEDULER_SHUTDOWN_TIMEOUT       seconds that jobs may go on after SIGTERM
JOB_SCHEDULER_LEASE                  seconds after which the jobs of a server that is not heard of
                                     any more are run by others
===================================  ===========================================================
"""

from __future__ import annotations

import io
import ipaddress
import logging
import math
import os
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from job_scheduler.errors import ConfigError, InvalidOptionError, StoreError
from job_scheduler.finding import is_place
from job_scheduler.log import tell
from job_scheduler.stores import open_store
from job_scheduler.texts import without_password

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Settings", "load_dotenv", "without_password"]

MAKE_A_KEY: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'

_SHORTEST_KEY: Final = 16
_FEWEST_DIFFERENT: Final = 8
_MOST_JOBS: Final = 100_000
_SHORTEST_LEASE: Final = 1.0
_PREFIX: Final = "JOB_SCHEDULER_"

_FLAGS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


@dataclass(frozen=True)
class Settings:
    """How the service runs. Passwords and keys are not shown by ``repr``."""

    database_url: str = field(default="sqlite:///scheduler.db", repr=False)
    debug: bool = False
    max_concurrent_jobs: int = 5
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = field(default=None, repr=False)
    allow_unauthenticated: bool = False
    trusted_hosts: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ("jobs",)
    shutdown_timeout: float = 30.0
    lease: float = 30.0

    @classmethod
    def read(cls, environ: Mapping[str, str], **given: Any) -> Settings:
        """The settings of the environment, where nothing else is given.

        Args:
            environ: the variables, as in ``os.environ``.
            given: fields by name, as the command line has them; None: not given.

        Raises ``ConfigError`` with one line that says which variable is wrong, and what it must
        be. Variables that look like one of these, but are none, are warned of.
        """
        unknown = given.keys() - _VARIABLES.keys()
        if unknown:
            raise TypeError(f"no settings are called {', '.join(sorted(unknown))}")
        _warn_of_misspelt(environ)
        values = {}
        for name, variable in _VARIABLES.items():
            if given.get(name) is not None:
                values[name] = variable.read(given[name], _OPTIONS.get(name, f"--{name}"))
            elif variable.name in environ:
                values[name] = variable.read(environ[variable.name], variable.name)
        settings = cls(**values)
        settings._check_that_it_is_guarded()
        return settings

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this machine can reach it."""
        if self.host.lower() == "localhost":
            return True
        try:
            address = ipaddress.ip_address(self.host)
        except ValueError:
            return False  # whatever the name stands for, now or later
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    def _check_that_it_is_guarded(self) -> None:
        if self.is_loopback or self.api_key is not None or self.allow_unauthenticated:
            return
        raise ConfigError(
            f"the service would listen on {self.host}, where others may reach it, without an API "
            f"key: set JOB_SCHEDULER_API_KEY ({MAKE_A_KEY} makes one), or "
            f"JOB_SCHEDULER_ALLOW_UNAUTHENTICATED=1 if whoever reaches it may run jobs, or leave "
            f"JOB_SCHEDULER_HOST at 127.0.0.1"
        )


class _Variable(NamedTuple):
    name: str
    parse: Callable[[Any], Any]
    """Raises ``ValueError`` with what the value must be."""
    show: Callable[[str], str] = repr

    def read(self, value: Any, name: str) -> Any:
        """The value as the settings have it; raises ``ConfigError`` under this name."""
        try:
            return self.parse(value)
        except ValueError as error:
            shown = self.show(str(value)[:200])
            raise ConfigError(f"{name} is {shown}; {error}") from None


def _whole(least: int, most: int, and_so: str = "") -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        text = str(value).strip()
        if text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) <= most:
            return int(text)
        raise ValueError(f"it must be a whole number from {least:,} to {most}{and_so}")

    return parse


def _flag(value: Any) -> bool:
    known = _FLAGS.get(str(value).strip().lower())
    if known is None:
        raise ValueError(f"it must be one of {', '.join(_FLAGS)}")
    return known


def _seconds(value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds <= 1e6:
        raise ValueError("it must be a number of seconds from 0 to 1,000,000")
    return seconds


def _lease(value: Any) -> float:
    seconds = _seconds(value)
    if seconds < _SHORTEST_LEASE:
        raise ValueError(f"it must be a number of seconds from {_SHORTEST_LEASE:g}")
    return seconds


def _host(value: Any) -> str:
    host = str(value).strip()
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not host or not host.isprintable() or set(host) & set(" /[]@"):
        raise ValueError("it must be an address or a name, such as 127.0.0.1, ::1 or 0.0.0.0")
    return host


def _key(value: Any) -> str:
    key = str(value)
    if not (
        len(key) >= _SHORTEST_KEY
        and len(set(key)) >= _FEWEST_DIFFERENT
        and key.isascii()
        and key.isprintable()
        and " " not in key
    ):
        raise ValueError(
            f"it must be at least {_SHORTEST_KEY} characters of ASCII without blanks, "
            f"{_FEWEST_DIFFERENT} of them different; {MAKE_A_KEY} makes one"
        )
    return key


def _describe_key(key: str) -> str:
    return f"of {len(key)} characters" if key.strip() else "blank"


def _listed(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else map(str, value)
    return tuple(part.strip() for part in parts if part.strip())


def _hosts(value: Any) -> tuple[str, ...]:
    hosts = _listed(value)
    for host in hosts:
        if "/" in host or not host.isprintable() or " " in host:
            raise ValueError(
                f"{host!r} is no name of a host: it must be names with commas between, such as "
                f"'jobs.example.com, *.example.org'"
            )
    return hosts


def _places(value: Any) -> tuple[str, ...]:
    places = _listed(value)
    for place in places:
        if not is_place(place):
            raise ValueError(
                f"{place!r} is no folder in {os.getcwd()} and no module: it must be folders or "
                f"modules of jobs, with commas between"
            )
    return places


def _database(value: Any) -> str:
    url = str(value).strip()
    scheme, separator, _rest = url.partition("://")
    forms = "it must be like 'sqlite:///scheduler.db' or 'postgresql://user:password@host/database'"
    if not url:
        raise ValueError(forms)
    if url.startswith("memory:"):
        raise ValueError(f"nothing in memory outlives the server: {forms}")
    if separator and scheme not in ("sqlite", "postgresql", "postgres"):
        plain = scheme.partition("+")[0].lower()
        hint = f"; write {plain}://" if plain in ("sqlite", "postgresql", "postgres") else ""
        raise ValueError(f"there is no store for the scheme {scheme!r}{hint}: {forms}")
    if scheme in ("postgresql", "postgres"):
        _check_server(url, forms)
    try:
        open_store(store=url, listen=False)
    except InvalidOptionError as error:
        # Its own text shows the address once more.
        _before, _, hint = str(error).partition("; the path")
        raise ValueError(f"{forms}{'; the path' + hint if hint else ''}") from None
    except StoreError as error:  # its driver is not installed
        raise ValueError(str(error)) from None
    return url


def _check_server(url: str, forms: str) -> None:
    """Raise unless it names ports: asyncpg would show what it took for one, of a password too."""
    # By hand, since urllib shows passwords in its errors, and knows no lists of hosts.
    server, _slash, path = re.split(r"[?#]", url, maxsplit=1)[0].partition("://")[2].partition("/")
    ports = [
        host.rpartition("]")[2].partition(":")[2] for host in server.rpartition("@")[2].split(",")
    ]
    for port in filter(None, ports):
        if not (port.isascii() and port.isdigit() and int(port[:9]) <= 65_535):
            path = "@"
    if "@" in path:
        raise ValueError(
            f"it cannot be told where the password ends and which port is meant; in a password, "
            f"write @ : / ? # as %40 %3A %2F %3F %23: {forms}"
        )


_OPTIONS: Final = {"database_url": "--store", "max_concurrent_jobs": "--concurrency"}
"""Fields whose option of the command line is called otherwise."""

_VARIABLES: Final = {
    "database_url": _Variable(
        "DATABASE_URL", _database, lambda url: repr(without_password(url)) if url else "empty"
    ),
    "debug": _Variable("DEBUG", _flag),
    "max_concurrent_jobs": _Variable("MAX_CONCURRENT_JOBS", _whole(1, _MOST_JOBS)),
    "host": _Variable("JOB_SCHEDULER_HOST", _host),
    "port": _Variable("JOB_SCHEDULER_PORT", _whole(0, 65_535, " (0: any that is free)")),
    "api_key": _Variable("JOB_SCHEDULER_API_KEY", _key, _describe_key),
    "allow_unauthenticated": _Variable("JOB_SCHEDULER_ALLOW_UNAUTHENTICATED", _flag),
    "trusted_hosts": _Variable("JOB_SCHEDULER_TRUSTED_HOSTS", _hosts),
    "jobs": _Variable("JOB_SCHEDULER_JOBS", _places),
    "shutdown_timeout": _Variable("JOB_SCHEDULER_SHUTDOWN_TIMEOUT", _seconds),
    "lease": _Variable("JOB_SCHEDULER_LEASE", _lease),
}
"""Field -> where it is read."""


def _warn_of_misspelt(environ: Mapping[str, str]) -> None:
    known = {variable.name for variable in _VARIABLES.values()}
    for name in sorted(environ):
        if not name.startswith(_PREFIX) or name in known:
            continue
        bare = name.removeprefix(_PREFIX)
        near = [bare] if bare in known else get_close_matches(name[:100], known, 1)
        hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
        tell(logging.WARNING, "the variable %s is not known and does nothing; %s", name, hint)


def load_dotenv() -> None:
    """Put what ``.env`` of the working folder says into the environment, where it is not set yet.

    A file that is not there is none, and a folder of that name is somebody's virtual environment.
    Raises ``ConfigError`` for one that cannot be read.
    """
    file = Path(".env")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        return
    except OSError as error:
        raise ConfigError(f"{file.absolute()} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{file.absolute()}, line {line}: it must be text in UTF-8") from None
    try:
        import dotenv
    except ImportError:
        raise ConfigError(
            f'{file.absolute()} needs python-dotenv: pip install "job_scheduler[service]"'
        ) from None
    try:
        dotenv.load_dotenv(stream=io.StringIO(text), override=False, interpolate=False)
    except ValueError as error:  # the character NUL
        raise ConfigError(f"{file.absolute()} cannot be used: {error}") from None

"""What a request must pass before the application sees it, and what every response carries.

The checks look at the head of a request alone and tell what they refuse; :func:`secured` puts them
around an application. They protect a service that has no keys, on a developer's machine, from the
web pages that the developer's browser shows: a page may send requests to ``localhost`` (so those of
other origins are refused, and bodies that a form could send), and may have its own name resolve to
``127.0.0.1`` (so unknown hosts are refused).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import socket
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol

from starlette.exceptions import HTTPException
from starlette.responses import Response

from job_scheduler.errors import InvalidOptionError
from job_scheduler.service.problems import (
    CROSS_ORIGIN,
    TOO_LARGE,
    UNAUTHORIZED,
    UNKNOWN_HOST,
    UNSUPPORTED_TYPE,
    internal_error,
    log_failure,
    shorten,
)

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY: Final = 1024 * 1024
"""Bytes that the body of a request may have."""

SAFE_HEADERS: Final = {
    b"content-security-policy": b"default-src 'self'; object-src 'none'; frame-ancestors 'none'; "
    b"base-uri 'none'; form-action 'self'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",
}
"""Headers that a response has unless it brings its own."""

_TOO_LARGE: Final = f"the body has more than {MOST_BODY:,} bytes"

Check = Callable[["Scope"], Response | None]
"""Looks at the head of a request; gives the response that refuses it, or None."""


_TEST_CLIENT: Final = ("testclient", 50000)
"""Whom Starlette's test client names as the client: no address, so nobody behind a network."""


class Settings(Protocol):
    """What of the settings of the service is asked for here."""

    @property
    def host(self) -> str: ...
    @property
    def api_key(self) -> str | None: ...
    @property
    def trusted_hosts(self) -> tuple[str, ...]: ...


def secured(app: ASGIApp, settings: Settings) -> ASGIApp:
    """An application behind all of this, the outermost first: headers, checks, limits."""
    checks: list[Check] = [known_host(settings), same_origin]
    if settings.api_key is not None:
        checks.append(has_key(settings.api_key))
    checks.append(json_body)
    return SafeHeaders(ErrorBoundary(Checked(BodyLimit(app), checks)))


# Around the application.


class SafeHeaders:
    """Gives every response the headers that keep browsers careful; refuses web sockets."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # no check here looks at them
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name.lower() for name, _ in headers}
                headers += [pair for pair in SAFE_HEADERS.items() if pair[0] not in present]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, with_headers)


class ErrorBoundary:
    """Answers for what has failed outside the application, and keeps what it has answered itself.

    Starlette raises an unexpected error anew after it has sent the response to it, for servers to
    log; here it is logged already.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = has_ended = False

        async def watched(message: Message) -> None:
            nonlocal has_started, has_ended
            has_started = True
            has_ended = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if has_started and not has_ended:
                raise  # the server breaks the connection, or a half response would pass for a whole
            if not has_started:
                log_failure(scope, error)
                await internal_error(scope["path"])(scope, receive, send)


class Checked:
    """Lets those requests pass that no check refuses."""

    def __init__(self, app: ASGIApp, checks: Iterable[Check]) -> None:
        self._app = app
        self._checks = tuple(checks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for check in self._checks:
                refusal = check(scope)
                if refusal is not None:
                    await refusal(scope, receive, send)
                    return
        await self._app(scope, receive, send)


class BodyLimit:
    """Reads no more of a body than is allowed, whatever its head says of its length."""

    def __init__(self, app: ASGIApp, most: int = MOST_BODY) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _said_length(scope) > self._most:
            await TOO_LARGE.problem(scope["path"], _TOO_LARGE)(scope, receive, send)
            return
        count = 0
        has_started = False

        async def counted() -> Message:
            nonlocal count
            message = await receive()
            count += len(message.get("body", b""))
            if count <= self._most:
                return message
            if has_started:
                return {"type": "http.disconnect"}  # it reads on only to know when that comes
            raise HTTPException(413, _TOO_LARGE)

        async def watched(message: Message) -> None:
            nonlocal has_started
            has_started = True
            await send(message)

        await self._app(scope, counted, watched)


def _said_length(scope: Scope) -> int:
    """What the head of a request says; 0 if nothing that could be believed."""
    values = [value for value in _values(scope, b"content-length") if value.isdigit()]
    return max((int(value[:20]) for value in values), default=0)


# Checks.


def known_host(settings: Settings) -> Check:
    """Refuses hosts that are not the service's own: a name that anybody could have pointed here.

    On an address of this machine alone, its own hosts are that and ``localhost``. Elsewhere every
    host is fine with a key, which no page knows, and without one, addresses and the machine's name.
    """
    is_open = not _is_loopback(settings.host)
    names = {"localhost", *map(_name, settings.trusted_hosts)}
    endings = tuple(name[1:] for name in names if name.startswith("*."))
    if is_open:
        names |= {socket.gethostname().lower(), socket.gethostname().lower().partition(".")[0]}
    else:
        names |= {"127.0.0.1", "::1", _name(settings.host)}

    def check(scope: Scope) -> Response | None:
        if is_open and settings.api_key is not None:
            return None
        if scope.get("client") == _TEST_CLIENT:
            return None
        host = _host(scope)
        name = None if host is None else _name(host)
        if name is not None and (name in names or (is_open and _is_address(name))):
            return None
        if name is not None and name.endswith(endings):
            return None
        told = "one that cannot be read" if name is None else shorten(name)
        detail = (
            f"this service does not know itself under the host {told}; if it is its own, name it "
            f"in JOB_SCHEDULER_TRUSTED_HOSTS"
        )
        return UNKNOWN_HOST.problem(scope["path"], detail)

    return check


def same_origin(scope: Scope) -> Response | None:
    """Refuses what changes something and comes from a page of another site.

    Browsers say so themselves in ``Sec-Fetch-Site``, or at least where the page is from, in
    ``Origin``; who says neither is no browser.
    """
    if scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return None
    sites = _values(scope, b"sec-fetch-site")
    origins = _values(scope, b"origin")
    if sites:
        is_own = all(site in (b"same-origin", b"none") for site in sites)
    else:
        host = _host(scope)
        own = None if host is None else host.lower()
        is_own = all(_text(origin).partition("://")[2].lower() == own for origin in origins)
    if is_own:
        return None
    told = f" ({shorten(_text(origins[0]))})" if origins else ""
    return CROSS_ORIGIN.problem(
        scope["path"], f"a page of another site{told} may not change anything here"
    )


def has_key(key: str) -> Check:
    """Refuses requests without the key, except to ``/healthz``; raises ``InvalidOptionError``."""
    if not key:
        raise InvalidOptionError("an API key needs characters")  # everybody sends an empty one
    wanted = key.encode()

    def check(scope: Scope) -> Response | None:
        if scope["path"] == "/healthz":
            return None
        given = [*_values(scope, b"x-api-key"), *map(_credential, _values(scope, b"authorization"))]
        if any(hmac.compare_digest(one, wanted) for one in given):
            return None
        detail = (
            "the API key is wrong or cannot be read"
            if given
            else "send the API key, as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'"
        )
        response = UNAUTHORIZED.problem(scope["path"], detail)
        if any(b"text/html" in value for value in _values(scope, b"accept")):
            # A page's own requests do not accept it, so that they do not make the browser ask.
            response.headers.append(
                "WWW-Authenticate", 'Basic realm="job_scheduler", charset="UTF-8"'
            )
        response.headers.append("WWW-Authenticate", 'Bearer realm="job_scheduler"')
        return response

    return check


def json_body(scope: Scope) -> Response | None:
    """Refuses bodies that do not say that they are JSON: those that any page's form could send."""
    if scope["method"] not in ("POST", "PUT", "PATCH") or not _has_body(scope):
        return None
    types = [
        _text(value).partition(";")[0].strip().lower() for value in _values(scope, b"content-type")
    ]
    allowed = r"application/(json|[^/\s]+\+json)"
    if scope["path"].startswith("/ui/"):
        allowed += "|application/x-www-form-urlencoded"
    if len(types) == 1 and re.fullmatch(allowed, types[0]):
        return None
    said = f"not {shorten(types[0])}" if types else "which its Content-Type must say"
    return UNSUPPORTED_TYPE.problem(
        scope["path"],
        f"a body must be application/json, {said}",
        headers={"Accept": "application/json"},
    )


# Reading the head of a request.


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value.strip() for header, value in scope["headers"] if header.lower() == name]


def _text(value: bytes) -> str:
    return value.decode("latin-1")


def _host(scope: Scope) -> str | None:
    """Host and port as the request has them; None if it has not one of them, or no real one."""
    values = _values(scope, b"host")
    if len(values) != 1 or not re.fullmatch(rb"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(:\d*)?", values[0]):
        return None
    return _text(values[0])


def _name(host: str) -> str:
    """A host without its port, and without the brackets of an address."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    name, _, rest = host.partition(":")
    return (host if ":" in rest else name).lower()  # an address of IPv6 may have no brackets


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    return _name(host) == "localhost" or (_is_address(host) and ip_address(host).is_loopback)


def _has_body(scope: Scope) -> bool:
    return _said_length(scope) > 0 or bool(_values(scope, b"transfer-encoding"))


def _credential(value: bytes) -> bytes:
    """The key in an ``Authorization`` header; empty if there is none."""
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""

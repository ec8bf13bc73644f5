"""Every error of the service, as ``application/problem+json`` (RFC 9457).

A problem has one sentence as its ``detail``, which is all that most readers need, and where there
is a place to point at, its ``errors``: what is wrong there, one by one. Whatever comes from outside
is cut and cleaned before it is repeated.
"""

from __future__ import annotations

import logging
import re
from difflib import get_close_matches
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypedDict, get_args, get_type_hints
from urllib.parse import quote

from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount

from job_scheduler.errors import (
    ArgumentsError,
    DuplicateIdError,
    InvalidCronError,
    InvalidOptionError,
    QueueFullError,
    SchedulerError,
    ShutdownError,
    StoreError,
    UnknownIdError,
    UnknownJobError,
)
from job_scheduler.log import tell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from fastapi import FastAPI
    from starlette.types import Scope

MEDIA_TYPE: Final = "application/problem+json"

_MOST_MISTAKES: Final = 20
_LONGEST_VALUE: Final = 200
_LONGEST_DETAIL: Final = 1000
_RETRY_AFTER: Final = {"Retry-After": "5"}
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class ConflictError(SchedulerError):
    """What is asked for does not go with the state in which the thing is."""


class KeyReusedError(SchedulerError, ValueError):
    """The Idempotency-Key was used before, for another request."""


class Mistake(BaseModel):
    """One thing that is wrong, and where: in the body, a parameter or a header."""

    pointer: str | None = None
    parameter: str | None = None
    header: str | None = None
    code: str
    message: str
    field: str | None = None
    position: int | None = None
    value: str | None = None
    hint: str | None = None
    known: list[str] | None = None


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[Mistake] | None = None


class Place(TypedDict, total=False):
    """Where a mistake is: one of these."""

    pointer: str
    parameter: str
    header: str


class Kind(NamedTuple):
    """What problems of one type have in common."""

    status: int
    title: str
    name: str

    def example(self) -> dict[str, Any]:
        """How it looks, for the document of the API."""
        return {
            "type": f"/problems/{self.name}",
            "title": self.title,
            "status": self.status,
            "detail": "what is wrong, in one sentence",
            "instance": "/jobs",
        }

    def problem(
        self,
        path: str,
        detail: str,
        mistakes: Sequence[Mistake] = (),
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """The response that tells of it."""
        problem = Problem(
            type=f"/problems/{self.name}",
            title=self.title,
            status=self.status,
            detail=shorten(detail, _LONGEST_DETAIL),
            instance=quote(path[:_LONGEST_VALUE], safe="/:@!$&'()*+,;=", errors="replace"),
            errors=list(mistakes) or None,
        )
        content = problem.model_dump(exclude_none=True)
        return JSONResponse(content, self.status, headers, media_type=MEDIA_TYPE)


BAD_REQUEST: Final = Kind(400, "Bad request", "bad-request")
MALFORMED_JSON: Final = Kind(400, "The body is not JSON", "malformed-json")
UNKNOWN_HOST: Final = Kind(400, "Unknown host", "unknown-host")
UNAUTHORIZED: Final = Kind(401, "An API key is needed", "unauthorized")
FORBIDDEN: Final = Kind(403, "Forbidden", "forbidden")
CROSS_ORIGIN: Final = Kind(403, "Request from another site", "cross-origin")
NOT_FOUND: Final = Kind(404, "Not found", "not-found")
METHOD_NOT_ALLOWED: Final = Kind(405, "Method not allowed", "method-not-allowed")
CONFLICT: Final = Kind(409, "Conflict", "conflict")
TOO_LARGE: Final = Kind(413, "The body is too large", "too-large")
UNSUPPORTED_TYPE: Final = Kind(415, "Unsupported media type", "unsupported-media-type")
INVALID_REQUEST: Final = Kind(422, "Invalid request", "invalid-request")
INVALID_CRON: Final = Kind(422, "Invalid cron expression", "invalid-cron")
INVALID_OPTION: Final = Kind(422, "Invalid option", "invalid-option")
INVALID_ARGUMENTS: Final = Kind(422, "Invalid parameters", "invalid-parameters")
UNKNOWN_JOB_TYPE: Final = Kind(422, "Unknown job type", "unknown-job-type")
KEY_REUSED: Final = Kind(422, "Idempotency key used before", "key-reused")
INTERNAL_ERROR: Final = Kind(500, "Internal error", "internal-error")
UNAVAILABLE: Final = Kind(503, "Unavailable", "unavailable")

_OF_STATUS: Final = {
    kind.status: kind
    for kind in (BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, NOT_FOUND, METHOD_NOT_ALLOWED, CONFLICT,
                 TOO_LARGE, UNSUPPORTED_TYPE, INVALID_REQUEST, INTERNAL_ERROR, UNAVAILABLE)
}  # fmt: skip

_SCHEMA: Final = {"$ref": "#/components/schemas/Problem"}

RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    kind.status: {
        "description": kind.title,
        "content": {MEDIA_TYPE: {"schema": _SCHEMA, "example": kind.example()}},
    }
    for kind in _OF_STATUS.values()
}
"""What a route's ``responses=`` are picked from; :func:`install` adds the schema they name."""


def install(app: FastAPI, job_types: Callable[[], Iterable[str]] = tuple) -> None:
    """Make every error of an application a problem.

    Args:
        app: gets the handlers, and the schema of a problem.
        job_types: gives the names that are told to those who ask for an unknown job type.
    """

    async def refused(request: Request, error: Exception) -> Response:
        return _refused(request, error, job_types)

    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(SchedulerError, refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _failed)
    _describe(app)


def _describe(app: FastAPI) -> None:
    """Have the schema of a problem among those of the application."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()
        _, ours = models_json_schema(
            [(Problem, "serialization")], ref_template="#/components/schemas/{model}"
        )
        document.setdefault("components", {}).setdefault("schemas", {}).update(ours["$defs"])
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def shorten(text: str, most: int = _LONGEST_VALUE) -> str:
    """A text that can be sent: cut in its middle, without controls and without half characters."""
    if len(text) > most:
        head = most // 2
        text = f"{text[:head]}…{text[len(text) - (most - head - 1) :]}"
    return re.sub(r"[\x00-\x1f\x7f\ud800-\udfff]", lambda found: repr(found[0])[1:-1], text)


def internal_error(path: str) -> Response:
    """What is told of an error of the service itself: nothing that is within."""
    return INTERNAL_ERROR.problem(path, "something went wrong here; the log of the service has it")


async def _failed(request: Request, error: Exception) -> Response:
    log_failure(request.scope, error)
    return internal_error(request.scope["path"])


def log_failure(scope: Scope, error: Exception) -> None:
    """Tell of what nobody expected."""
    said = "%s %s has failed"
    tell(logging.ERROR, said, scope["method"], shorten(scope["path"]), exc_info=error)


async def _gone(request: Request, error: Exception) -> Response:
    return BAD_REQUEST.problem(request.scope["path"], "the request was broken off")  # for nobody


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path, headers, detail = request.scope["path"], dict(error.headers or {}), str(error.detail)
    status = error.status_code
    if status < 400:
        return await http_exception_handler(request, error)
    if status == 405:
        allowed = _allowed(request)
        headers = {name: value for name, value in headers.items() if name.lower() != "allow"}
        headers["Allow"] = allowed
        detail = f"{request.method} is not possible here; allowed are {allowed}"
    elif status == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"there is nothing at {shorten(path)}"
    return _kind_of(status).problem(path, detail, headers=headers)


def _kind_of(status: int) -> Kind:
    if status in _OF_STATUS:
        return _OF_STATUS[status]
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    return Kind(status, title, re.sub(r"[^a-z]+", "-", title.lower()))


def _allowed(request: Request) -> str:
    """All methods of a path: each route knows its own alone, and the first answers for all."""
    scope = request.scope
    found = []
    for method in _METHODS:
        asked = {
            "type": "http",
            "method": method,
            "path": scope["path"],
            "root_path": scope.get("app_root_path", scope.get("root_path", "")),
            "headers": scope["headers"],
        }
        for route in request.app.routes:
            if route.matches(asked)[0] is Match.FULL and not isinstance(route, Mount):
                found.append(method)
                break
    return ", ".join(found or ("GET", "HEAD"))  # of a mounted folder of files, which has no routes


# What the package refuses.

_REFUSED: Final[dict[type[SchedulerError], Kind]] = {
    UnknownIdError: NOT_FOUND,
    DuplicateIdError: CONFLICT,
    ConflictError: CONFLICT,
    KeyReusedError: KEY_REUSED,
    ArgumentsError: INVALID_ARGUMENTS,
    InvalidOptionError: INVALID_OPTION,
}


def _refused(
    request: Request, error: Exception, job_types: Callable[[], Iterable[str]]
) -> Response:
    path = request.scope["path"]
    if isinstance(error, InvalidCronError):
        mistake = _cron_mistake(error, {"pointer": "/cron_expression"})
        return INVALID_CRON.problem(path, str(error), [mistake])
    if isinstance(error, UnknownJobError):
        return _unknown_job_type(request, error, sorted(job_types()))
    if isinstance(error, (StoreError, QueueFullError, ShutdownError)):
        said = "%s %s was refused: %s"
        tell(
            logging.WARNING,
            said,
            request.method,
            shorten(path),
            shorten(str(error), _LONGEST_DETAIL),
        )
        return UNAVAILABLE.problem(path, unavailable(error), headers=_RETRY_AFTER)
    for kind_of_error in type(error).__mro__:
        if kind_of_error in _REFUSED:
            return _REFUSED[kind_of_error].problem(path, str(error))
    log_failure(request.scope, error)
    return internal_error(path)


def unavailable(error: Exception) -> str:
    """Why, without the words of a database or the place where it is."""
    if isinstance(error, StoreError):
        return "the store does not answer, or cannot do this now; nothing was accepted"
    if isinstance(error, QueueFullError):
        return "as many runs wait as the service keeps; nothing was accepted"
    return "the service is not there yet, or is shutting down"


def _unknown_job_type(request: Request, error: Exception, known: list[str]) -> Response:
    is_in_path = "job_type" in request.path_params
    place: Place = {"parameter": "job_type"} if is_in_path else {"pointer": "/job_type"}
    detail = str(error)
    if known and not all(name in detail for name in known):
        detail = f"{detail}; known are {', '.join(known)}"
    mistake = Mistake(
        **place, code="job_type.unknown", message=shorten(str(error)), known=known or None
    )
    kind = NOT_FOUND if is_in_path else UNKNOWN_JOB_TYPE
    return kind.problem(request.scope["path"], detail, [mistake])


_CRON_CODES: Final = {
    "it needs five": "cron.number_of_fields",
    "is not known": "cron.unknown_nickname",
    "out of range": "cron.out_of_range",
    "runs backwards": "cron.reversed_range",
    "a step is": "cron.bad_step",
    "names no": "cron.unknown_name",
    "#1 to #5": "cron.out_of_range",
    "cannot occur": "cron.never",
}
"""What the sentence of a mistake has in it -> its code."""


def _cron_mistake(error: InvalidCronError, place: Place) -> Mistake:
    message = str(error)
    told = message.rpartition("': ")[2] if error.field else message  # not what was asked for
    codes = [code for phrase, code in _CRON_CODES.items() if phrase in told]
    return Mistake(
        **place,
        code=codes[0] if codes else "cron.unreadable",
        message=shorten(message, _LONGEST_DETAIL),
        field=error.field,
        position=error.position,
        value=None if error.value is None else shorten(error.value),
        hint=shorten(message.rpartition("; ")[2]) if "; " in told else None,
    )


# What does not fit the model of a request.


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    path = request.scope["path"]
    if errors and errors[0]["type"] == "json_invalid":
        why, position = errors[0]["ctx"]["error"], errors[0]["loc"][-1]
        detail = f"the body is not JSON: {why}, after {position} characters"
        return MALFORMED_JSON.problem(path, detail)
    fields = sorted(_fields(request.scope.get("endpoint")))
    mistakes = [_mistake(one, fields) for one in errors[:_MOST_MISTAKES]]
    more = len(errors) - 1
    detail = _sentence(mistakes[0]) if mistakes else "the request is invalid"
    if more > 0:
        detail += f" (and {more} more {'mistake' if more == 1 else 'mistakes'})"
    if errors and all(one["loc"][0] == "path" for one in errors):
        return NOT_FOUND.problem(path, detail, mistakes)  # a path that no id makes leads nowhere
    is_cron = isinstance(_cause(errors[0]), InvalidCronError) if errors else False
    return (INVALID_CRON if is_cron else INVALID_REQUEST).problem(path, detail, mistakes)


def _sentence(mistake: Mistake) -> str:
    if mistake.code.startswith("cron."):
        return mistake.message
    if mistake.pointer is not None:
        return f"{mistake.pointer.lstrip('/') or 'the body'}: {mistake.message}"
    kind = "header" if mistake.header else "parameter"
    return f"{kind} {mistake.header or mistake.parameter}: {mistake.message}"


def _cause(error: Mapping[str, Any]) -> Any:
    """What a validator of a model has raised, if one did."""
    return (error.get("ctx") or {}).get("error")


def _mistake(error: Mapping[str, Any], fields: Sequence[str]) -> Mistake:
    place = _place(error["loc"])
    cause = _cause(error)
    if isinstance(cause, InvalidCronError):
        return _cron_mistake(cause, place)
    code, message, hint = error["type"], str(error["msg"]), None
    if code == "extra_forbidden":
        message = "there is no such field"
        near = get_close_matches(shorten(str(error["loc"][-1])), fields, 1)
        if near and len(error["loc"]) == 2:
            hint = f"did you mean {near[0]!r}?"
            message = f"{message}; {hint}"
    elif code == "missing":
        message = "it is missing"
    elif isinstance(cause, Exception):
        message = str(cause)
    else:
        message = message[:1].lower() + message[1:]
    value = error.get("input")
    return Mistake(
        **place,
        code=code,
        message=shorten(message),
        value=shorten(str(value)) if isinstance(value, (str, int, float)) else None,
        hint=hint,
    )


def _place(where: Sequence[str | int]) -> Place:
    """Where it is, from how FastAPI says it: ``("body", "parameters", "to")``."""
    source, *parts = where
    if source == "body":
        escaped = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
        return {"pointer": shorten("".join(f"/{part}" for part in escaped))}
    name = shorten(".".join(map(str, parts)))
    return {"header": name} if source == "header" else {"parameter": name}


def _fields(endpoint: Any) -> Iterator[str]:
    """The fields that the body of an endpoint may have."""
    try:
        hints = get_type_hints(endpoint)
    except (NameError, TypeError):  # a hint is not worth an error
        return
    for hint in hints.values():
        for model in (hint, *get_args(hint)):
            if isinstance(model, type) and issubclass(model, BaseModel):
                for name, field in model.model_fields.items():
                    yield field.alias or name

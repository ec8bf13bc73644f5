"""What the routes of the API share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Header, Path, Query, Request, Response
from pydantic import BeforeValidator, TypeAdapter

from job_scheduler.errors import ShutdownError
from job_scheduler.service.core import CronService
from job_scheduler.service.models import LARGEST_ID
from job_scheduler.service.problems import RESPONSES

if TYPE_CHECKING:
    from job_scheduler.service.core import Page

MOST_LISTED: Final = 1000


def _digits(text: Any) -> Any:
    """Only what is written as the id is: 1.0, +1 and 1_0 are none."""
    if isinstance(text, str) and not (text.isascii() and text.isdigit()):
        raise ValueError("it must be a whole number")
    return text


JobNumber = Annotated[
    int, BeforeValidator(_digits), Path(ge=1, le=LARGEST_ID, description="The job's id.")
]

RunId = Annotated[str, Path(min_length=1, max_length=1000, description="The run's id.")]

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A text of your own: the same request with the same key is done once.",
    ),
]

Limit = Annotated[int | None, Query(ge=1, le=MOST_LISTED, description="How many at most.")]


async def service_of(request: Request) -> CronService:
    """The service that the app was made for; a plain function would be called in a thread."""
    service: CronService | None = getattr(request.app.state, "service", None)
    if service is None:
        raise ShutdownError("the application was not told of its begin: serve it with its lifespan")
    return service


def listed(request: Request, page: Page[Any], adapter: TypeAdapter[Any]) -> Response:
    """A bare array; what follows is told by headers."""
    response = json_of(adapter, page.items)
    if page.next is not None:
        url = request.url.include_query_params(cursor=page.next)
        response.headers["Link"] = f'<{url}>; rel="next"'
        response.headers["X-Next-Cursor"] = page.next
    return response


def json_of(adapter: TypeAdapter[Any], value: Any, status: int = 200) -> Response:
    """What was made of the store's rows is right: it is written without being checked again."""
    return Response(adapter.dump_json(value), status, media_type="application/json")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors that a route may answer with, for its description."""
    return {status: RESPONSES[status] for status in statuses}


NEXT_PAGE: Final[dict[str, Any]] = {
    "headers": {
        "Link": {
            "description": 'The next page, as `<url>; rel="next"`; missing at the end.',
            "schema": {"type": "string"},
        },
        "X-Next-Cursor": {
            "description": "The `cursor` of the next page; missing at the end.",
            "schema": {"type": "string"},
        },
    }
}

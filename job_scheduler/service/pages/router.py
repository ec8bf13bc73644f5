"""The routes of the dashboard: the page at ``/``, what its forms post to, and its live stream."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, NamedTuple
from urllib.parse import quote, unquote

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response, StreamingResponse

from job_scheduler.errors import InvalidOptionError, SchedulerError, StoreError, UnknownIdError
from job_scheduler.run import RunState
from job_scheduler.service.api.common import JobNumber, RunId, service_of
from job_scheduler.service.core import CronService, Page
from job_scheduler.service.models import JobIn, JobPatch
from job_scheduler.service.pages.assets import STATIC, html
from job_scheduler.service.pages.forms import FormError, JobForm, preview, read_form
from job_scheduler.service.pages.views import (
    Where,
    job_row,
    run_row,
    run_view,
    totals_of,
    type_option,
)
from job_scheduler.service.problems import KeyReusedError, unavailable
from job_scheduler.stores.base import RunQuery, ScheduleQuery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from job_scheduler.service.models import JobOut, RunOut

JOBS: Final = 50
"""How many jobs a page lists."""

RUNS: Final = 25
"""How many runs a page lists."""

OUTCOMES: Final = 20
"""Of how many of its last runs a job shows how they ended."""

_SAID: Final = "said"
"""The cookie that carries a message over the redirect to the page that shows it."""

_LONGEST_MESSAGE: Final = 300

_QUIET: Final = 15.0
"""Seconds after which pages look anew in any case: another server may have changed something."""

_PAUSE: Final = 0.25
"""Seconds between two hints at least; pages fetch once a second anyway."""

Service = Annotated[CronService, Depends(service_of)]

router = APIRouter(include_in_schema=False, default_response_class=Response)
_get = partial(router.get, response_model=None)
_post = partial(router.post, response_model=None)


class Said(NamedTuple):
    """A message that is shown once."""

    text: str = ""
    is_error: bool = False


@_get("/")
async def show(request: Request, service: Service) -> Response:
    """All jobs and the latest runs; only the parts that change, where the page itself asks."""
    try:
        return await _dashboard(request, service, JobForm())
    except SchedulerError as error:
        return _problem(error)


async def _dashboard(request: Request, service: CronService, form: JobForm) -> Response:
    where = Where.read("" if form.errors else request.url.query)
    jobs = await service.jobs(
        ScheduleQuery(
            after=where.after, limit=JOBS, text=where.text or None, paused=where.is_paused
        )
    )
    outcomes = await service.outcomes([job.id for job in jobs.items], OUTCOMES)
    runs = await _runs(service, where)
    said = _said(request)
    is_part = "x-fragment" in request.headers
    values: dict[str, Any] = {
        "now": service.store.now(),
        "where": where,
        "said": said,
        "totals": totals_of(await service.counts(), service.scheduler.engine.max_concurrent_jobs),
        "rows": [job_row(job, outcomes.get(job.id, [])) for job in jobs.items],
        "next_jobs": jobs.next,
        "runs": [run_row(run) for run in runs.items],
        "next_runs": runs.next,
        "run_states": list(RunState),
        "base_url": str(request.base_url).rstrip("/"),
        "has_key": "authorization" in request.headers,
    }
    if not is_part:
        values |= {"form": form, "types": [type_option(each) for each in service.types.describe()]}
    template = "parts.html" if is_part else "dashboard.html"
    return _once(html(template, values, 422 if form.errors else 200), said)


async def _runs(service: CronService, where: Where) -> Page[RunOut]:
    query = RunQuery(state=where.run_state, before=where.before or None, limit=RUNS)
    try:
        if where.job is None:
            return await service.runs(query)
        return await service.runs_of(where.job, query)
    except UnknownIdError:
        return Page([], None)  # the job, or the last run of the page before, was deleted


@_get("/ui/runs/{run_id:path}")
async def show_run(request: Request, service: Service, run_id: RunId) -> Response:
    """One run with its error and output."""
    try:
        run = await service.run(run_id)
    except SchedulerError as error:
        return _problem(error)
    said = _said(request)
    values = {"now": service.store.now(), "said": said, **run_view(run)._asdict()}
    template = "run_parts.html" if "x-fragment" in request.headers else "run.html"
    return _once(html(template, values), said)


@_get("/ui/jobs")
async def show_jobs() -> Response:
    """Where the address of a form that was refused is opened again."""
    return RedirectResponse("/", 303)


@_post("/ui/jobs")
async def add_job(request: Request, service: Service) -> Response:
    """Add a job; what is wrong is told beside its field, and what was typed is kept."""
    try:
        form = JobForm(await read_form(request))
    except FormError as error:
        return _problem(error)
    body = form.read()
    try:
        if not form.errors:
            job = await _create(service, JobIn.model_validate(body), form.once)
            return _redirect(f"/#job-{job.id}", Said(f"Added “{job.name}”."))
    except ValidationError as error:
        form.refuse_fields(error)
    except StoreError as error:
        return _problem(error)
    except SchedulerError as error:
        form.refuse(error)
    return await _dashboard(request, service, form)


async def _create(service: CronService, wanted: JobIn, once: str) -> JobOut:
    """Add a job, though only once if the same form is sent twice."""
    try:
        return (await service.create(wanted, once))[0]
    except KeyReusedError:  # somebody went back to the form, and changed it
        return (await service.create(wanted))[0]


@_post("/ui/jobs/{number}/{verb}")
async def act_on_job(request: Request, service: Service, number: JobNumber, verb: str) -> Response:
    """Run, pause, resume or delete a job."""
    acts = {"run": _run, "pause": _pause, "resume": _resume, "delete": _delete}
    return await _act(request, acts.get(verb), service, number, f"job-{number}")


async def _run(service: CronService, number: int) -> str:
    job = await service.job(number)
    await service.run_job(number)
    return f"“{job.name}” runs now."


async def _pause(service: CronService, number: int) -> str:
    job = await service.change(number, JobPatch(is_active=False))
    return f"Paused “{job.name}”."


async def _resume(service: CronService, number: int) -> str:
    job = await service.change(number, JobPatch(is_active=True))
    return f"“{job.name}” goes on."


async def _delete(service: CronService, number: int) -> str:
    job = await service.job(number)
    await service.delete(number)
    return f"Deleted “{job.name}”."


@_post("/ui/run/{verb}/{run_id:path}")
async def act_on_run(request: Request, service: Service, verb: str, run_id: RunId) -> Response:
    """Cancel a run, or try it again."""
    acts = {"cancel": _cancel, "retry": _retry}
    return await _act(request, acts.get(verb), service, run_id, "runs")


async def _cancel(service: CronService, run_id: str) -> str:
    await service.cancel(run_id)
    return "The run is being cancelled."


async def _retry(service: CronService, run_id: str) -> str:
    run = await service.retry(run_id)
    return f"“{run.job_name or run.job_type}” runs once more."


async def _act(
    request: Request,
    act: Callable[[CronService, Any], Awaitable[str]] | None,
    service: CronService,
    on: int | str,
    place: str,
) -> Response:
    """Do it, and go back to where the button was pressed, with a word on what was done."""
    try:
        fields = await read_form(request)
    except FormError as error:
        return _problem(error)
    if act is None:
        return _problem(UnknownIdError("there is no such page"))
    try:
        said = Said(await act(service, on))
    except SchedulerError as error:
        said = Said(_words(error), is_error=True)
    if fields.get("on") == "run":
        return _redirect(f"/ui/runs/{quote(str(on))}", said)
    return _redirect(Where.read(fields.get("back", "")).url(place), said)


@_get("/ui/preview")
async def show_preview(
    service: Service, cron_expression: str = "", timezone: str = "UTC"
) -> Response:
    """What a cron expression says, for the line under its field."""
    said = preview(cron_expression.strip(), timezone.strip() or "UTC")
    return html("preview.html", {"preview": said, "now": service.store.now()})


@_get("/ui/static/{version}/{name}")
async def show_file(name: str) -> Response:
    """Styles, script and icon; the version in the address lets browsers keep them."""
    file = STATIC.get(name)
    return file.response() if file else _problem(UnknownIdError("there is no such file"))


@_get("/events")
async def listen(service: Service) -> Response:
    """A stream with a word whenever something has changed; what it is, the page asks then."""
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_hints(service), media_type="text/event-stream", headers=headers)


async def _hints(service: CronService) -> AsyncIterator[str]:
    changes = service.changes
    count = changes.count
    yield "retry: 2000\n\n"
    while not changes.closed:
        count = await changes.after(count, _QUIET)
        yield "event: changed\ndata:\n\n"
        await asyncio.sleep(_PAUSE)


def _said(request: Request) -> Said:
    """The message that the last redirect carried."""
    kind, _, text = unquote(request.cookies.get(_SAID, "")).partition(":")
    return Said(text[:_LONGEST_MESSAGE], kind == "error")


def _once(response: Response, said: Said) -> Response:
    """The response, after which the message is not shown again."""
    if said.text:
        response.delete_cookie(_SAID, httponly=True, samesite="lax")
    return response


def _redirect(url: str, said: Said) -> Response:
    response = RedirectResponse(url, 303)
    kind = "error" if said.is_error else "done"
    text = quote(f"{kind}:{said.text[:_LONGEST_MESSAGE]}", safe="")
    response.set_cookie(_SAID, text, max_age=60, httponly=True, samesite="lax")
    return response


def _problem(error: Exception) -> Response:
    """A page that says what is wrong; the same errors have the same status in the API."""
    statuses = {UnknownIdError: 404, InvalidOptionError: 422, FormError: 415}
    status = next((code for kind, code in statuses.items() if isinstance(error, kind)), 503)
    return html("problem.html", {"status": status, "message": _words(error)}, status)


def _words(error: Exception) -> str:
    """What is wrong; of the store no more than the API tells."""
    return unavailable(error) if isinstance(error, StoreError) else str(error)

"""The routes of the dashboard: the page at ``/``, what its forms post to, and its live stream."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse

from job_scheduler.errors import SchedulerError, ShutdownError, StoreError, UnknownIdError
from job_scheduler.run import RunState
from job_scheduler.service.pages.assets import STATIC, html
from job_scheduler.service.pages.contract import JobsAsked, RunsAsked
from job_scheduler.service.pages.forms import FormError, JobForm, preview, read_form
from job_scheduler.service.pages.views import OUTCOMES, Where, job_row, shown_json, type_option

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from job_scheduler.service.pages.contract import Pages

Id = TypeVar("Id")

_SAID: Final = "said"
"""The cookie that carries a message over the redirect to the page that shows it."""

_LONGEST_MESSAGE: Final = 300
_PING: Final = 15.0
"""Seconds after which a quiet stream says that it is alive."""

_PAUSE: Final = 0.25
"""Seconds between two hints at most; the page fetches once a second anyway."""


class Said(NamedTuple):
    """A message that is shown once."""

    text: str = ""
    is_error: bool = False


def router(service: Pages) -> APIRouter:
    """The dashboard of a service."""
    dashboard = Dashboard(service)
    pages = APIRouter(include_in_schema=False, default_response_class=Response)
    add = partial(pages.add_api_route, response_model=None)
    add("/", dashboard.show, methods=["GET"])
    add("/events", dashboard.events, methods=["GET"])
    add("/ui/static/{version}/{name}", dashboard.static, methods=["GET"])
    add("/ui/preview", dashboard.preview, methods=["GET"])
    add("/ui/jobs", dashboard.back, methods=["GET"])
    add("/ui/jobs", dashboard.add, methods=["POST"])
    add("/ui/jobs/{number}/{verb}", dashboard.act_on_job, methods=["POST"])
    add("/ui/runs/{run_id}", dashboard.show_run, methods=["GET"])
    add("/ui/runs/{run_id}/{verb}", dashboard.act_on_run, methods=["POST"])
    return pages


class Dashboard:
    """Shows the service and passes on what its users want."""

    def __init__(self, service: Pages) -> None:
        self._service = service
        self._jobs: Final[dict[str, Callable[[int], Awaitable[str]]]] = {
            "run": self._run,
            "pause": self._pause,
            "resume": self._resume,
            "delete": self._delete,
        }
        self._runs: Final[dict[str, Callable[[str], Awaitable[str]]]] = {
            "cancel": self._cancel,
            "retry": self._retry,
        }

    async def show(self, request: Request) -> Response:
        try:
            return await self._page(request, Where.read(request.url.query), JobForm())
        except SchedulerError as error:
            return _problem(error)

    async def _page(self, request: Request, where: Where, form: JobForm) -> Response:
        service = self._service
        jobs = await service.jobs(
            JobsAsked(where.after or None, text=where.text or None, paused=where.paused)
        )
        runs = await service.runs(
            RunsAsked(where.before or None, job=where.job, state=where.run_state)
        )
        outcomes = await service.outcomes([job.id for job in jobs.items], OUTCOMES)
        said = _said(request)
        is_part = "x-fragment" in request.headers
        values: dict[str, Any] = {
            "now": datetime.now(UTC),
            "where": where,
            "said": said,
            "totals": await service.totals(),
            "rows": [job_row(job, outcomes.get(job.id, ())) for job in jobs.items],
            "next_jobs": jobs.next,
            "runs": runs.items,
            "next_runs": runs.next,
            "run_states": list(RunState),
            "base_url": str(request.base_url).rstrip("/"),
        }
        if not is_part:
            types = [type_option(each) for each in await service.job_types()]
            values |= {"form": form, "types": types}
        response = html(
            "parts.html" if is_part else "dashboard.html", values, 422 if form.errors else 200
        )
        if said.text:
            response.delete_cookie(_SAID)
        return response

    async def show_run(self, request: Request, run_id: str) -> Response:
        try:
            run = await self._service.run(run_id)
        except SchedulerError as error:
            return _problem(error)
        said = _said(request)
        values = {
            "now": datetime.now(UTC),
            "said": said,
            "run": run,
            "parameters": shown_json(run.parameters) if run.parameters else "",
            "result": "" if run.result is None else shown_json(run.result),
        }
        is_part = "x-fragment" in request.headers
        response = html("run_parts.html" if is_part else "run.html", values)
        if said.text:
            response.delete_cookie(_SAID)
        return response

    async def add(self, request: Request) -> Response:
        """Add a job; what is wrong is told beside its field, and what was typed is kept."""
        try:
            fields = await read_form(request)
        except FormError as error:
            return _refusal(error)
        form = JobForm(fields)
        body = form.read()
        if not form.errors:
            try:
                job = await self._service.create(body)
            except StoreError as error:
                return _problem(error)
            except SchedulerError as error:
                form.refuse(error)
            else:
                return _redirect(f"/#job-{job.id}", Said(f"Added “{job.name}”."))
        return await self._page(request, Where(), form)

    async def back(self) -> Response:
        """Where the address of a form that was refused is opened again."""
        return RedirectResponse("/", 303)

    async def act_on_job(self, request: Request, number: int, verb: str) -> Response:
        return await self._act(request, self._jobs.get(verb), number, f"job-{number}")

    async def act_on_run(self, request: Request, run_id: str, verb: str) -> Response:
        return await self._act(request, self._runs.get(verb), run_id, f"run-{run_id}")

    async def _act(
        self,
        request: Request,
        act: Callable[[Id], Awaitable[str]] | None,
        on: Id,
        place: str,
    ) -> Response:
        """Do it, and go back to where the button was pressed, with a word on what was done."""
        try:
            fields = await read_form(request)
        except FormError as error:
            return _refusal(error)
        if act is None:
            return _problem(UnknownIdError("there is no such page"))
        try:
            said = Said(await act(on))
        except SchedulerError as error:
            said = Said(str(error), is_error=True)
        if fields.get("page") == "run" and place.startswith("run-"):
            return _redirect(f"/ui/runs/{quote(str(on), safe='')}", said)
        return _redirect(Where.read(fields.get("back", "")).url(place), said)

    async def _run(self, number: int) -> str:
        job = await self._service.job(number)
        await self._service.run_job(number)
        return f"“{job.name}” runs now."

    async def _pause(self, number: int) -> str:
        job = await self._service.change(number, {"is_active": False})
        return f"Paused “{job.name}”."

    async def _resume(self, number: int) -> str:
        job = await self._service.change(number, {"is_active": True})
        return f"“{job.name}” goes on."

    async def _delete(self, number: int) -> str:
        job = await self._service.job(number)
        await self._service.delete(number)
        return f"Deleted “{job.name}”."

    async def _cancel(self, run_id: str) -> str:
        await self._service.cancel(run_id)
        return "The run is being cancelled."

    async def _retry(self, run_id: str) -> str:
        await self._service.retry(run_id)
        return "It runs again."

    async def preview(self, cron_expression: str = "", timezone: str = "UTC") -> Response:
        """What a cron expression says, for the line under its field."""
        said = preview(cron_expression.strip(), timezone.strip() or "UTC")
        return html("preview.html", {"preview": said, "now": datetime.now(UTC)})

    async def static(self, name: str) -> Response:
        file = STATIC.get(name)
        return file.response() if file else _problem(UnknownIdError("there is no such file"))

    async def events(self) -> StreamingResponse:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._hints(), media_type="text/event-stream", headers=headers)

    async def _hints(self) -> AsyncIterator[str]:
        """A word whenever something has changed; what it is, the page asks by itself."""
        yield "retry: 2000\n\n"
        waiting = asyncio.ensure_future(self._service.changed())
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=_PING)
                if not done:
                    yield ": still here\n\n"
                    continue
                waiting.result()
                # The next wait begins before the hint is sent, so that no change falls between.
                waiting = asyncio.ensure_future(self._service.changed())
                yield "event: changed\ndata:\n\n"
                await asyncio.sleep(_PAUSE)
        except ShutdownError:
            return
        finally:
            waiting.cancel()


def _said(request: Request) -> Said:
    """The message that the last redirect carried."""
    kind, _, text = unquote(request.cookies.get(_SAID, "")).partition(":")
    return Said(text[:_LONGEST_MESSAGE], kind == "error")


def _redirect(url: str, said: Said) -> Response:
    response = RedirectResponse(url, 303)
    kind = "error" if said.is_error else "done"
    text = quote(f"{kind}:{said.text[:_LONGEST_MESSAGE]}", safe="")
    response.set_cookie(_SAID, text, max_age=60, httponly=True, samesite="lax")
    return response


def _problem(error: SchedulerError) -> Response:
    status = 404 if isinstance(error, UnknownIdError) else 503
    return html("problem.html", {"status": status, "message": str(error)}, status)


def _refusal(error: FormError) -> Response:
    return html("problem.html", {"status": 415, "message": str(error)}, 415)

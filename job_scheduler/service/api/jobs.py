"""Jobs: what runs again and again."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import TypeAdapter

from job_scheduler.service.api.common import (
    NEXT_PAGE,
    IdempotencyKey,
    JobNumber,
    Limit,
    json_of,
    listed,
    problems,
    service_of,
)
from job_scheduler.service.api.runs import RUN, RUNS, RunCursor, RunState_, run_query
from job_scheduler.service.core import CronService
from job_scheduler.service.models import JobIn, JobOut, JobPatch, RunOut
from job_scheduler.stores.base import ScheduleQuery

router = APIRouter(prefix="/jobs", tags=["jobs"])

JOB: Final = TypeAdapter(JobOut)
JOBS: Final = TypeAdapter(list[JobOut])

Service = Annotated[CronService, Depends(service_of)]


@router.post("", status_code=201, response_model=JobOut, responses=problems(400, 422))
async def create_job(
    service: Service, job: JobIn, request: Request, idempotency_key: IdempotencyKey = None
) -> Response:
    """Have something run again and again; the id is in the answer."""
    made, is_new = await service.create(job, idempotency_key)
    response = json_of(JOB, made, 201)
    response.headers["Location"] = str(request.url_for("get_job", job_id=made.id))
    if not is_new:
        response.headers["Idempotent-Replayed"] = "true"
    return response


@router.get("", response_model=list[JobOut], responses={200: NEXT_PAGE, **problems(422)})
async def list_jobs(
    service: Service,
    request: Request,
    limit: Limit = None,
    cursor: Annotated[
        str | None, Query(pattern=r"^[0-9]{1,18}$", description="Where the last page has ended.")
    ] = None,
    state: Annotated[Literal["active", "paused"] | None, Query()] = None,
    job_type: Annotated[str | None, Query(pattern=r"^[^\x00]*$")] = None,
    q: Annotated[
        str | None,
        Query(
            max_length=200, pattern=r"^[^\x00]*$", description="A part of the name, in any case."
        ),
    ] = None,
) -> Response:
    """All jobs, ordered by their ids."""
    query = ScheduleQuery(
        after=0 if cursor is None else int(cursor),
        limit=limit,
        job=None if job_type is None else service.types.nearest(job_type),
        paused=None if state is None else state == "paused",
        text=q or None,
    )
    return listed(request, await service.jobs(query), JOBS)


@router.get("/{job_id}", response_model=JobOut, responses=problems(404, 422))
async def get_job(service: Service, job_id: JobNumber) -> Response:
    """One job."""
    return json_of(JOB, await service.job(job_id))


@router.patch("/{job_id}", response_model=JobOut, responses=problems(400, 404, 409, 422))
async def change_job(service: Service, job_id: JobNumber, patch: JobPatch) -> Response:
    """Change some fields; `{"is_active": false}` pauses it."""
    return json_of(JOB, await service.change(job_id, patch))


@router.put("/{job_id}", response_model=JobOut, responses=problems(400, 404, 422))
async def replace_job(service: Service, job_id: JobNumber, job: JobIn) -> Response:
    """Put another definition in place of this one."""
    return json_of(JOB, await service.replace(job_id, job))


@router.delete("/{job_id}", status_code=204, responses=problems(404, 422))
async def delete_job(service: Service, job_id: JobNumber) -> None:
    """Delete a job; what goes on goes on, and its runs can be read as long as they are kept."""
    await service.delete(job_id)


@router.post("/{job_id}/run", status_code=202, response_model=RunOut, responses=problems(404, 422))
async def run_job(
    service: Service, job_id: JobNumber, idempotency_key: IdempotencyKey = None
) -> Response:
    """Run it once more, at once, beside its schedule."""
    return json_of(RUN, await service.run_job(job_id, idempotency_key), 202)


@router.get(
    "/{job_id}/runs",
    response_model=list[RunOut],
    responses={200: NEXT_PAGE, **problems(404, 422)},
)
async def list_runs_of_job(
    service: Service,
    request: Request,
    job_id: JobNumber,
    limit: Limit = 100,
    cursor: RunCursor = None,
    state: RunState_ = None,
) -> Response:
    """The runs of one job, the newest first."""
    query = run_query(limit, cursor, state)
    return listed(request, await service.runs_of(job_id, query), RUNS)

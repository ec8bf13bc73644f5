"""Runs: single executions."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import TypeAdapter
from starlette.convertors import StringConvertor, register_url_convertor

from job_scheduler.run import RunState
from job_scheduler.service.api.common import (
    MOST_LISTED,
    NEXT_PAGE,
    IdempotencyKey,
    Limit,
    RunId,
    json_of,
    listed,
    problems,
    service_of,
)
from job_scheduler.service.core import CronService
from job_scheduler.service.models import RunDetail, RunIn, RunOut
from job_scheduler.stores.base import RunQuery


class _RunIds(StringConvertor):
    """Ids may have slashes; what ends as one of the verbs is that verb."""

    regex = r".+(?<!/cancel)(?<!/retry)"


register_url_convertor("run", _RunIds())

router = APIRouter(tags=["runs"])

RUN: Final = TypeAdapter(RunOut)
RUNS: Final = TypeAdapter(list[RunOut])
DETAIL: Final = TypeAdapter(RunDetail)

Service = Annotated[CronService, Depends(service_of)]

RunCursor = Annotated[
    str | None,
    Query(
        min_length=1,
        max_length=1000,
        pattern=r"^[^\x00]*$",
        description="Where the last page has ended.",
    ),
]

RunState_ = Annotated[RunState | None, Query()]


def run_query(
    limit: int | None, cursor: str | None, state: RunState | None, job: str | None = None
) -> RunQuery:
    """What the parameters ask for."""
    return RunQuery(job=job, state=state, before=cursor, limit=limit or MOST_LISTED)


@router.get("/runs", response_model=list[RunOut], responses={200: NEXT_PAGE, **problems(404, 422)})
async def list_runs(
    service: Service,
    request: Request,
    limit: Limit = 100,
    cursor: RunCursor = None,
    state: RunState_ = None,
    job_type: Annotated[str | None, Query(pattern=r"^[^\x00]*$")] = None,
) -> Response:
    """All runs, the newest first."""
    job = None if job_type is None else service.types.nearest(job_type)
    return listed(request, await service.runs(run_query(limit, cursor, state, job)), RUNS)


@router.get("/runs/{run_id:run}", response_model=RunDetail, responses=problems(404, 422))
async def get_run(service: Service, run_id: RunId) -> Response:
    """One run, with its error, output and result."""
    return json_of(DETAIL, await service.run(run_id))


@router.post(
    "/runs/{run_id:run}/cancel",
    status_code=202,
    response_model=RunDetail,
    responses=problems(404, 409, 422),
)
async def cancel_run(service: Service, run_id: RunId) -> Response:
    """Have a run not start, or stop."""
    return json_of(DETAIL, await service.cancel(run_id), 202)


@router.post(
    "/runs/{run_id:run}/retry",
    status_code=202,
    response_model=RunOut,
    responses=problems(404, 409, 422),
)
async def retry_run(
    service: Service, run_id: RunId, idempotency_key: IdempotencyKey = None
) -> Response:
    """Run the same once more; the answer is the new run."""
    return json_of(RUN, await service.retry(run_id, idempotency_key), 202)


@router.post(
    "/run/{job_type}", status_code=202, response_model=RunOut, responses=problems(400, 404, 422)
)
async def start_run(
    service: Service,
    job_type: Annotated[
        str,
        Path(min_length=1, max_length=200, description="One of `GET /job-types`, in any case."),
    ],
    run: RunIn | None = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Fire and forget: run something once; it is kept when the answer comes."""
    made = await service.start(job_type, run or RunIn(), idempotency_key)
    return json_of(RUN, made, 202)

"""What can be run, what an expression means, and how the service is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from job_scheduler.errors import InvalidCronError, InvalidOptionError, StoreError
from job_scheduler.service.api.common import problems, service_of
from job_scheduler.service.core import CronService
from job_scheduler.service.models import CronIn, CronMistake, CronOut, JobType
from job_scheduler.service.views import in_words
from job_scheduler.triggers import Cron

router = APIRouter()

Service = Annotated[CronService, Depends(service_of)]


@router.get("/job-types", tags=["job types"], response_model=list[JobType])
async def list_job_types(service: Service) -> list[JobType]:
    """What can be run, with a schema of its parameters."""
    return [JobType(**each) for each in service.types.describe()]


@router.post("/cron/validate", tags=["cron"], responses=problems(400, 422))
async def validate_cron(wanted: CronIn) -> CronOut:
    """What an expression means and when it fires next, or what is wrong with it, and where."""
    try:
        cron = Cron(wanted.cron_expression, wanted.timezone)
    except InvalidOptionError as error:
        mistake = CronMistake(
            message=str(error),
            field=error.field if isinstance(error, InvalidCronError) else "timezone",
            position=error.position if isinstance(error, InvalidCronError) else None,
            value=error.value if isinstance(error, InvalidCronError) else wanted.timezone,
        )
        return CronOut(valid=False, description=None, next_runs=[], error=mistake)
    return CronOut(valid=True, description=in_words(cron), next_runs=cron.preview(5), error=None)


@router.head("/healthz", include_in_schema=False)  # what watches servers often asks so
@router.get("/healthz", tags=["health"])
async def health() -> dict[str, str]:
    """Whether the server answers; asks nothing of the database."""
    return {"status": "ok"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", tags=["health"], responses=problems(503))
async def readiness(service: Service) -> dict[str, str]:
    """Whether jobs run: the database answers, and the engine's loop turns."""
    await service.counts()
    if not service.scheduler.healthy:
        raise StoreError("the engine's loop has not turned for 30 seconds")
    return {"status": "ready"}


@router.get("/metrics", tags=["health"], response_class=Response)
async def metrics(service: Service, request: Request) -> Response:
    """Figures for Prometheus."""
    scheduler = service.scheduler
    content, content_type = request.app.state.metrics.exposition(
        await service.counts(),
        len(scheduler.engine.attempts()),
        scheduler.last_tick_age,
        request.headers.get("accept", ""),
    )
    return Response(content, headers={"Content-Type": content_type})

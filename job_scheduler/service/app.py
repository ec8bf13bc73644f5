"""The application: the API, the pages, and the scheduler that lives and ends with them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from fastapi import FastAPI

from job_scheduler import __version__
from job_scheduler.scheduler import Scheduler
from job_scheduler.service import docs, problems
from job_scheduler.service.api import about, jobs, runs
from job_scheduler.service.core import CronService
from job_scheduler.service.job_types.methods import jobs_of
from job_scheduler.service.job_types.registry import JobTypes, find_job_types
from job_scheduler.service.metrics import Metrics
from job_scheduler.service.pages import router as pages
from job_scheduler.service.problems import RESPONSES
from job_scheduler.service.run_log import RunLog
from job_scheduler.service.security import secured
from job_scheduler.service.settings import Settings, load_dotenv

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from job_scheduler.service.job_types.methods import MethodJobs
    from job_scheduler.stores.base import Store

_EVERYWHERE: Final = (400, 401, 403, 413, 415, 500, 503)
"""What any request may be answered with."""


class Service:
    """The application with what it needs, so that a server may open and close it.

    Args:
        settings: as read from the environment.
        types: what can be run; default: what ``settings.jobs`` names, and the built-in ones.
        store: in place of that which the settings name.
    """

    def __init__(
        self, settings: Settings, types: JobTypes | None = None, store: Store | None = None
    ) -> None:
        self.settings = settings
        self.types = find_job_types(settings.jobs) if types is None else types
        self.scheduler = Scheduler(
            store=settings.database_url if store is None else store,
            jobs=self.types.jobs,
            max_concurrent_jobs=settings.max_concurrent_jobs,
            lease=settings.lease,
            capture_stdout=True,
        )
        self._hurried: asyncio.Future[None] | None = None
        self.api = self._make_api()
        self.app: ASGIApp = secured(self.api, settings)

    def _make_api(self) -> FastAPI:
        everywhere: dict[int | str, dict[str, Any]] = {
            status: RESPONSES[status] for status in _EVERYWHERE
        }
        api = FastAPI(
            title="job_scheduler",
            version=__version__,
            summary="Cron jobs over REST.",
            lifespan=self._live,
            docs_url=None,
            redoc_url=None,
            separate_input_output_schemas=False,
        )
        for module in (jobs, runs, about):  # each by itself: a router within a router costs time
            api.include_router(module.router, responses=everywhere)
        api.include_router(pages.router)
        docs.install(api)
        problems.install(api, lambda: self.types.names)
        return api

    @contextlib.asynccontextmanager
    async def _live(self, api: FastAPI) -> AsyncIterator[None]:
        """Run what is due for as long as the application is served."""
        service = CronService(self.scheduler, self.types)
        metrics = Metrics(self.settings.max_concurrent_jobs)
        log = RunLog(service, metrics)
        self.scheduler.engine.observer = log
        api.state.service, api.state.metrics = service, metrics
        try:
            await self.scheduler.start()
            yield
        finally:
            service.changes.close()
            await self.scheduler.engine.shutdown(self.settings.shutdown_timeout)
            await log.close()  # it asks the store what it tells of
            await self.scheduler.shutdown(0)

    def hurry(self) -> None:
        """Hand back at once what goes on; for the second signal."""
        self._hurried = asyncio.ensure_future(self.scheduler.shutdown(0))

    def stop_accepting(self) -> None:
        """Start no more runs, and end the streams of the pages: the server is about to end."""
        self.scheduler.engine.stop_starting()
        service: CronService | None = getattr(self.api.state, "service", None)
        if service is not None:
            service.changes.close()


def create_app(executor: type[MethodJobs] | None = None, **given: Any) -> ASGIApp:
    """The application for any ASGI server, and for tests.

    Nothing is read or opened before it is served; then, and each time anew, the settings are those
    of the environment and of ``.env``. It has to be told of its begin and end (ASGI's lifespan).

    Args:
        executor: its public methods are all that can be run; default: what the settings name.
        given: settings that go before those of the environment.
    """
    served: ASGIApp | None = None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal served
        if served is None or scope["type"] == "lifespan":
            load_dotenv()
            types = None if executor is None else JobTypes(jobs_of(executor))
            served = Service(Settings.read(os.environ, **given), types).app
        await served(scope, receive, send)

    return app

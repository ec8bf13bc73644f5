"""``job-scheduler serve``: the application on a port, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from job_scheduler.errors import ConfigError, SchedulerError, StoreError
from job_scheduler.service.app import Service
from job_scheduler.service.job_types.methods import jobs_of
from job_scheduler.service.job_types.registry import JobTypes
from job_scheduler.service.masking import masked_text, one_line
from job_scheduler.service.settings import Settings, load_dotenv, without_password
from job_scheduler.signals import call_when_told_to_end

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from job_scheduler.service.job_types.methods import MethodJobs

logger = logging.getLogger("job_scheduler.service")

_TIME_TO_ANSWER: Final = 5
"""Seconds for requests that go on when the server is to end."""

_TIME_TO_END: Final = 20.0
"""Seconds, beyond those that jobs may go on, for all that a server has to do at its end."""

_BACKLOG: Final = 2048

_LONGEST_LINE: Final = 10_000
"""Characters of a line in the log."""


def main(executor: type[MethodJobs], **given: Any) -> int:
    """Serve the methods of a class as job types: the whole ``main`` of a small application.

    Returns the exit code: 0 after SIGTERM or Ctrl-C, 1 once a mistake is told in one line.

    Args:
        executor: its public methods are all that can be run.
        given: settings that go before those of the environment and of ``.env``.
    """
    try:
        serve(jobs_of(executor), **given)
    except SchedulerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def serve(own_jobs: Mapping[str, Any] | None = None, /, **given: Any) -> None:
    """Serve until SIGTERM or Ctrl-C; what goes on is waited for, and the rest handed back.

    Args:
        own_jobs: name -> job, in place of those that the settings name.
        given: settings that go before those of the environment and of ``.env``.

    Raises ``ConfigError`` or ``StoreError`` if it cannot be begun.
    """
    load_dotenv()
    settings = Settings.read(os.environ, **given)
    _log(settings)
    logger.debug("settings: %r", settings)
    service = Service(settings, None if own_jobs is None else JobTypes(own_jobs))
    with _bound(settings) as listening:
        asyncio.run(_serve(service, settings, listening))


async def _serve(service: Service, settings: Settings, listening: socket.socket) -> None:
    try:
        await service.scheduler.engine.ready()
    except StoreError as error:
        await service.scheduler.shutdown()
        where = without_password(settings.database_url)
        raise StoreError(f"DATABASE_URL is {where}: {error}") from error
    config = uvicorn.Config(
        service.app,
        http="h11",  # httptools, which is faster, keeps a head of any length in memory
        log_config=None,
        access_log=settings.debug,
        server_header=False,
        timeout_graceful_shutdown=_TIME_TO_ANSWER,
        lifespan="on",
        ws="none",
    )
    server = _Server(config, service)
    gc.collect()
    gc.freeze()  # all that was imported: the collector would go through it for 50 ms each time
    print(_words(service, settings, listening), flush=True)
    await server.serve(sockets=[listening])
    if not server.started:
        raise StoreError("the server did not start; the log says why")


class _Server(uvicorn.Server):
    """Ends on SIGTERM as on Ctrl-C: in good order, with exit code 0; a second signal hurries."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        call_when_told_to_end(self._end)
        yield

    def _end(self) -> None:
        if self.should_exit:
            self._service.hurry()
            _give_up_after(_TIME_TO_END)
        else:
            self.should_exit = True
            self._service.stop_accepting()
            _give_up_after(self._service.settings.shutdown_timeout + _TIME_TO_END)


def _give_up_after(seconds: float) -> None:
    """End the process then in any case: a store that does not answer would keep it for minutes."""
    timer = threading.Timer(seconds, _give_up)
    timer.daemon = True  # it ends with the process, which is to have ended long before
    timer.start()


def _give_up() -> None:
    logger.error("the store does not answer: what goes on here is run again by others, or later")
    os._exit(1)


@contextlib.contextmanager
def _bound(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens; raises ``ConfigError`` where the port is taken."""
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.create_server(address, family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host}, port {port}: {reason}; say another with --port or "
            f"JOB_SCHEDULER_PORT"
        ) from error
    with listening:
        # Connections inherit it; else each body waits, up to 40 ms, until its head is acknowledged.
        # asyncio sees to that itself, but not where a socket does not name its protocol, as here.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listening


def _words(service: Service, settings: Settings, listening: socket.socket) -> str:
    """What a user wants to see when the server has begun."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{listening.getsockname()[1]}"
    names = ", ".join(sorted(service.types.names))
    return (
        f"job_scheduler is at {url} (API: {url}/docs)\n"
        f"store: {without_password(settings.database_url)}\n"
        f"job types: {names}\n"
        f"at most {settings.max_concurrent_jobs} jobs at one time; Ctrl-C ends it"
    )


class _Lines(logging.Formatter):
    """Records without secrets, of which nobody can forge one: what has more lines is indented."""

    def format(self, record: logging.LogRecord) -> str:
        lines = masked_text(super().format(record)).splitlines()
        return "\n    ".join(one_line(line, _LONGEST_LINE) for line in lines)


def _log(settings: Settings) -> None:
    """One line for each record on the standard error; what the jobs print goes there, too."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = logging.DEBUG if settings.debug else logging.WARNING
    for name, own_level in (
        ("job_scheduler", level),
        ("job_scheduler.service", min(level, logging.INFO)),
        ("uvicorn", level),
    ):
        logging.getLogger(name).setLevel(own_level)
    for name in ("job_scheduler", "uvicorn"):
        logging.getLogger(name).addHandler(handler)

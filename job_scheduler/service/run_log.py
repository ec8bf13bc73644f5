"""One line for each start and each end of a run: which job, with what, and what came of it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from job_scheduler.errors import StoreError
from job_scheduler.run import RunState
from job_scheduler.service.masking import masked, masked_text, one_line
from job_scheduler.stores.base import ScheduleQuery

if TYPE_CHECKING:
    from job_scheduler.run import Run
    from job_scheduler.service.core import CronService
    from job_scheduler.service.metrics import Metrics
    from job_scheduler.stores.base import Claim

logger = logging.getLogger("job_scheduler.service")

_MOST_NUMBERS: Final = 100_000
"""Jobs whose numbers are remembered."""

_LONGEST: Final = 500
"""Characters of the parameters that are logged."""

_LONGEST_VALUE: Final = 100
"""Characters of each of them."""

_FIRST: Final = ("recipient", "subject", "dataset")
"""What tells most of a run, however many parameters there are."""

_News = tuple["Claim", "Run", bool | None]
"""A run, and None at its start, or at its end whether there will be another attempt."""


class RunLog:
    """Told by the engine what starts and ends here; logs it, counts it, and passes the word on.

    The engine tells it from any thread; the rest is done on the loop, in order.
    """

    def __init__(self, service: CronService, metrics: Metrics) -> None:
        self._service = service
        self._metrics = metrics
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._news: asyncio.Queue[_News] = asyncio.Queue()
        self._numbers: dict[str, int] = {}
        self._task = self._loop.create_task(self._follow(), name="run log")

    def started(self, claim: Claim, run: Run) -> None:
        """An attempt has started."""
        self._note((claim, run, None))

    def ended(self, claim: Claim, run: Run, again: bool) -> None:
        """An attempt has ended, and whether there will be another."""
        self._note((claim, run, again))

    def _note(self, news: _News) -> None:
        if threading.get_ident() == self._thread:
            self._news.put_nowait(news)  # it costs less than to wake the loop that is awake
        else:
            self._loop.call_soon_threadsafe(self._news.put_nowait, news)

    async def close(self) -> None:
        """Log what is left, and end."""
        await asyncio.sleep(0)  # what other threads have told is in the queue then
        await self._news.join()
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _follow(self) -> None:
        while True:
            claim, run, again = await self._news.get()
            try:
                await self._tell(claim, run, again)
            except Exception:
                logger.exception("what became of run %s could not be logged", claim.run_id)
            finally:
                self._news.task_done()

    async def _tell(self, claim: Claim, run: Run, again: bool | None) -> None:
        self._service.changes.note()
        what = await self._describe(claim)
        given = _parameters(claim.kwargs)
        if again is None:
            self._metrics.note_start(claim.at)
            logger.info("%s started%s (run %s)", what, given, claim.run_id)
            return
        seconds = None
        if run.started_at is not None and run.ended_at is not None:
            seconds = max(0.0, (run.ended_at - run.started_at).total_seconds())
        self._metrics.note_end(claim.job, run.state, seconds, again=again)
        took = "" if seconds is None else f" after {seconds:.3f} s"
        error = "" if run.error is None else f": {one_line(masked_text(str(run.error)))}"
        follows = ", and is tried again" if again else ""
        level = logging.INFO if run.state is RunState.COMPLETED else logging.WARNING
        said = "%s %s%s%s%s%s (run %s)"
        logger.log(level, said, what, run.state, took, follows, error, given, claim.run_id)

    async def _describe(self, claim: Claim) -> str:
        schedule = claim.schedule
        if schedule is None:
            return f"job type {claim.job}"
        name = one_line(schedule.about.get("name", schedule.id))
        number = await self._number_of(schedule.id)
        return f"job {'?' if number is None else number} {name!r} ({claim.job})"

    async def _number_of(self, schedule_id: str) -> int | None:
        number = self._numbers.get(schedule_id)
        if number is not None:
            return number
        try:
            found = await self._service.store.schedules(ScheduleQuery(ids=(schedule_id,)))
        except StoreError:
            return None
        if not found:
            return None
        if len(self._numbers) >= _MOST_NUMBERS:
            self._numbers.clear()
        self._numbers[schedule_id] = found[0].number
        return found[0].number


def _parameters(kwargs: dict[str, Any]) -> str:
    if not kwargs:
        return ""
    names = sorted(kwargs, key=lambda name: name not in _FIRST)
    known = masked({name: kwargs[name] for name in names})
    shown = ", ".join(
        f"{one_line(name)}={_cut(repr(known[name]), _LONGEST_VALUE)}" for name in names
    )
    return f": {_cut(shown, _LONGEST + len(_FIRST) * _LONGEST_VALUE)}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."

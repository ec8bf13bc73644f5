"""What the pages show, made ready for their templates: in words, and without secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from job_scheduler.run import RunState
from job_scheduler.service.masking import masked, masked_text
from job_scheduler.service.models import LARGEST_ID
from job_scheduler.service.pages.words import day_and_time, lasting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from job_scheduler.service.models import JobOut, OutcomeOut, RunDetail, RunOut
    from job_scheduler.stores.base import Counts

_LONGEST: Final = 1000
_LONGEST_ERROR: Final = 300
_LONGEST_RESULT: Final = 256 * 1024


class Where(NamedTuple):
    """What of the lists is looked at: the query of the page's address."""

    text: str = ""
    state: str = ""
    after: int = 0
    runs: str = ""
    job: int | None = None
    before: str = ""

    @classmethod
    def read(cls, query: str) -> Where:
        """From a query string; what has no meaning in it is passed over."""
        given = {
            name: value.replace("\0", "")[:_LONGEST]
            for name, value in parse_qsl(query, errors="replace")
        }
        state, runs = given.get("state"), given.get("runs")
        return cls(
            text=given.get("text", "").strip(),
            state=state if state in ("active", "paused") else "",
            after=_number(given.get("after")) or 0,
            runs=runs if runs in list(RunState) else "",
            job=_number(given.get("job")),
            before=given.get("before", ""),
        )

    @property
    def query(self) -> str:
        return urlencode([(name, value) for name, value in self._asdict().items() if value])

    @property
    def is_paused(self) -> bool | None:
        """Whether only jobs that are paused are looked at, or only those that are not."""
        return {"active": False, "paused": True}.get(self.state)

    @property
    def run_state(self) -> RunState | None:
        return RunState(self.runs) if self.runs else None

    @property
    def filters_jobs(self) -> bool:
        return bool(self.text or self.state)

    def url(self, to: str = "", **changes: Any) -> str:
        """The address of the page with some of this changed, and the part of it to go to."""
        query = self._replace(**changes).query
        return (f"/?{query}" if query else "/") + (f"#{to}" if to else "")


def _number(text: str | None) -> int | None:
    if not (text and text.isascii() and text.isdigit() and len(text) < 20):
        return None
    return min(int(text), LARGEST_ID)


class Totals(NamedTuple):
    """The figures at the head of the page."""

    jobs: int
    running: int
    of: str
    waiting: int
    next_run_at: datetime | None


def totals_of(counts: Counts, limit: int | None) -> Totals:
    """How much there is; what goes on may be more than one server runs, if there are several."""
    of = "" if limit is None else f"of {limit}" if counts.running <= limit else "on all servers"
    return Totals(counts.schedules, counts.running, of, counts.due, counts.next_at)


class Bar(NamedTuple):
    """One run in the strip of a job."""

    run_id: str
    state: str
    label: str


class JobRow(NamedTuple):
    """A job as it is listed."""

    job: JobOut
    state: str
    words: str
    bars: list[Bar]
    parameters: str


def job_row(job: JobOut, outcomes: Sequence[OutcomeOut]) -> JobRow:
    """A job with its last runs, the oldest first."""
    return JobRow(
        job,
        state_of(job),
        job.schedule.removesuffix(f" ({job.timezone})"),
        [_bar(outcome) for outcome in reversed(outcomes)],
        as_json(job.parameters) if job.parameters else "",
    )


def state_of(job: JobOut) -> str:
    """The one word for how it stands with a job."""
    if job.running or job.last_state == RunState.RUNNING:  # by its schedule, or beside it
        return "running"
    if not job.is_active:
        return "paused"
    if job.last_state == RunState.FAILED:
        return "failing"
    return "over" if job.next_run_at is None else "active"


def _bar(outcome: OutcomeOut) -> Bar:
    label = f"{outcome.state.capitalize()}, {day_and_time(outcome.started_at or outcome.due_at)}"
    if outcome.started_at and outcome.ended_at:
        took = (outcome.ended_at - outcome.started_at).total_seconds()
        label += f", took {lasting(max(0.0, took))}"
    return Bar(outcome.run_id, outcome.state, label)


class RunRow(NamedTuple):
    """A run as it is listed."""

    run: RunOut
    name: str
    error: str


def run_row(run: RunOut) -> RunRow:
    """A run with its error in one line."""
    error = masked_text(run.error[:_LONGEST_ERROR]) if run.error else ""
    return RunRow(run, run.job_name or run.job_type, " ".join(error.split()))


class RunView(NamedTuple):
    """A run with all that is known of it."""

    run: RunDetail
    name: str
    texts: list[tuple[str, str]]
    """Titles and what stands under them."""


def run_view(run: RunDetail) -> RunView:
    """A run with its error, output, result and parameters."""
    texts = [
        ("Error", masked_text(run.error or "")),
        ("Traceback", masked_text(run.traceback or "")),
        ("Output", masked_text(run.output)),
        ("Result", "" if run.result is None else _result(run.result)),
        ("Parameters", as_json(run.parameters) if run.parameters else ""),
    ]
    return RunView(run, run.job_name or run.job_type, [each for each in texts if each[1]])


def _result(value: Any) -> str:
    """The result, unless it is so long that the server would do nothing else for seconds."""
    length = len(json.dumps(value))
    if length <= _LONGEST_RESULT:
        return as_json(value)
    return f"{length:,} characters of JSON, which the API gives: too many for a page."


def as_json(value: Any) -> str:
    """JSON for people: over several lines, any script as it is, secrets hidden."""
    return json.dumps(masked(value), indent=2, ensure_ascii=False)


class TypeOption(NamedTuple):
    """A job type in the form that adds a job."""

    name: str
    description: str
    example: str


def type_option(described: Mapping[str, Any]) -> TypeOption:
    """A job type, with parameters to begin from."""
    properties = described["parameters"].get("properties", {})
    example = {name: _example(schema) for name, schema in properties.items()}
    return TypeOption(
        described["name"],
        described["description"] or "",
        json.dumps(example, indent=2, ensure_ascii=False),
    )


_EMPTY: Final[Mapping[str, Any]] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "object": {},
}


def _example(schema: Mapping[str, Any]) -> Any:
    """The default of a parameter, or something empty of its kind."""
    if schema.get("default") is not None:
        return schema["default"]
    kinds = [schema.get("type"), *(each.get("type") for each in schema.get("anyOf", []))]
    return next((_EMPTY[kind] for kind in kinds if isinstance(kind, str) and kind in _EMPTY), None)

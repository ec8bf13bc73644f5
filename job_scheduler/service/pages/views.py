"""What a page shows, made ready for its template."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode

from job_scheduler.run import RunState
from job_scheduler.service.masking import masked
from job_scheduler.service.pages.words import day_and_time, lasting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from job_scheduler.service.pages.contract import Job, JobType, Outcome

OUTCOMES: Final = 20
"""How many of its last runs a job shows."""

_LARGEST: Final = 2**63 - 1
_LONGEST: Final = 200


class Where(NamedTuple):
    """What of the lists is looked at; the query of the page's address."""

    text: str = ""
    state: str = ""
    after: str = ""
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
        state, runs, job = given.get("state", ""), given.get("runs", ""), given.get("job", "")
        return cls(
            text=given.get("text", "").strip(),
            state=state if state in ("active", "paused") else "",
            after=given.get("after", ""),
            runs=runs if runs in RunState.__members__.values() else "",
            job=int(job) if job.isascii() and job.isdigit() and int(job) <= _LARGEST else None,
            before=given.get("before", ""),
        )

    @property
    def query(self) -> str:
        return urlencode([(name, value) for name, value in self._asdict().items() if value])

    @property
    def paused(self) -> bool | None:
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


class Bar(NamedTuple):
    """One run in the strip of a job."""

    run_id: str
    state: str
    label: str


class JobRow(NamedTuple):
    """A job as it is listed."""

    job: Job
    state: str
    words: str
    bars: list[Bar]
    parameters: str


def job_row(job: Job, outcomes: Sequence[Outcome]) -> JobRow:
    """A job with its last runs, oldest first, and its parameters without their secrets."""
    return JobRow(
        job,
        state_of(job),
        job.schedule.removesuffix(f" ({job.timezone})"),
        [_bar(outcome) for outcome in reversed(outcomes[:OUTCOMES])],
        shown_json(job.parameters) if job.parameters else "",
    )


def state_of(job: Job) -> str:
    """The one word for how it stands with a job."""
    if job.running:
        return "running"
    if not job.is_active:
        return "paused"
    if job.last_state == RunState.FAILED:
        return "failing"
    return "active" if job.next_run_at else "over"


def _bar(outcome: Outcome) -> Bar:
    label = f"{outcome.state.capitalize()}, {day_and_time(outcome.started_at or outcome.at)}"
    if outcome.started_at and outcome.ended_at:
        took = (outcome.ended_at - outcome.started_at).total_seconds()
        label += f", took {lasting(took)}"
    return Bar(outcome.run_id, outcome.state, label)


def shown_json(value: Any) -> str:
    """JSON for people: over several lines, any script as it is, secrets hidden."""
    return json.dumps(masked(value), indent=2, ensure_ascii=False, default=str)


class TypeOption(NamedTuple):
    """A kind of job in the form that adds one."""

    name: str
    description: str
    example: str


def type_option(job_type: JobType) -> TypeOption:
    """A kind of job, with parameters to begin from."""
    example = _example(job_type.parameters)
    return TypeOption(
        job_type.name,
        (job_type.description or "").strip().partition("\n")[0],
        json.dumps(example, indent=2, ensure_ascii=False) if example else "{}",
    )


_EMPTY: Final[Mapping[str, Any]] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "object": {},
}


def _example(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A value for each parameter that the schema names."""
    return {name: _example_of(field) for name, field in schema.get("properties", {}).items()}


def _example_of(field: Any) -> Any:
    if not isinstance(field, dict):
        return None
    if field.get("examples"):
        return field["examples"][0]
    if field.get("default") is not None:
        return field["default"]
    kinds = [field, *field.get("anyOf", [])]
    known = [_EMPTY[kind["type"]] for kind in kinds if kind.get("type") in _EMPTY]
    return known[0] if known else None

"""What goes into the REST API, which is checked, and what comes out of it, which is not.

What comes out are plain dataclasses: to make one costs a third of what a model of pydantic does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    StringConstraints,
)

from job_scheduler.run import RunState

LARGEST_ID: Final = 2**63 - 1
"""What both databases can keep."""

_LARGEST_COUNT: Final = 2**31 - 1

_LONGEST_TIME: Final = 10 * 366 * 86400.0
"""Seconds."""

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ]")

_PLAIN: Final = r"^[^\x00]*$"
"""Everything but NUL, which no store can keep."""


def _check_not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("it must not be blank")
    return text


def _check_whole(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it has half a character (a lone surrogate)") from None
    return text


Text = Annotated[StrictStr, StringConstraints(pattern=_PLAIN), AfterValidator(_check_whole)]

Name = Annotated[
    StrictStr,
    StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*[^\x00\s][^\x00]*$"),
    AfterValidator(_check_whole),
    AfterValidator(_check_not_blank),
]


def _whole(value: Any) -> Any:
    """JSON knows but one kind of number: 3.0 is the whole number 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Retries = Annotated[int, Field(strict=True, ge=0, le=_LARGEST_COUNT), BeforeValidator(_whole)]

Count = Annotated[int, Field(strict=True, ge=1, le=_LARGEST_COUNT), BeforeValidator(_whole)]

Priority = Annotated[
    int, Field(strict=True, ge=-_LARGEST_COUNT, le=_LARGEST_COUNT), BeforeValidator(_whole)
]


def _check_text(value: Any) -> Any:
    if value is not None and not (isinstance(value, str) and _DATE.match(value)):
        raise ValueError("it must be a text, such as 2030-01-31T09:00:00+01:00")
    return value  # numbers, also in texts, would be taken for seconds since 1970


Instant = Annotated[AwareDatetime, BeforeValidator(_check_text)]


def _at_most(length: int) -> AfterValidator:
    """A limit that is no part of the description: there the format says more."""

    def check(text: str) -> str:
        if len(text) > length:
            raise ValueError(f"it has {len(text):,} characters; at most {length:,} are taken")
        return text

    return AfterValidator(check)


Expression = Annotated[
    StrictStr,
    _at_most(1000),
    Field(
        json_schema_extra={"format": "cron"},
        description="Five fields (minute, hour, day, month, weekday), six with seconds first, or "
        "a name such as `@daily`.",
    ),
]

Zone = Annotated[
    StrictStr,
    _at_most(100),
    Field(
        json_schema_extra={"format": "timezone"},
        description="A name of the IANA database, such as `Europe/Berlin`; `local` is that of the "
        "server.",
    ),
]

TypeName = Annotated[
    StrictStr,
    _at_most(200),
    AfterValidator(_check_whole),
    Field(
        json_schema_extra={"format": "job-type"},
        description="One of `GET /job-types`, in any case.",
    ),
]

Seconds = Annotated[float, Field(strict=True, ge=0.001, le=_LONGEST_TIME)]

Parameters = Annotated[
    dict[str, Any], Field(description="The keyword arguments of the job: any JSON object.")
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


def _without_defaults(schema: dict[str, Any]) -> None:
    for each in schema["properties"].values():
        each.pop("default", None)


class _JobFields(_Strict):
    parameters: Parameters = Field(default_factory=dict)
    description: Annotated[Text, Field(max_length=10_000)] | None = None
    timezone: Zone = "UTC"
    is_active: StrictBool = Field(default=True, description="False: paused.")
    max_retries: Retries | None = Field(
        default=None,
        description="How often a failed run is tried again; null: as the job type says.",
    )
    timeout: Seconds | None = Field(
        default=None, description="Seconds after which a run is stopped; null: as the type says."
    )
    priority: Priority = Field(
        default=5, description="Of the runs that are due, lower numbers start first."
    )
    overlap: Literal["skip", "queue"] | Count = Field(
        default="skip",
        description="While one runs: `skip` the next, `queue` one, or so many at one time.",
    )
    catch_up: Literal["latest", "all", "none"] = Field(
        default="latest", description="Which of the instants are run that were missed."
    )
    misfire_grace_time: Seconds | None = Field(
        default=None, description="Seconds by which a run may be late; null: however late."
    )
    jitter: Seconds | None = Field(
        default=None, description="Up to so many seconds later, at random."
    )
    start: Instant | None = Field(default=None, description="No run before.")
    end: Instant | None = Field(default=None, description="No run after.")
    pause_on_failures: Count | None = Field(
        default=None, description="Pause after so many failed runs in a row."
    )


class JobPatch(_JobFields):
    """What shall change; what is left out stays as it is."""

    model_config = ConfigDict(json_schema_extra=_without_defaults)

    name: Name = Field(default_factory=str)
    cron_expression: Expression = Field(default_factory=str)
    job_type: TypeName = Field(default_factory=str)


class JobIn(_JobFields):
    """A job that runs again and again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "Daily report",
                    "cron_expression": "0 9 * * 1-5",
                    "job_type": "email_notification",
                    "parameters": {"recipient": "team@example.com", "subject": "Daily report"},
                    "timezone": "Europe/Berlin",
                }
            ]
        },
    )

    name: Name
    cron_expression: Expression
    job_type: TypeName


@dataclass(slots=True, kw_only=True)
class JobOut:
    """A job as it is kept."""

    id: int
    name: str
    description: str | None
    job_type: str
    cron_expression: Annotated[
        str | None,
        Field(description="null for what a program has scheduled by an interval or an instant."),
    ]
    schedule: Annotated[str, Field(description="When it runs, in words.")]
    timezone: str | None
    parameters: dict[str, Any]
    is_active: bool
    max_retries: int | None
    timeout: float | None
    priority: int
    overlap: Literal["skip", "queue"] | int
    catch_up: Literal["latest", "all", "none"]
    misfire_grace_time: float | None
    jitter: float | None
    start: datetime | None
    end: datetime | None
    pause_on_failures: int | None
    created_at: datetime | None
    updated_at: datetime | None
    last_run_at: datetime | None
    next_run_at: Annotated[
        datetime | None, Field(description="null while it is paused, and at its end.")
    ]
    last_state: RunState | None
    running: Annotated[
        int, Field(description="How many of the runs go on that its schedule has made.")
    ]
    completed: int
    failed: int
    cancelled: int
    missed: Annotated[int, Field(description="How many instants were skipped.")]


@dataclass(slots=True, kw_only=True)
class RunOut:
    """One execution of a job."""

    id: str
    job_id: Annotated[int | None, Field(description="null if it has no job, or that was deleted.")]
    job_name: str | None
    job_type: str
    state: RunState
    attempt: int
    parameters: dict[str, Any]
    due_at: datetime
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    duration: Annotated[float | None, Field(description="Seconds.")]
    exit_code: int | None
    signal: str | None
    error: str | None


@dataclass(slots=True, kw_only=True)
class AttemptOut:
    """An attempt that was not the last."""

    number: int
    reason: Literal["failure", "crash", "release"]
    started_at: datetime | None
    ended_at: datetime | None
    exit_code: int | None
    error: str | None
    traceback: str | None


@dataclass(slots=True, kw_only=True)
class RunDetail(RunOut):
    """One execution with all that is known of it."""

    traceback: str | None
    output: Annotated[str, Field(description="The end of what it printed, if it ran in a process.")]
    result: Any
    attempts: list[AttemptOut]
    worker: str | None
    peak_memory: Annotated[int | None, Field(description="Bytes.")]
    cpu_time: Annotated[float | None, Field(description="Seconds.")]
    max_retries: int
    retries: int
    crashes: int


@dataclass(slots=True, kw_only=True)
class OutcomeOut:
    """How a run has ended, or that it has not."""

    run_id: str
    state: RunState
    due_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class RunIn(_Strict):
    """A run that is asked for, now or a little later."""

    parameters: Parameters = Field(default_factory=dict)
    delay: Annotated[float, Field(strict=True, ge=0, le=_LONGEST_TIME)] = Field(
        default=0, description="Seconds."
    )
    priority: Priority = 5
    max_retries: Retries | None = None
    timeout: Seconds | None = None


class CronIn(_Strict):
    """An expression to be looked at."""

    cron_expression: Annotated[Text, Field(max_length=1000)]
    timezone: Annotated[Text, Field(max_length=100)] = "UTC"


class CronMistake(BaseModel):
    """What is wrong with an expression, and where."""

    message: str
    field: str | None
    position: int | None = Field(description="How many characters stand before it.")
    value: str | None


class CronOut(BaseModel):
    """What an expression means, or what is wrong with it."""

    valid: bool
    description: str | None
    next_runs: list[datetime]
    error: CronMistake | None


class JobType(BaseModel):
    """Something that can be run."""

    name: str
    description: str | None
    executor: Literal["process", "thread", "coroutine", "celery"]
    parameters: dict[str, Any] = Field(description="A JSON Schema of them.")

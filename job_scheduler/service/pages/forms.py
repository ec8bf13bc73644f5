"""Forms as browsers post them, without JavaScript and without a library."""

from __future__ import annotations

import json
import re
import secrets
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import parse_qs

from job_scheduler.errors import (
    ArgumentsError,
    InvalidCronError,
    InvalidOptionError,
    SchedulerError,
    UnknownJobError,
)
from job_scheduler.triggers import Cron

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import ValidationError
    from starlette.requests import Request

FORM_TYPE: Final = "application/x-www-form-urlencoded"
_MOST_FIELDS: Final = 50
_TOKEN_BYTES: Final = 10
_TOKEN: Final = re.compile(r"[0-9a-f]{20}")


class FormError(ValueError):
    """What was posted is no form."""


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a posted form, the last value of each."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != FORM_TYPE:
        raise FormError(f"a form is posted as {FORM_TYPE}")
    body = (await request.body()).decode("utf-8", "replace")
    try:
        fields = parse_qs(body, keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise FormError("the form has too many fields") from None
    return {name: values[-1].replace("\r\n", "\n") for name, values in fields.items()}


class Preview(NamedTuple):
    """What a cron expression says: its next instants, or what is wrong and where."""

    words: str = ""
    instants: tuple[Any, ...] = ()
    error: str = ""
    before: str = ""
    wrong: str = ""
    after: str = ""


def preview(expression: str, timezone: str) -> Preview:
    """Explain a cron expression; an unknown timezone is told beside its own field."""
    try:
        cron = Cron(expression, timezone="UTC")
    except InvalidCronError as error:
        start, wrong = error.position, error.value or ""
        said = _without_expression(error, expression)
        if start is None or not wrong:
            return Preview(error=said)
        end = start + len(wrong)
        return Preview(error=said, before=expression[:start], wrong=wrong, after=expression[end:])
    try:
        cron = Cron(expression, timezone=timezone)
    except InvalidOptionError:
        return Preview(words=cron.describe().removesuffix(" (UTC)"))
    return Preview(words=cron.describe(), instants=tuple(cron.preview(3)))


_BLANK: Final = {
    "name": "",
    "job_type": "",
    "cron_expression": "",
    "timezone": "UTC",
    "parameters": "",
    "max_retries": "",
}


def _without_expression(error: InvalidCronError, expression: str) -> str:
    """What is wrong, beside the field in which the expression stands anyway."""
    return _sentence(str(error).removeprefix(f"cron {expression!r}: "))


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}".removesuffix(".") + "."


class JobForm:
    """The form that adds a job: what was typed, and what is wrong with it, by field."""

    def __init__(self, typed: Mapping[str, str] | None = None) -> None:
        self.typed = _BLANK | dict(typed or {})
        self.errors: dict[str, str] = {}
        given = self.typed.get("once", "")
        self.once = given if _TOKEN.fullmatch(given) else secrets.token_hex(_TOKEN_BYTES)
        """The key by which a form that is sent twice adds one job."""

    def read(self) -> dict[str, Any]:
        """The body of ``POST /jobs``; ``errors`` has what is wrong."""
        body: dict[str, Any] = {
            "name": self._needed("name", "Give the job a name."),
            "job_type": self._needed("job_type", "Choose what the job does."),
            "cron_expression": self._needed(
                "cron_expression", "Say when it runs, for example 0 9 * * * for each day at 09:00."
            ),
            "timezone": self.typed["timezone"].strip() or "UTC",
            "parameters": self._parameters(),
            "max_retries": self._max_retries(),
        }
        self._check_when(body["cron_expression"], body["timezone"])
        return body

    def refuse(self, error: SchedulerError) -> None:
        """Note what the service has against it, beside the field that it is about."""
        fields = {
            UnknownJobError: "job_type",
            ArgumentsError: "parameters",
            InvalidCronError: "cron_expression",
        }
        kind = next((kind for kind in fields if isinstance(error, kind)), None)
        self.errors[fields[kind] if kind else "form"] = _sentence(str(error))

    def refuse_fields(self, error: ValidationError) -> None:
        """Note what is not as the fields of the API have to be."""
        for each in error.errors(include_url=False, include_input=False, include_context=False):
            field = str(each["loc"][0]) if each["loc"] else "form"
            self.errors.setdefault(field, _sentence(each["msg"]))

    @property
    def preview(self) -> Preview:
        """What is said under the cron expression."""
        expression = self.typed["cron_expression"].strip()
        return preview(expression, self.typed["timezone"].strip()) if expression else Preview()

    def _needed(self, name: str, message: str) -> str:
        value = self.typed[name].strip()
        if not value:
            self.errors[name] = message
        return value

    def _check_when(self, expression: str, timezone: str) -> None:
        try:
            Cron("@daily", timezone=timezone)
        except InvalidOptionError as error:
            self.errors["timezone"] = _sentence(str(error))
        if not expression:
            return
        try:
            Cron(expression)
        except InvalidCronError as error:
            self.errors["cron_expression"] = _without_expression(error, expression)

    def _parameters(self) -> dict[str, Any]:
        text = self.typed["parameters"].strip() or "{}"
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
        except json.JSONDecodeError as error:
            self.errors["parameters"] = (
                f"This is no JSON: {error.msg} (line {error.lineno}, column {error.colno})."
            )
        except (ValueError, RecursionError) as error:
            self.errors["parameters"] = f"This is no JSON: {error}."
        else:
            if isinstance(value, dict):
                return value
            self.errors["parameters"] = 'Parameters are an object, like {"dataset": "user_events"}.'
        return {}

    def _max_retries(self) -> int | None:
        text = self.typed["max_retries"].strip()
        if not text:
            return None
        if text.isascii() and text.isdigit() and len(text) < 10:
            return int(text)
        self.errors["max_retries"] = "Retries are a whole number, from 0; empty for the job's own."
        return None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no value of it")

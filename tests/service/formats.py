"""What the formats of the API's description mean, for the program that tries it out.

It is loaded by ``SCHEMATHESIS_HOOKS``.
"""

from __future__ import annotations

import json

import schemathesis
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

_FIELDS = ((0, 59), (0, 23), (1, 28), (1, 12), (0, 6))


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.integers(low, high)
    ranges = st.tuples(numbers, numbers).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.integers(1, high).map(lambda step: f"*/{step}")
    lists = st.lists(numbers, min_size=2, max_size=4).map(lambda each: ",".join(map(str, each)))
    return st.one_of(st.just("*"), numbers.map(str), ranges, steps, lists)


CRON = st.one_of(
    st.tuples(*(_field(low, high) for low, high in _FIELDS)).map(" ".join),
    st.sampled_from(["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "0 9 * * mon-fri"]),
)

schemathesis.openapi.format("cron", CRON)
schemathesis.openapi.format(
    "timezone", st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"])
)
schemathesis.openapi.format(
    "job-type",
    st.sampled_from(["email_notification", "Data_Processing", "DATA_PROCESSING"]),
)


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """Take out of good requests what no description can tell to be wrong.

    NULs, an end before the start, more jitter than from one instant to the next, and a key that was
    used for another request.
    """
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    if isinstance(case.body, dict):
        case.body = json.loads(json.dumps(case.body).replace("\\u0000", ""))
        case.body.pop("end", None)
        case.body.pop("jitter", None)
    if case.headers:
        case.headers.pop("Idempotency-Key", None)

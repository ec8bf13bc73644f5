"""Cron beside other libraries that read it, on random expressions.

Where they differ from Debian's rules they are told so, or passed over:

* croniter reads a day field that begins with ``*`` as restricted, unless told otherwise, and
  a range like ``5-5`` as the whole field;
* cronsim reads ``19-19/4`` as ``19/4``; the model writes no such range;
* both lose or double runs around changes of the clock, so they are compared in UTC, and the
  changes are held against the definition in ``test_cron_dst.py``.
"""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from job_scheduler.triggers import Cron
from tests.triggers.model import random_model


def first_fires(trigger, after, count=5):
    found = []
    for _ in range(count):
        after = trigger.next_after(after)
        found.append(after)
    return found


@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**63), st.datetimes(datetime(1975, 1, 1), datetime(2060, 1, 1)))
def test_random_expressions(seed, after):
    model = random_model(random.Random(seed))
    after = after.replace(microsecond=0, tzinfo=UTC)
    theirs = list(itertools.islice(CronSim(model.expression, after), 5))
    if not theirs:
        with pytest.raises(ValueError, match="cannot occur"):
            Cron(model.expression)
        return
    ours = first_fires(Cron(model.expression), after)
    assert ours == theirs
    if not has_a_range_of_one(model):
        other = croniter(model.expression, after, datetime, implement_cron_bug=True)
        assert ours == [other.get_next() for _ in range(5)]


def has_a_range_of_one(model):
    items = ",".join(model.fields.values()).split(",")
    ranges = [item.partition("/")[0].split("-") for item in items if "-" in item]
    return any(first == last for first, last in ranges)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**63), st.datetimes(datetime(1975, 1, 1), datetime(2060, 1, 1)))
def test_random_expressions_against_the_definition(seed, after):
    model = random_model(random.Random(seed), star=0.7)
    after = after.replace(tzinfo=UTC)
    try:
        trigger = Cron(model.expression)
    except ValueError:
        return
    until = after + timedelta(days=2)
    expected = model.between(after, until, UTC)
    found = first_fires(trigger, after, len(expected) + 1)
    assert found[:-1] == expected
    assert found[-1] > until


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 L * *",
        "30 12 L 2 *",
        "0 0 * * 5L",
        "0 0 * * 0L",
        "0 0 * * 1#1",
        "0 0 * * 7#3",
        "15 10 13 * 3#5",
        "*/10 * * * * *",
        "5,35 */3 2 * * *",
        "0 0 0 29 2 *",
    ],
)
def test_extensions_as_cronsim_reads_them(expression):
    after = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    ours = first_fires(Cron(expression), after, 40)
    assert ours == list(itertools.islice(CronSim(expression, after), 40))

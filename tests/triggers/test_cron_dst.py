"""Cron where clocks change, against the definition, in zones of every kind."""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from job_scheduler.triggers import Cron
from tests.triggers.model import Model, random_model, transitions

ZONES = [
    "Africa/Cairo",  # at midnight
    "Africa/Casablanca",  # back to standard time for Ramadan
    "America/Asuncion",
    "America/Havana",  # at midnight and at one
    "America/Los_Angeles",
    "America/New_York",
    "America/Nuuk",
    "America/Sao_Paulo",  # at midnight, until 2019
    "America/Santiago",
    "America/St_Johns",  # half an hour off, and at one minute past midnight until 2011
    "Antarctica/Troll",  # two hours
    "Asia/Amman",
    "Asia/Beirut",
    "Asia/Gaza",
    "Asia/Kathmandu",  # none; three quarters of an hour off
    "Asia/Pyongyang",  # half an hour, twice
    "Asia/Tehran",
    "Atlantic/Azores",  # across midnight
    "Australia/Adelaide",
    "Australia/Lord_Howe",  # half an hour
    "Australia/Sydney",
    "Europe/Berlin",
    "Europe/Dublin",  # winter time is the exception
    "Europe/Istanbul",
    "Europe/London",
    "Pacific/Apia",  # lost a whole day in 2011
    "Pacific/Auckland",
    "Pacific/Chatham",
    "Pacific/Norfolk",
]

SOME = [
    "30 2 * * *",
    "0 3 * * *",
    "*/30 2 * * *",
    "*/7 * * * *",
    "0 * * * *",
    "0 */6 * * *",
    "15,45 0-3 * * *",
    "59 23 * * *",
    "0 0 * * *",
    "30 0 * * *",
    "0 0 * * 0",
    "10 1,2,3 1-31/2 * *",
]

NAMES = ("minute", "hour", "day", "month", "weekday")


@pytest.fixture(scope="module")
def seed():
    seed = int(os.environ.get("TEST_SEED", time.time_ns() % 1_000_000))
    print(f"TEST_SEED={seed}")
    return seed


def fires(trigger, first, last):
    found = []
    instant = trigger.next_after(first)
    while instant is not None and instant <= last:
        assert not found or instant > found[-1]
        found.append(instant)
        instant = trigger.next_after(instant)
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_around_the_changes_of_three_decades(zone, seed):
    """Each change of the clock, with common and with random expressions."""
    chance = random.Random(f"{seed} {zone}")
    info = ZoneInfo(zone)
    changes = transitions(zone, 2000, 2032)
    for change in chance.sample(changes, min(len(changes), 25)):
        first = change - timedelta(hours=chance.choice([1, 5, 26]), seconds=chance.randint(0, 59))
        last = change + timedelta(hours=chance.choice([2, 6, 27]))
        common = Model(**dict(zip(NAMES, chance.choice(SOME).split(), strict=True)))
        for model in (common, random_model(chance, star=0.7)):
            try:
                trigger = Cron(model.expression, zone)
            except ValueError:
                continue  # a date that cannot occur
            expected = model.between(first, last, info)
            assert fires(trigger, first, last) == expected, (model.expression, zone, first)
            # From any instant on, not only from one that it gave.
            between = first + (last - first) * chance.random()
            later = [instant for instant in expected if instant > between]
            if later:
                assert trigger.next_after(between) == later[0], (model.expression, between)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe", "America/Sao_Paulo"])
def test_every_minute_of_a_year_is_counted_once(zone):
    first = datetime(2018, 1, 1, tzinfo=UTC)
    last = datetime(2018, 12, 31, tzinfo=UTC)
    assert len(fires(Cron("* * * * *", zone), first, last)) == (last - first) // timedelta(
        minutes=1
    )


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
def test_a_daily_job_runs_once_a_day_for_a_century(zone):
    for hour in (0, 1, 2, 3):
        found = fires(
            Cron(f"30 {hour} * * *", zone),
            datetime(1990, 1, 1, 12, tzinfo=UTC),
            datetime(2090, 1, 1, 12, tzinfo=UTC),
        )
        days = [instant.astimezone(ZoneInfo(zone)).date() for instant in found]
        assert len(days) == len(set(days)) == 36_525


def test_two_fixed_times_in_one_gap_are_one_run():
    found = Cron("5,25,45 2 * * *", "Europe/Berlin").preview(
        4, datetime(2026, 3, 28, 1, 30, tzinfo=UTC)
    )
    assert [str(instant) for instant in found] == [
        "2026-03-28 02:45:00+01:00",
        "2026-03-29 03:00:00+02:00",
        "2026-03-30 02:05:00+02:00",
        "2026-03-30 02:25:00+02:00",
    ]


def test_a_whole_day_that_a_place_skipped():
    """Samoa had no 30 December 2011: what was due then is due right after, once."""
    after = datetime(2011, 12, 29, 0, 0, tzinfo=ZoneInfo("Pacific/Apia"))
    found = Cron("0 9,17 * * *", "Pacific/Apia").preview(5, after)
    assert [str(instant) for instant in found] == [
        "2011-12-29 09:00:00-10:00",
        "2011-12-29 17:00:00-10:00",
        "2011-12-31 00:00:00+14:00",
        "2011-12-31 09:00:00+14:00",
        "2011-12-31 17:00:00+14:00",
    ]
    every_six_hours = Cron("0 */6 * * *", "Pacific/Apia").preview(5, after)
    assert [instant.day for instant in every_six_hours] == [29, 29, 29, 31, 31]

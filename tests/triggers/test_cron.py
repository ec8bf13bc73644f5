"""Cron expressions: what they mean, what is refused, and in which words they are told."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest

from job_scheduler.errors import InvalidCronError
from job_scheduler.triggers import Cron
from tests.conftest import ROOT

START = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


def fires(expression, count, after=START):
    """The next fires in short: 'MM-DD HH:MM'."""
    trigger = Cron(expression)
    instants = []
    for _ in range(count):
        after = trigger.next_after(after)
        instants.append(after.strftime("%m-%d %H:%M"))
    return instants


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", ["01-01 00:01", "01-01 00:02"]),
        ("*/20 * * * *", ["01-01 00:20", "01-01 00:40", "01-01 01:00"]),
        ("5/20 * * * *", ["01-01 00:05", "01-01 00:25", "01-01 00:45", "01-01 01:05"]),
        ("10-30/10,5 1 * * *", ["01-01 01:05", "01-01 01:10", "01-01 01:20", "01-01 01:30"]),
        ("0 0 * * *", ["01-02 00:00", "01-03 00:00"]),
        ("0 9 * * mon-FRI", ["01-01 09:00", "01-02 09:00", "01-05 09:00"]),
        ("0 9 * * 0", ["01-04 09:00", "01-11 09:00"]),
        ("0 9 * * 7", ["01-04 09:00", "01-11 09:00"]),
        ("0 9 * * 6-7", ["01-03 09:00", "01-04 09:00", "01-10 09:00"]),
        ("0 0 31 * *", ["01-31 00:00", "03-31 00:00", "05-31 00:00"]),
        ("0 0 L * *", ["01-31 00:00", "02-28 00:00", "03-31 00:00"]),
        ("0 0 l,15 * *", ["01-15 00:00", "01-31 00:00", "02-15 00:00"]),
        ("0 0 * * 5L", ["01-30 00:00", "02-27 00:00", "03-27 00:00"]),
        ("0 0 * * friL", ["01-30 00:00", "02-27 00:00"]),
        ("0 0 * * mon#1", ["01-05 00:00", "02-02 00:00"]),
        ("0 0 * * 4#5", ["01-29 00:00", "04-30 00:00"]),
        ("0 0 * * 7#2", ["01-11 00:00", "02-08 00:00"]),
        ("0 0 13 * fri", ["01-02 00:00", "01-09 00:00", "01-13 00:00", "01-16 00:00"]),
        ("0 0 1-7 * */7", ["01-04 00:00", "02-01 00:00", "03-01 00:00"]),  # AND: a star
        ("0 0 */2 * mon", ["01-05 00:00", "01-19 00:00", "02-09 00:00"]),  # AND: a star
        ("0 0 1 jan,JUL *", ["07-01 00:00", "01-01 00:00"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00"]),
        ("@hourly", ["01-01 01:00", "01-01 02:00"]),
        ("@daily", ["01-02 00:00"]),
        ("@midnight", ["01-02 00:00"]),
        ("@weekly", ["01-04 00:00"]),
        ("@Monthly", ["02-01 00:00"]),
        ("@yearly", ["01-01 00:00"]),
        ("@annually", ["01-01 00:00"]),
        ("  0\t9  * * 1 ", ["01-05 09:00"]),
    ],
)
def test_fires(expression, expected):
    assert fires(expression, len(expected)) == expected


def test_a_sixth_field_in_front_is_the_second():
    after = datetime(2026, 1, 1, 0, 0, 50, 5, UTC)
    trigger = Cron("*/25 59 23 * * *")
    for expected in (
        datetime(2026, 1, 1, 23, 59, 0, tzinfo=UTC),
        datetime(2026, 1, 1, 23, 59, 25, tzinfo=UTC),
        datetime(2026, 1, 1, 23, 59, 50, tzinfo=UTC),
        datetime(2026, 1, 2, 23, 59, 0, tzinfo=UTC),
    ):
        after = trigger.next_after(after)
        assert after == expected


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_never_at_or_before_the_start(zone):
    noon = datetime(2026, 6, 1, 10, 0, tzinfo=UTC)
    trigger = Cron("0 12,10 * * *", zone)
    at = trigger.next_after(noon - timedelta(microseconds=1))
    assert at == noon
    assert trigger.next_after(at) > at
    assert trigger.next_after(at + timedelta(microseconds=1)) > at


def test_what_it_gives_is_utc_whatever_it_was_given():
    elsewhere = datetime(2026, 6, 1, 13, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    found = Cron("0 * * * *").next_after(elsewhere)
    assert found == datetime(2026, 6, 1, 9, 0, tzinfo=UTC)
    assert found.tzinfo is UTC


def test_a_naive_start_is_local_time():
    code = (
        "from datetime import datetime; from job_scheduler.triggers import Cron\n"
        "print(Cron('0 * * * *').next_after(datetime(2026, 6, 1, 13, 30)))\n"
        "print(Cron('0 9 * * *', 'local').preview(1, datetime(2026, 6, 1, 13, 30))[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"TZ": "Asia/Kolkata", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["2026-06-01 09:00:00+00:00", "2026-06-02 09:00:00+05:30"]


def test_the_end_of_the_calendar():
    assert Cron("* * * * *").next_after(datetime.max.replace(tzinfo=UTC)) is None
    for zone in ("Asia/Tokyo", "America/New_York", "local"):
        trigger = Cron("0 0 1 1 *", zone)
        assert trigger.next_after(datetime(9999, 6, 1, tzinfo=UTC)) is None
        assert trigger.next_after(datetime.max.replace(tzinfo=UTC)) is None


def test_the_rarest_dates():
    """29 February on a Monday: by way of the star, both day fields must match."""
    trigger = Cron("0 0 */28 2 mon")
    on_the_29th = []
    instant = datetime(2026, 1, 1, tzinfo=UTC)
    while len(on_the_29th) < 3:
        instant = trigger.next_after(instant)
        if instant.day == 29:
            on_the_29th.append(instant.year)
    assert on_the_29th == [2044, 2072, 2112]
    assert Cron("0 0 29 2 *").next_after(datetime(2096, 3, 1, tzinfo=UTC)).year == 2104


@pytest.mark.parametrize(
    ("expression", "field", "position", "value", "words"),
    [
        ("61 * * * *", "minute", 0, "61", "61 is out of range; allowed are 0 to 59"),
        ("60 * * * *", "minute", 0, "60", "out of range"),
        ("* 24 * * *", "hour", 2, "24", "allowed are 0 to 23"),
        ("* * 0 * *", "day of month", 4, "0", "allowed are 1 to 31"),
        ("* *   32 * *", "day of month", 6, "32", "at character 7"),
        ("* * * 13 *", "month", 6, "13", "1 to 12, or jan to dec"),
        ("* * * febr *", "month", 6, "febr", "did you mean 'feb'"),
        ("* * * * 8", "day of week", 8, "8", "0 to 7, or sun to sat"),
        ("* * * * monday", "day of week", 8, "monday", "did you mean 'mon'"),
        ("1,2,99 * * * *", "minute", 4, "99", "at character 5"),
        ("0 22-2 * * *", "hour", 2, "22-2", "runs backwards"),
        ("0 0 * * fri-sun", "day of week", 8, "fri-sun", "runs backwards"),
        ("*/0 * * * *", "minute", 0, "*/0", "a step is 1 or more"),
        ("5, * * * *", "minute", 2, "", "cannot be read"),
        ("- * * * *", "minute", 0, "-", "cannot be read"),
        ("-5 * * * *", "minute", 0, "-5", "cannot be read"),
        ("+5 * * * *", "minute", 0, "+5", "cannot be read"),
        ("1-2-3 * * * *", "minute", 0, "1-2-3", "cannot be read"),
        ("*-5 * * * *", "minute", 0, "*-5", "cannot be read"),
        ("1.5 * * * *", "minute", 0, "1.5", "cannot be read"),
        ("٣ * * * *", "minute", 0, "٣", "cannot be read"),
        ("\uff13 * * * *", "minute", 0, "\uff13", "cannot be read"),
        ("* * * * mon#6", "day of week", 8, "mon#6", "#1 to #5"),
        ("* * * * mon#0", "day of week", 8, "mon#0", "#1 to #5"),
        ("* * * * L", "day of week", 8, "L", "names no day of week"),
        ("* L * * *", "hour", 2, "L", "names no hour"),
        ("60 * * * * *", "second", 0, "60", "0 to 59"),
        ("0 0 30 2 *", "day of month", None, "30", "cannot occur"),
        ("0 0 31 2,4,6,9,11 *", "day of month", None, "31", "cannot occur"),
        ("0 0 30 2 */2", "day of month", None, "30", "cannot occur"),
        ("* * * *", None, None, None, "has 4 fields; it needs five"),
        ("* * * * * * *", None, None, None, "has 7 fields"),
        ("", None, None, None, "has no fields"),
        (" ", None, None, None, "has no fields"),
        ("daily", None, None, None, "has one field"),
        ("@daly", None, None, "@daly", "did you mean '@daily'"),
        ("@reboot", None, None, "@reboot", "a delay of zero"),
        ("@", None, None, "@", "there are @yearly"),
        ("0 " * 600, None, None, None, "1000 characters at most"),
        (None, None, None, None, "is a string, not None"),
        (5, None, None, None, "is a string, not 5"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(expression, field, position, value, words):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Cron(expression)
    error = caught.value
    assert type(error) is InvalidCronError
    assert words in str(error)
    assert (error.field, error.position, error.value) == (field, position, value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Europe/Berln", "did you mean 'Europe/Berlin'"),
        ("europe/berlin ", "did you mean 'Europe/Berlin'"),
        ("../etc/passwd", "not known"),
        ("", "not known"),
        (None, "give a name like"),
        (UTC, "give a name like"),
    ],
)
def test_an_unknown_timezone_is_told_with_the_nearest(name, words):
    with pytest.raises(ValueError, match="timezone is ") as caught:
        Cron("* * * * *", name)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("5 * * * *", "at minute 5 of every hour"),
        ("@hourly", "every hour"),
        ("0 */2 * * *", "every 2 hours"),
        ("7 */2 * * *", "every 2 hours, at minute 7"),
        ("0 9 * * *", "at 09:00 every day"),
        ("15 30 9 * * *", "at 09:30:15 every day"),
        ("0 9 * * 1", "at 09:00 on Monday"),
        ("0 9,17 * * mon-fri", "at 09:00 and 17:00 on Monday to Friday"),
        ("0 9 * * sat,sun", "at 09:00 on Saturday and Sunday"),
        ("*/5 9-17 * * *", "every 5 minutes from 09:00 to 17:59"),
        ("*/15 10,14 * * *", "every 15 minutes of the hours 10 and 14"),
        ("0 22-23,0-5 * * *", "at minute 0 of the hours 0 to 5, 22 and 23 every day"),
        ("0 0 1,15 * *", "at 00:00 on the 1st and 15th of the month"),
        ("0 0 */2 * *", "at 00:00 on every 2nd day from the 1st of the month"),
        ("0 0 L * *", "at 00:00 on the last day of the month"),
        ("0 0 * * 5L", "at 00:00 on the last Friday of the month"),
        ("0 9 * * 1#2", "at 09:00 on the second Monday of the month"),
        ("0 0 13 * 5", "at 00:00 on the 13th and on every Friday of the month"),
        ("0 0 */13 * 5", "at 00:00 on the 1st, 14th and 27th of the month, if that is Friday"),
        ("@yearly", "at 00:00 on the 1st of January"),
        ("0 0 * 6-8 *", "at 00:00 in June to August"),
        ("0 0 * 12 1", "at 00:00 on Monday in December"),
        (
            "30 4 1-7,L 6-8 sun,fri#3",
            "at 04:30 on the 1st to 7th and the last day and on every Sunday and the third Friday "
            "of June to August",
        ),
        ("*/10 * * * * *", "every 10 seconds"),
        ("*/10 30 9 * * *", "every 10 seconds at minute 30 of the hour 9"),
    ],
)
def test_plain_english(expression, words):
    assert Cron(expression).describe() == f"{words} (UTC)"


def test_it_names_its_timezone():
    trigger = Cron("0 9 * * *", "Europe/Berlin")
    assert trigger.describe() == "at 09:00 every day (Europe/Berlin)"
    after = datetime(2026, 3, 27, 12, tzinfo=UTC)
    assert [str(instant) for instant in trigger.preview(3, after)] == [
        "2026-03-28 09:00:00+01:00",
        "2026-03-29 09:00:00+02:00",
        "2026-03-30 09:00:00+02:00",
    ]


def test_it_is_a_value():
    trigger = Cron("0 9 * * *", "Europe/Berlin")
    assert trigger == Cron("0 9 * * *", "Europe/Berlin") != Cron("0 9 * * *")
    assert len({trigger, Cron("0 9 * * *", "Europe/Berlin")}) == 1
    assert pickle.loads(pickle.dumps(trigger)) == copy.copy(trigger) == trigger
    assert repr(trigger) == "Cron(expression='0 9 * * *', timezone='Europe/Berlin')"
    with pytest.raises(AttributeError):
        trigger.expression = "* * * * *"

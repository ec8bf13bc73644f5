"""``benchmarks/cron.py`` where clocks change: what it counts, of stand-ins and of the libraries."""

import importlib.util
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from tests.triggers.model import transitions
from tests.triggers.test_cron_dst import ZONES

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def cron(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import cron

    yield cron
    for name in ("cron", "clock_changes", "machine"):
        sys.modules.pop(name, None)


@pytest.fixture
def clock_changes(cron):
    return cron.clock_changes


def peer_with(cron, alter):
    """Ours, but for what ``alter`` makes of each fire: the fires that come instead."""

    def peer(expression, zone, start):
        fires = cron.ours(expression, zone, start)
        return lambda: (other for fire in fires() for other in alter(fire))

    return peer


def test_its_zones_are_those_of_the_tests(clock_changes):
    assert list(clock_changes.ZONES) == ZONES


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/St_Johns", "Asia/Pyongyang"])
def test_changes_are_those_of_the_definition(clock_changes, zone):
    found = [change.instant for change in clock_changes.changes_of(zone, range(2004, 2020))]
    assert found == transitions(zone, 2004, 2019)


def test_a_day_that_a_place_skipped_is_no_change_of_the_clock(clock_changes):
    found = clock_changes.changes_of("Pacific/Apia", [2011])
    assert [change.instant.month for change in found] == [4, 9]


def test_jobs_are_due_a_quarter_and_three_quarters_into_what_changes(clock_changes):
    walls = [
        (change.skips, *(f"{wall:%d. %H:%M}" for wall in change.walls))
        for zone in ("Europe/Berlin", "Australia/Lord_Howe")
        for change in clock_changes.changes_of(zone, [2026])
    ]
    assert walls == [
        (True, "29. 02:15", "29. 02:45"),
        (False, "25. 02:15", "25. 02:45"),
        (False, "05. 01:37", "05. 01:52"),
        (True, "04. 02:07", "04. 02:22"),
    ]


def test_what_is_left_out_comes_twice_or_does_not_get_on_is_counted(cron, clock_changes):
    changes = list(clock_changes.changes_of("Europe/Berlin", [2026]))
    days = {change.instant.date() for change in changes}
    here = ZoneInfo("Europe/Berlin")
    odd = {
        "ours": lambda fire: [fire],
        "leaves out": lambda fire: [fire] * (fire.astimezone(here).date() not in days),
        "doubles": lambda fire: [fire, fire + timedelta(minutes=1)],
        "stays": lambda fire: [fire] * 1000,
    }
    peers = {name: peer_with(cron, alter) for name, alter in odd.items()}
    tallies = clock_changes.compare(peers, changes)
    rows = [line.split() for line in clock_changes.table(tallies).splitlines()]
    assert rows[0] == ["2", "skipped", "2", "repeated", "*/15"]
    assert rows[2:5] == [
        ["ours", "0", "0", "0", "0", "15", "min", "0", "0"],
        ["leaves", "out", "2", "0", "2", "0", "1500", "min", "2", "0"],
        ["doubles", "0", "2", "0", "2", "15", "min", "0", "2"],
    ]
    assert (tallies["stays"].missed, tallies["stays"].doubled) == (2, 2)


def test_the_libraries_at_the_changes_of_a_year(cron, clock_changes):
    """Ours makes no mistake; of the others, only that they can be asked."""
    there = {
        name: peer
        for name, peer in cron.PEERS.items()
        if importlib.util.find_spec(name.lower()) is not None
    }
    changes = [
        change
        for zone in ("America/Havana", "Australia/Lord_Howe", "Pacific/Chatham")
        for change in clock_changes.changes_of(zone, [2026])
    ]
    tallies = clock_changes.compare(there, changes)
    ours = tallies["job_scheduler"]
    assert {name: tally.due.total() for name, tally in tallies.items()} == dict.fromkeys(there, 12)
    assert (ours.never.total(), ours.twice.total(), ours.missed, ours.doubled) == (0, 0, 0, 0)
    assert ours.longest == timedelta(minutes=15)


def test_each_library_begins_after_the_start_that_it_is_given(cron):
    start = datetime(2001, 2, 3, 4, 5, 6, tzinfo=UTC)
    for name, peer in cron.PEERS.items():
        if importlib.util.find_spec(name.lower()) is not None:
            first = next(iter(peer("0 6 * * *", "Europe/Berlin", start)()))
            assert first.astimezone(UTC) == datetime(2001, 2, 3, 5, tzinfo=UTC)

"""What ``plan`` decides, by tables and against a model that looks at each instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job_scheduler.schedule import MOST_CAUGHT_UP, Missed, Schedule, after_set_back, plan
from job_scheduler.triggers import Cron, Interval, Once

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def at(seconds):
    return START + seconds * SECOND


def every(period, **policies):
    return Schedule(id="s", job="j", trigger=Interval(period), **policies)


def seconds(plan):
    """A plan with its instants as seconds from the start."""

    def short(instant):
        return None if instant is None else (instant - START).total_seconds()

    gaps = [(short(gap.first), short(gap.last), gap.number, gap.reason) for gap in plan.missed]
    return [short(instant) for instant in plan.runs], gaps, short(plan.next_at)


@pytest.mark.parametrize(
    ("policies", "active", "now", "expected"),
    [
        ({}, 0, 0, ([0], [], 10)),
        ({}, 0, 9.9, ([0], [], 10)),
        ({}, 0, 35, ([30], [(0, 20, 3, "coalesced")], 40)),
        ({}, 1, 0, ([], [(0, 0, 1, "overlap")], 10)),
        # Where nothing runs, nothing is made up for.
        ({}, 1, 35, ([], [(0, 30, 4, "overlap")], 40)),
        ({"overlap": "queue"}, 1, 0, ([0], [], 10)),
        ({"overlap": "queue"}, 2, 0, ([], [(0, 0, 1, "overlap")], 10)),
        ({"overlap": 3}, 2, 0, ([0], [], 10)),
        ({"overlap": 3}, 3, 0, ([], [(0, 0, 1, "overlap")], 10)),
        ({"catch_up": "all"}, 0, 35, ([0, 10, 20, 30], [], 40)),
        ({"catch_up": "all"}, 1, 35, ([], [(0, 30, 4, "overlap")], 40)),
        ({"catch_up": "none"}, 0, 5, ([0], [], 10)),
        ({"catch_up": "none"}, 0, 135, ([130], [(0, 120, 13, "late")], 140)),
        ({"misfire_grace_time": "3s"}, 0, 3, ([0], [], 10)),
        ({"misfire_grace_time": "3s"}, 0, 4, ([], [(0, 0, 1, "late")], 10)),
        (
            {"misfire_grace_time": "3s"},
            0,
            35,
            ([], [(0, 30, 4, "late")], 40),
        ),
        (
            {"catch_up": "all", "misfire_grace_time": "15s"},
            0,
            35,
            ([20, 30], [(0, 10, 2, "late")], 40),
        ),
        ({"end": at(0)}, 0, 35, ([0], [], None)),
        ({"end": at(25)}, 0, 35, ([20], [(0, 10, 2, "coalesced")], None)),
        ({"counts_from_end": True}, 0, 0, ([0], [], None)),
        ({"counts_from_end": True}, 1, 0, ([], [(0, 0, 1, "overlap")], None)),
        (
            {"counts_from_end": True, "misfire_grace_time": 1},
            0,
            5,
            ([], [(0, 0, 1, "late")], 15),
        ),
        # There are no instants between the end of a run and a late wake-up.
        ({"counts_from_end": True}, 0, 600, ([0], [], None)),
        ({"counts_from_end": True, "catch_up": "all"}, 0, 600, ([0], [], None)),
    ],
)
def test_decisions(policies, active, now, expected):
    assert seconds(plan(every(10, **policies), at(0), active, at(now))) == expected


def test_a_late_instant_that_is_rare_runs_once_unless_none_shall_be_caught_up():
    daily = {"id": "s", "job": "j", "trigger": Cron("0 0 * * *")}
    late = START + timedelta(hours=5)
    assert plan(Schedule(**daily), START, 0, late).runs == (START,)
    decision = plan(Schedule(**daily, catch_up="none"), START, 0, late)
    assert decision.runs == ()
    assert decision.missed == (Missed(START, START, 1, "late"),)
    assert decision.next_at == START + timedelta(days=1)


def test_once_is_once():
    schedule = Schedule(id="s", job="j", trigger=Once(START))
    assert plan(schedule, START, 0, at(1000)) == ((START,), (), None)


def test_no_more_are_made_up_for_than_a_thousand():
    decision = plan(every(1, catch_up="all"), START, 0, at(4999))
    assert len(decision.runs) == MOST_CAUGHT_UP
    assert decision.runs[0] == at(4000)
    assert decision.missed == (Missed(at(0), at(3999), 4000, "too many"),)
    assert decision.next_at == at(5000)


@pytest.mark.parametrize("trigger", [Interval(1), Interval(1, start=START), Cron("* * * * * *")])
def test_a_long_gap_costs_no_long_time(trigger):
    """A century of seconds: those of an interval are counted, those of cron up to a number."""
    schedule = Schedule(id="s", job="j", trigger=trigger)
    now = START + timedelta(days=36_525, milliseconds=500)
    decision = plan(schedule, START, 0, now)
    assert decision.runs == (now - timedelta(milliseconds=500),)
    [gap] = decision.missed
    assert (gap.first, gap.last) == (START, decision.runs[0] - SECOND)
    assert gap.number == (36_525 * 86_400 if isinstance(trigger, Interval) else None)
    assert decision.next_at == decision.runs[0] + SECOND


def test_jitter_is_the_same_for_every_worker_and_spread():
    schedule = every(10, jitter="5s")
    offsets = [(schedule.runs_at(at(n)) - at(n)) / SECOND for n in range(0, 2000, 10)]
    again = every(10, jitter=5)
    assert offsets == [(again.runs_at(at(n)) - at(n)) / SECOND for n in range(0, 2000, 10)]
    assert all(0 <= offset < 5 for offset in offsets)
    assert min(offsets) < 0.5
    assert max(offsets) > 4.5
    assert len(set(offsets)) == 200
    assert every(10).runs_at(at(10)) == at(10)


def test_bounds():
    schedule = every(10, start=at(5), end=at(35))
    assert schedule.first_after(at(-100)) == at(5)
    assert schedule.first_after(at(5)) == at(15)
    cron = Schedule(id="s", job="j", trigger=Cron("* * * * *"), start=START, end=at(60))
    assert cron.first_after(at(-1000)) == START
    assert cron.first_after(at(0)) == at(60)
    assert cron.first_after(at(60)) is None


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ({"catch_up": "some"}, "catch_up is 'some'; it must be 'latest', 'all' or 'none'"),
        ({"overlap": "allow"}, "overlap is 'allow'; it must be 'skip', 'queue', or the number"),
        ({"overlap": 0}, "overlap is 0"),
        ({"overlap": True}, "overlap is True"),
        ({"jitter": "-1s"}, "jitter is '-1s'; it must be zero or more"),
        ({"misfire_grace_time": 0}, "misfire_grace_time is 0; it must be more than zero"),
        ({"pause_on_failures": 0}, "pause_on_failures is 0; it must be a whole number from 1"),
        ({"start": at(5), "end": at(4)}, "is before start"),
        ({"start": "2026"}, "start is '2026'; give a datetime"),
        ({"jitter": 10}, "one instant to the next (10 seconds)"),
    ],
)
def test_what_is_no_policy_is_refused(policies, words):
    with pytest.raises(ValueError, match=r"must be|is before|give a datetime") as caught:
        every(10, **policies)
    assert words in str(caught.value)


class TestSetBack:
    """The clock was set back by an hour while the next instant was ten seconds away."""

    def changed(self, schedule, by=3600):
        found = after_set_back(schedule, at(10), at(-by), by * SECOND)
        if found is not None:
            assert found[0].generation == schedule.generation + 1
        return found

    def test_what_counts_elapsed_time_goes_on(self):
        assert self.changed(every(60))[1] == at(10 - 3600)
        anchored = Schedule(id="s", job="j", trigger=Interval(60, start=at(10)))
        assert self.changed(anchored)[1] == at(10)
        beaten = Schedule(id="s", job="j", trigger=Interval(60, start=at(10 - 86_400)))
        assert self.changed(beaten)[1] == at(10 - 3600)

    def test_a_delay_is_what_is_left_of_it_and_an_instant_stays(self):
        once = Schedule(id="s", job="j", trigger=Once(at(10)), relative=True)
        schedule, next_at = self.changed(once)
        assert next_at == at(10 - 3600)
        assert schedule.first_after(at(-3600)) == next_at
        assert schedule.first_after(next_at) is None
        assert self.changed(Schedule(id="s", job="j", trigger=Once(at(10)))) is None

    def test_cron_follows_the_clock_but_repeats_no_fixed_time(self):
        minutely = Schedule(id="s", job="j", trigger=Cron("* * * * *"))
        assert self.changed(minutely)[1] == at(60 - 3600)
        daily = Schedule(id="s", job="j", trigger=Cron("0 12 * * *"))
        assert self.changed(daily) is None
        assert self.changed(daily, by=4 * 3600)[1] == at(12 * 3600)


instants = st.integers(0, 10**6).map(at)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([Interval(7), Interval(60), Cron("*/3 * * * *"), Cron("5-40/7 */2 * * *")]),
    st.sampled_from(["latest", "all", "none"]),
    st.sampled_from(["skip", "queue", 2]),
    st.none() | st.integers(1, 500),
    st.integers(0, 3),
    st.integers(0, 20_000),
)
def test_every_instant_is_accounted_for(trigger, catch_up, overlap, grace, active, after):
    """In the runs, in a gap, or still to come; in order, and each only once."""
    schedule = Schedule(
        id="s",
        job="j",
        trigger=trigger,
        catch_up=catch_up,
        overlap=overlap,
        misfire_grace_time=grace,
    )
    due = schedule.first_after(START)
    now = due + after * SECOND
    expected = [due]
    while (instant := schedule.first_after(expected[-1])) <= now:
        expected.append(instant)
    decision = plan(schedule, due, active, now)
    assert decision.next_at == instant
    accounted = list(decision.runs)
    for gap in decision.missed:
        inside = [each for each in expected if gap.first <= each <= gap.last]
        assert len(inside) == gap.number
        assert (inside[0], inside[-1]) == (gap.first, gap.last)
        accounted += inside
    assert sorted(accounted) == expected
    if active >= schedule.most_active:
        assert not decision.runs
    if grace is not None:
        assert all(now - each <= grace * SECOND for each in decision.runs)
    assert len(decision.runs) <= (1 if catch_up != "all" else MOST_CAUGHT_UP)

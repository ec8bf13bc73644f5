"""The pure parts of ``benchmarks/schedules.py``: what becomes of measurements."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def schedules(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import schedules

    yield schedules
    for name in ("schedules", "machine"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("count", "per_cent", "expected"),
    [(1, 99, 1), (100, 99, 99), (101, 99, 100), (1000, 99, 990), (10, 50, 5), (3, 0, 1)],
)
def test_a_percentile_is_one_of_the_values(schedules, count, per_cent, expected):
    assert schedules.percentile(list(range(count, 0, -1)), per_cent) == expected


def test_lateness_is_in_milliseconds(schedules):
    assert schedules.lateness("x", [0.001, 0.002, 0.004]) == {
        "x, median ms late": 2,
        "x, p99 ms late": 4,
    }
    assert schedules.lateness("x", []) == {}


def test_each_instant_counts_once_and_what_is_outside_not_at_all(schedules):
    firsts = [100.0, 200.0]
    runs = [(0, 100.25), (0, 101.5), (0, 101.75), (1, 199.5), (1, 201.125), (1, 202.0)]
    assert schedules.on_a_grid(runs, firsts, 2) == (3, [0.25, 0.5, 0.125])


def test_the_table_has_medians_the_fewest_runs_and_gaps(schedules):
    figures = {
        "late, ms": {"job_scheduler": [2, 9, 3], "APScheduler": [6, 7, 5]},
        "runs (fewest)": {"job_scheduler": [10, 9, 10], "schedule": [8, 8, 7]},
        "nothing": {"job_scheduler": [0], "APScheduler": [0.5]},
    }
    rows = [line.split() for line in schedules.table(figures).splitlines()]
    assert rows == [
        ["job_scheduler", "x", "APScheduler", "x", "schedule", "x"],
        ["late,", "ms", "3.00", "1.0", "6.00", "2.0", "-"],
        ["runs", "(fewest)", "9", "-", "7"],
        ["nothing", "0.000", "0.500", "-"],
    ]


def test_figures_have_about_three_digits(schedules):
    assert [schedules.figure(value) for value in (0.01234, 3.14159, 42, 12345.6)] == [
        "0.012",
        "3.14",
        "42.00",
        "12,346",
    ]

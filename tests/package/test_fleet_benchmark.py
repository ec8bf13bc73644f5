"""``benchmarks/fleet.py``: what becomes of measurements, and a short run of it all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "fleeting"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("count", "per_cent", "expected"), [(1, 99, 1), (100, 99, 99), (101, 99, 100), (10, 50, 5)]
)
def test_a_percentile_is_one_of_the_values(count, per_cent, expected):
    from fleeting.client import percentile

    assert percentile(list(range(count, 0, -1)), per_cent) == expected


def test_times_are_told_in_their_unit():
    from fleeting.client import spread

    assert spread("x", [0.001, 0.002, 0.004], "ms", 1e3) == {"x, median ms": 2, "x, p99 ms": 4}


def test_the_table_has_medians_ratios_and_gaps():
    from fleeting.rounds import Rounds
    from fleeting.tables import table

    rounds = Rounds()
    for rate in (100, 400, 200):
        rounds.add("bare", {"tasks/s": rate})
    rounds.add("ours", {"tasks/s": 50})
    rounds.add("ours", {"late, ms": 0.25})
    rows = [line.split() for line in table(rounds, ["bare", "ours"]).splitlines()]
    assert rows == [
        ["bare", "x", "ours", "x"],
        ["tasks/s", "200", "1.00", "50.0", "0.25"],
        ["late,", "ms", "-", "0.250"],
    ]


@pytest.mark.parametrize("odd", [9, 11])
def test_a_round_that_has_lost_runs_or_doubled_them_is_not_hidden_by_others(odd):
    from fleeting.rounds import Rounds
    from fleeting.tables import table

    rounds = Rounds()
    for runs in (10, odd, 10):
        rounds.add("ours", {"all at once, runs": runs})
    assert table(rounds, ["ours"]).split()[-1] == str(odd)


def test_publishing_is_compared_with_what_redis_takes():
    from fleeting.rounds import Rounds
    from fleeting.tables import PUBLISHED, limits

    rounds = Rounds()
    rounds.add_limits({"SET": 1_000})
    rounds.add("ours", {PUBLISHED: 250})
    assert limits(rounds, ["ours"]).endswith("SET: 1,000 tasks/s; of that are published: ours 25%")


def test_a_quick_run_measures_every_row(tmp_path):
    file = tmp_path / "figures.json"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, BENCHMARKS / "fleet.py", "--quick", "--json", file],
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert "Redis alone" in done.stdout
    found = json.loads(file.read_text())
    rounds = found["rounds"]
    sides = {"bare", "bare, defaults", "ours", "ours, SQLite"}
    for row, figures in rounds.items():
        assert set(figures) == sides - ({"ours", "ours, SQLite"} if "get()" in row else set())
        assert all(value > 0 for [value] in figures.values()), row
    [runs] = [row for row in rounds if row.endswith("runs")]
    assert set(map(tuple, rounds[runs].values())) == {(50,)}
    assert len(found["limits"]) == 2

"""``benchmarks/service.py``: what becomes of measurements, and a short run of it all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield
    packages = ("serving", "queueing", "launching", "service", "machine")
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


def test_figures_of_an_exposition_are_added_up():
    from serving.servers import sum_of

    text = (
        '# HELP runs x\nruns_total{job="a",outcome="ok"} 2.0\nruns_total{job="b"} 3.0\nother 7.0\n'
    )
    assert sum_of(text, "runs_total") == 5
    assert sum_of(text, "other") == 7
    assert sum_of(text, "more") == 0


@pytest.mark.parametrize(
    ("count", "per_cent", "expected"), [(1, 99, 1), (100, 99, 99), (101, 99, 100), (10, 50, 5)]
)
def test_a_percentile_is_one_of_the_values(count, per_cent, expected):
    from serving.client import percentile

    assert percentile(list(range(count, 0, -1)), per_cent) == expected


def test_another_checkout_is_measured_right_after_this_one():
    from service import subjects_of

    names = [each.name for each in subjects_of(["SQLite", "PostgreSQL"], Path("elsewhere"))]
    assert names == ["SQLite", "SQLite, beside", "PostgreSQL", "PostgreSQL, beside"]
    assert [each.checkout for each in subjects_of(["SQLite"], None)] == [None]


def test_the_table_has_medians_ratios_and_gaps():
    from serving.rounds import CEILING, Rounds
    from serving.tables import table

    def figures(rate):
        return {"rate": rate, "p50": 1.0, "p99": 20.25, "cpu": 0.5}

    rounds = Rounds()
    for rate in (100, 400, 200):
        rounds.add("A", "GET /healthz, 1", figures(rate))
    rounds.add("B", "GET /healthz, 1", figures(50))
    rounds.add(CEILING, "GET /, 1", figures(5000))
    lines = {line.partition("  ")[0]: line.split()[3:] for line in table(rounds).splitlines()}
    mine, others = (
        ["200", "1.00", "1.00", "20.2", "0.500"],
        ["50.0", "0.25", "1.00", "20.2", "0.500"],
    )
    assert lines["GET /healthz, 1"] == mine + others
    assert lines["GET /metrics, 1"] == ["-"] * 10
    assert lines["POST /, 1"] == ["-"] * 5
    assert lines["GET /, 1"] == [
        "5,000",
        "1.00",
        "20.2",
        "0.500",
    ]  # that of uvicorn, which stands last


def test_a_quick_run_measures_every_row(tmp_path):
    from serving.rounds import CEILING, CEILING_ROWS, EMPTY_ROWS, FULL_ROWS

    file = tmp_path / "figures.json"
    command = [sys.executable, BENCHMARKS / "service.py", "--quick", "--stores", "SQLite"]
    done = subprocess.run(
        [*command, "--json", file], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    assert "POST /run/nothing, 64" in done.stdout
    found = json.loads(file.read_text())
    rounds = found["rounds"]
    assert list(rounds[CEILING]) == [row.name for row in CEILING_ROWS]
    missing = {row.name for row in [*EMPTY_ROWS, *FULL_ROWS]} - rounds["SQLite"].keys()
    assert missing <= {"GET /, 1"}  # a service may be without its pages
    assert len(found["remarks"]) == len(missing)
    for [figures] in rounds["SQLite"].values():
        assert figures["rate"] > 0
        assert 0 < figures["p50"] <= figures["p99"]
    assert all(figures["run rate"] > 0 for [figures] in list(rounds["SQLite"].values())[:3])

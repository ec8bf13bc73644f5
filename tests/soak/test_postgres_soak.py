"""The long forms of what is done to workers over a store in PostgreSQL."""

from __future__ import annotations

import pytest

from tests.faults.test_postgres_faults import (
    crash_the_server,
    crew,
    end_connections,
    kill_workers,
    race,
    server,
    stop_a_worker,
    tick_while_killed,
)

__all__ = ["crew", "server"]


@pytest.mark.timeout(900)
def test_nothing_is_lost_when_many_workers_are_killed(crew, seeded, long):
    kill_workers(crew, 200 if long else 2, seeded)


@pytest.mark.timeout(900)
def test_what_was_accepted_outlives_many_crashes_of_the_server(server, tmp_path, seeded, long):
    crash_the_server(server, tmp_path, 20 if long else 1, seeded)


@pytest.mark.timeout(900)
def test_many_connections_are_ended_at_random(crew, seeded, long):
    end_connections(crew, 60.0 if long else 1.0, seeded)


@pytest.mark.timeout(900)
def test_many_nodes_run_each_instant_once(crew, seeded, long):
    nodes, seconds = (8, 120) if long else (2, 2)
    tick_while_killed(crew, nodes, seconds, seeded)


@pytest.mark.timeout(900)
def test_one_of_many_wins_again_and_again(crew, long):
    race(crew, 16 if long else 4, 30 if long else 1)


@pytest.mark.timeout(900)
def test_a_worker_that_is_stopped_again_and_again_writes_nothing(crew, long):
    for number in range(10 if long else 1):
        stop_a_worker(crew, number)

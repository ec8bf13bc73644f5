"""What the log tells of a run's parameters."""

from __future__ import annotations

import logging

from job_scheduler.service.run_log import _parameters
from tests.conftest import eventually
from tests.service.conftest import made, opened


def test_nothing_of_none():
    assert _parameters({}) == ""


def test_whom_and_what_come_first_however_long_the_rest_is():
    given = {"body": "b" * 5000, "subject": "s" * 5000, "recipient": "a@example.com", "z": [1]}
    said = _parameters(given)
    assert said.startswith(": subject='sss")
    assert "recipient='a@example.com'" in said
    assert "body='bbb" in said
    assert "z=[1]" in said
    assert len(said) < 600


def test_many_are_cut():
    said = _parameters({f"name {number}": number for number in range(1000)} | {"dataset": "d"})
    assert said.startswith(": dataset='d', name 0=0, ")
    assert said.endswith("...")


def test_no_secrets_and_no_line_breaks():
    said = _parameters({"password": "hunter2", "a\nb": "c\nd\x1b"})
    assert said == r": password='***', a\nb='c\nd\x1b'"


def test_the_last_is_told_before_the_store_is_closed(address, caplog, monkeypatch):
    """The store is asked for the number of a job; nobody would close it a second time."""
    caplog.set_level(logging.INFO)
    order = []
    with opened(address, shutdown_timeout=20.0) as client:
        number = made(client, name="long", job_type="Sleeps", parameters={"seconds": 0.5})["id"]
        run = client.post(f"/jobs/{number}/run").json()
        eventually(lambda: client.get(f"/runs/{run['id']}").json()["state"] == "running")
        scheduler = client.service.scheduler
        log = scheduler.engine.observer
        log._numbers.clear()
        for what in (log, scheduler.store):
            note_order(what, monkeypatch, order)
    assert f"job {number} 'long' (Sleeps) completed" in caplog.text
    assert order[:2] == [log, scheduler.store]


def note_order(what, monkeypatch, order):
    close = what.close

    async def closing():
        await close()
        order.append(what)

    monkeypatch.setattr(what, "close", closing)

"""Runs over REST, on both stores."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from urllib.parse import quote

import pytest

from tests.conftest import eventually
from tests.service.conftest import ended, made, opened


def start(client, job_type, **body):
    answer = client.post(f"/run/{job_type}", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()


class TestFireAndForget:
    def test_answers_at_once_and_runs(self, client):
        run = start(client, "PRINTS", parameters={"a": 1})
        assert (run["job_id"], run["job_type"], run["parameters"]) == (None, "Prints", {"a": 1})
        run = ended(client, run["id"])
        assert (run["state"], run["exit_code"], run["error"]) == ("completed", 0, None)
        assert run["output"] == "printed\ncomplained\n"
        assert run["result"]["pid"] != os.getpid()
        assert run["duration"] >= 0

    def test_needs_no_body(self, client):
        assert client.post("/run/note").status_code == 202

    def test_later_with_options(self, client):
        run = start(client, "Note", delay=3600, priority=1, max_retries=2)
        detail = client.get(f"/runs/{run['id']}").json()
        assert (detail["state"], detail["max_retries"]) == ("pending", 2)

    def test_the_answer_is_what_is_kept(self, client):
        run = start(client, "Note", delay=3600, parameters={"a": [1.5, "ü", None, {"b": 2**70}]})
        kept = client.get(f"/runs/{run['id']}").json()
        asked_at, kept_at = (datetime.fromisoformat(each.pop("created_at")) for each in (run, kept))
        assert {name: kept[name] for name in run} == run
        assert abs(kept_at - asked_at) < timedelta(seconds=5)

    def test_with_a_key_happens_once(self, client):
        def post(**parameters):
            headers = {"Idempotency-Key": "evt_1"}
            return client.post("/run/note", json={"parameters": parameters}, headers=headers)

        first = post(a=1).json()
        assert post(a=1).json()["id"] == first["id"]
        assert post(a=2).status_code == 422
        assert len(client.get("/runs").json()) == 1

    @pytest.mark.parametrize(
        ("job_type", "body", "said"),
        [
            ("Strict", {}, "what"),
            ("Note", {"parameters": [1]}, "parameters"),
            ("Note", {"parameter": {}}, "parameters"),
            ("Note", {"delay": -1}, "delay"),
            ("Note", {"parameters": {"a": "\0"}}, "NUL"),
        ],
    )
    def test_refuses_with_a_sentence(self, client, job_type, body, said):
        answer = client.post(f"/run/{job_type}", json=body)
        assert answer.status_code == 422
        assert said in answer.text
        assert client.get("/runs").json() == []

    @pytest.mark.parametrize("job_type", ["os.system", "__init__", "%00", "x" * 300])
    def test_lists_the_known_types_to_whoever_asks_for_another(self, client, job_type):
        answer = client.post(f"/run/{job_type}", json={})
        assert answer.status_code == 404
        if len(job_type) < 200:
            assert "email_notification" in answer.json()["detail"]


class TestLists:
    def test_the_newest_first_and_in_pages(self, client):
        ids = [start(client, "Note", parameters={"n": n})["id"] for n in range(5)]
        for run_id in ids:
            ended(client, run_id)
        assert [each["id"] for each in client.get("/runs").json()] == ids[::-1]
        seen, url = [], "/runs?limit=2"
        while url:
            answer = client.get(url)
            seen += [each["parameters"]["n"] for each in answer.json()]
            url = answer.links.get("next", {}).get("url")
        assert seen == [4, 3, 2, 1, 0]

    def test_filters(self, client):
        good = start(client, "Note")["id"]
        bad = start(client, "Fails")["id"]
        ended(client, good), ended(client, bad)
        assert [each["id"] for each in client.get("/runs?state=failed").json()] == [bad]
        assert [each["id"] for each in client.get("/runs?job_type=note").json()] == [good]
        assert client.get("/runs?state=odd").status_code == 422

    @pytest.mark.parametrize("query", ["cursor=gone", "limit=0", "limit=x", "cursor=%00"])
    def test_refuses_odd_pages(self, client, query):
        expected = 404 if query == "cursor=gone" else 422
        assert client.get(f"/runs?{query}").status_code == expected

    @pytest.mark.parametrize("run_id", ["unknown", "%00", "a b", "%F0%9F%99%82"])
    def test_an_unknown_one_is_not_there(self, client, run_id):
        for method, path in (("GET", ""), ("POST", "/cancel"), ("POST", "/retry")):
            answer = client.request(method, f"/runs/{run_id}{path}")
            assert answer.status_code == 404
            assert "there is no run" in answer.json()["detail"]


class TestCancelling:
    @pytest.mark.parametrize("job_type", ["Sleeps", "Waits"])
    def test_what_goes_on(self, client, job_type):
        run_id = start(client, job_type)["id"]
        eventually(lambda: client.get(f"/runs/{run_id}").json()["state"] == "running")
        assert client.post(f"/runs/{run_id}/cancel").status_code == 202
        assert ended(client, run_id)["state"] == "cancelled"
        answer = client.post(f"/runs/{run_id}/cancel")
        assert answer.status_code == 409
        assert "cancelled" in answer.json()["detail"]

    def test_what_waits(self, client):
        run_id = start(client, "Note", delay=3600)["id"]
        assert client.post(f"/runs/{run_id}/cancel").json()["state"] == "cancelled"


class TestIds:
    @pytest.mark.parametrize("key", ["a/b", "a?b#c", "../x", "cancel"])
    def test_any_key_makes_an_id_that_is_found(self, client, key):
        run = client.post("/run/note", headers={"Idempotency-Key": key}).json()
        found = client.get(f"/runs/{quote(run['id'], safe='')}")
        assert found.json()["id"] == run["id"]
        assert ended(client, quote(run["id"], safe=""))["state"] == "completed"
        again = client.post(f"/runs/{quote(run['id'], safe='')}/retry")
        assert again.status_code == 202

    def test_the_longest_keys_make_no_longer_ids_with_each_retry(self, client):
        run = client.post("/run/note", headers={"Idempotency-Key": "k" * 255}).json()
        for number in range(5):
            ended(client, run["id"])
            headers = {"Idempotency-Key": f"{number}" * 255}
            again = [client.post(f"/runs/{run['id']}/retry", headers=headers) for _ in range(2)]
            assert [each.status_code for each in again] == [202, 202]
            assert again[0].json()["id"] == again[1].json()["id"] != run["id"]
            run = again[0].json()

    def test_a_job_that_has_changed_is_still_run_once_for_a_key(self, client):
        made(client)
        runs = []
        for number in range(2):
            runs.append(client.post("/jobs/1/run", headers={"Idempotency-Key": "k"}))
            client.patch("/jobs/1", json={"parameters": {"number": number}})
        assert [each.status_code for each in runs] == [202, 202]
        assert runs[0].json()["id"] == runs[1].json()["id"]


class TestTryingAgain:
    def test_what_has_ended(self, client):
        made(client, job_type="fails", parameters={"a": 1})
        run = ended(client, client.post("/jobs/1/run").json()["id"])
        answer = client.post(f"/runs/{run['id']}/retry")
        assert answer.status_code == 202
        again = ended(client, answer.json()["id"])
        assert again["id"] != run["id"]
        assert (again["job_id"], again["parameters"]) == (1, {"a": 1})

    def test_within_the_same_limits(self, client):
        run = start(client, "Waits", timeout=0.05, max_retries=1)
        assert ended(client, run["id"])["retries"] == 1
        again = client.post(f"/runs/{run['id']}/retry").json()
        again = ended(client, again["id"])
        assert (again["state"], again["retries"]) == ("failed", 1)
        assert "not done after 0.05 s" in again["error"]

    def test_not_what_goes_on(self, client):
        run_id = start(client, "Note", delay=3600)["id"]
        assert client.post(f"/runs/{run_id}/retry").status_code == 409


class TestProcesses:
    def test_a_signal_is_named(self, client):
        run = ended(client, start(client, "Dies")["id"], 60)
        assert (run["state"], run["signal"], run["exit_code"]) == ("failed", "SIGKILL", None)
        assert "SIGKILL" in run["error"]

    def test_no_more_at_one_time_than_allowed(self, address):
        with opened(address, max_concurrent_jobs=2) as client:
            ids = [start(client, "Sleeps", parameters={"seconds": 0.3})["id"] for _ in range(6)]
            most = 0
            while any(client.get(f"/runs/{each}").json()["ended_at"] is None for each in ids):
                most = max(most, len(client.get("/runs?state=running").json()))
            assert most == 2

    def test_the_api_answers_while_jobs_run(self, client):
        for _ in range(5):
            start(client, "Sleeps", parameters={"seconds": 2})
        eventually(lambda: len(client.get("/runs?state=running").json()) == 5)
        assert client.get("/jobs").status_code == 200
        assert client.get("/runs?state=running").json()

"""Jobs over REST, on both stores."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from job_scheduler import RetryPolicy
from job_scheduler.service.job_types.registry import JobTypes
from tests.conftest import eventually
from tests.service.conftest import CRON, SOON, ended, job, made, opened

ODD = {
    "": [],
    "first name": None,
    "nested": {"a": [1, 2.5, -0.1, True, {"b": "c"}], "é": "ü"},
    "large": 2**70,
    "emoji": "👩‍👩‍👧 \u202e\x01\t\n",
    "zero": 0.0,
    "tiny": 5e-324,
    "huge": 1.7976931348623157e308,
}


def noted(text):
    """A job of a program, which the service does not know."""


class TestCreating:
    def test_gives_everything_back_and_counts_from_one(self, client):
        posted = {
            "name": "Täglich 日本 <b>",
            "cron_expression": "0 9 * * 1-5",
            "job_type": "note",
            "parameters": ODD,
            "description": "With\nlines",
            "timezone": "Europe/Berlin",
            "is_active": False,
            "max_retries": 3,
            "overlap": "queue",
            "catch_up": "all",
            "misfire_grace_time": 30,
            "jitter": 1.5,
            "start": "2030-01-01T00:00:00+02:00",
            "end": None,
            "pause_on_failures": 5,
            "priority": 1,
            "timeout": 10.5,
        }
        answer = client.post("/jobs", json=posted)
        assert answer.status_code == 201
        found = answer.json()
        assert found["id"] == 1
        assert datetime.fromisoformat(found.pop("start")) == datetime.fromisoformat(posted["start"])
        assert {name: found[name] for name in posted if name != "start"} == {
            name: value for name, value in posted.items() if name != "start"
        }
        assert found["last_run_at"] is None
        assert found["next_run_at"] is None  # it is paused
        assert found["schedule"] == "at 09:00 on Monday to Friday (Europe/Berlin)"
        assert answer.headers["location"] == "http://localhost/jobs/1"
        assert client.get(answer.headers["location"]).json()["parameters"] == ODD

    def test_needs_but_three_fields(self, client):
        found = made(client)
        assert found["parameters"] == {}
        assert found["timezone"] == "UTC"
        assert found["is_active"] is True
        assert found["max_retries"] is None
        next_run = datetime.fromisoformat(found["next_run_at"])
        assert next_run.utcoffset() == timedelta(0)
        assert (next_run.hour, next_run.minute) == (9, 0)
        assert timedelta(0) < next_run - datetime.now(UTC) <= timedelta(days=1)

    def test_takes_the_same_name_twice(self, client):
        assert [made(client, name="same")["id"] for _ in range(3)] == [1, 2, 3]
        assert [each["name"] for each in client.get("/jobs").json()] == ["same"] * 3

    def test_with_a_key_happens_once(self, client):
        def post(**fields):
            return client.post("/jobs", json=job(**fields), headers={"Idempotency-Key": "k-1"})

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: post(), range(8)))
        assert {answer.status_code for answer in answers} == {201}
        [number] = {answer.json()["id"] for answer in answers}  # 1 unless it was lost in the race
        assert sum("idempotent-replayed" in answer.headers for answer in answers) == 7
        assert len(client.get("/jobs").json()) == 1
        client.patch(f"/jobs/{number}", json={"name": "changed"})
        assert post().json()["name"] == "changed"
        refused = post(name="another")
        assert refused.status_code == 422
        assert "was given before" in refused.json()["detail"]

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"cron_expression": "0 25 * * *"}, "25 is out of range"),
            ({"cron_expression": "0 0 30 2 *"}, "30"),
            ({"cron_expression": "* * *"}, "five"),
            ({"cron_expression": ""}, "cron_expression"),
            ({"cron_expression": 5}, "cron_expression"),
            ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
            ({"timezone": "../../etc/passwd"}, "timezone"),
            ({"name": "  "}, "name"),
            ({"name": ""}, "name"),
            ({"name": "a\0b"}, "name"),
            ({"name": "\ud800"}, "name"),
            ({"name": "x" * 201}, "name"),
            ({"name": None}, "name"),
            ({"description": "a\0b"}, "description"),
            ({"parameters": [1]}, "parameters"),
            ({"parameters": "x"}, "parameters"),
            ({"parameters": None}, "parameters"),
            ({"parameters": {"a": "\0"}}, "NUL"),
            ({"parameters": {"a\0": 1}}, "NUL"),
            ({"parameters": {"a": "\ud800"}}, "half a"),
            ({"parameters": {"a": float("nan")}}, "nan"),
            ({"parameters": {"a": "x" * 70_000}}, "65,536"),
            ({"job_type": "os.system"}, "email_notification"),
            ({"job_type": "__init__"}, "email_notification"),
            ({"job_type": "Strict"}, "what"),
            ({"job_type": "Strict", "parameters": {"what": "x", "nmber": 2}}, "number"),
            ({"max_retries": -1}, "max_retries"),
            ({"max_retries": 2**31}, "max_retries"),
            ({"max_retries": "3"}, "max_retries"),
            ({"is_active": "yes"}, "is_active"),
            ({"priority": 2**40}, "priority"),
            ({"timeout": 0}, "timeout"),
            ({"overlap": "both"}, "overlap"),
            ({"overlap": 0}, "overlap"),
            ({"start": "2030-01-01T00:00:00"}, "start"),
            ({"start": "1700000000"}, "start"),
            ({"start": 1700000000}, "start"),
            ({"start": "2031-01-01T00:00:00Z", "end": "2030-01-01T00:00:00Z"}, "end"),
            ({"is_activ": False}, "is_active"),
        ],
    )
    def test_refuses_with_a_sentence_and_stores_nothing(self, client, fields, said):
        answer = client.post(
            "/jobs",
            content=json.dumps(job(**fields)),
            headers={"Content-Type": "application/json"},
        )
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert said in answer.text
        assert client.get("/jobs").json() == []

    @pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k"}])
    @pytest.mark.parametrize("depth", [150, 600])
    def test_refuses_what_is_nested_too_deep(self, client, depth, headers):
        parameters = f"{'[' * depth}{']' * depth}"
        body = json.dumps(job(parameters={"a": "HERE"})).replace('"HERE"', parameters)
        headers = {"Content-Type": "application/json", **headers}
        answer = client.post("/jobs", content=body, headers=headers)
        assert answer.status_code == 422
        assert "levels deep" in answer.json()["detail"]

    def test_tells_where_a_cron_expression_is_wrong(self, client):
        problem = client.post("/jobs", json=job(cron_expression="0 25 * * *")).json()
        [mistake] = problem["errors"]
        assert mistake["pointer"] == "/cron_expression"
        assert (mistake["field"], mistake["position"], mistake["value"]) == ("hour", 2, "25")

    @pytest.mark.parametrize("missing", ["name", "cron_expression", "job_type"])
    def test_refuses_what_lacks_a_field(self, client, missing):
        fields = job()
        del fields[missing]
        answer = client.post("/jobs", json=fields)
        assert answer.status_code == 422
        assert missing in answer.json()["detail"]

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"'])
    def test_refuses_what_is_no_object(self, client, body):
        headers = {"Content-Type": "application/json"}
        answer = client.post("/jobs", content=body, headers=headers)
        assert 400 <= answer.status_code < 500

    def test_refuses_a_body_that_is_too_large(self, client):
        answer = client.post("/jobs", json=job(description="x" * 2_000_000))
        assert answer.status_code == 413


class TestReading:
    def test_a_bare_list_ordered_by_id(self, client):
        assert client.get("/jobs").json() == []
        for name in "abc":
            made(client, name=name)
        answer = client.get("/jobs")
        assert [each["name"] for each in answer.json()] == ["a", "b", "c"]
        assert "link" not in answer.headers

    def test_pages(self, client):
        for number in range(5):
            made(client, name=str(number))
        seen, url = [], "/jobs?limit=2"
        while url:
            answer = client.get(url)
            seen.append([each["name"] for each in answer.json()])
            url = answer.links.get("next", {}).get("url")
        assert seen == [["0", "1"], ["2", "3"], ["4"]]
        assert client.get("/jobs?limit=5").links == {}

    def test_filters(self, client):
        made(client, name="Daily 100%")
        made(client, name="weekly", is_active=False)
        made(client, name="other", job_type="email_notification")

        def names(query):
            return [each["name"] for each in client.get(f"/jobs?{query}").json()]

        assert names("state=paused") == ["weekly"]
        assert names("state=active") == ["Daily 100%", "other"]
        assert names("job_type=EMAIL_notification") == ["other"]
        assert names("q=daily") == ["Daily 100%"]
        assert names("q=%25") == ["Daily 100%"]
        assert names("q=_") == []
        assert client.get("/jobs?state=odd").status_code == 422
        assert names("job_type=odd") == []

    @pytest.mark.parametrize("query", ["limit=0", "limit=1000000", "limit=x", "cursor=x"])
    def test_refuses_odd_pages(self, client, query):
        assert client.get(f"/jobs?{query}").status_code == 422

    @pytest.mark.parametrize("number", ["999", "0", "-1", "x", "1.0", "+1", "1_0", "9" * 30, "%00"])
    def test_an_unknown_one_is_not_there(self, client, number):
        answer = client.get(f"/jobs/{number}")
        assert answer.status_code == 404
        assert isinstance(answer.json()["detail"], str)
        for method, path in (("PATCH", ""), ("DELETE", ""), ("POST", "/run"), ("GET", "/runs")):
            answer = client.request(method, f"/jobs/{number}{path}", json={"is_active": True})
            assert answer.status_code in (404, 422)


class TestChanging:
    def test_pause_and_resume(self, client):
        made(client)
        paused = client.patch("/jobs/1", json={"is_active": False}).json()
        assert (paused["is_active"], paused["next_run_at"]) == (False, None)
        resumed = client.patch("/jobs/1", json={"is_active": True}).json()
        assert resumed["is_active"]
        assert resumed["next_run_at"] is not None
        assert client.patch("/jobs/1", json={}).json() == resumed

    def test_some_fields(self, client):
        before = made(client, parameters={"a": 1}, description="text")
        after = client.patch(
            "/jobs/1", json={"name": "new", "cron_expression": "30 10 * * *", "description": None}
        ).json()
        assert after["name"] == "new"
        assert after["description"] is None
        assert after["parameters"] == {"a": 1}
        assert "T10:30:00" in after["next_run_at"]
        assert after["created_at"] == before["created_at"]
        assert after["updated_at"] > before["updated_at"]

    def test_a_name_moves_no_instant(self, client):
        before = made(client, jitter=10)
        after = client.patch("/jobs/1", json={"name": "new"}).json()
        assert after["next_run_at"] == before["next_run_at"]

    def test_by_several_at_one_time(self, client):
        made(client)
        patches = [
            {"name": "new"},
            {"description": "text"},
            {"cron_expression": "30 10 * * *"},
            {"timezone": "Asia/Tokyo"},
            {"parameters": {"a": 1}},
            {"max_retries": 3},
            {"is_active": False},
        ]
        with ThreadPoolExecutor(len(patches)) as threads:
            answers = list(threads.map(lambda patch: client.patch("/jobs/1", json=patch), patches))
        assert {answer.status_code for answer in answers} == {200}
        found = client.get("/jobs/1").json()
        for patch in patches:
            assert found.items() >= patch.items()

    @pytest.mark.parametrize(
        "patch", [{"name": "new"}, {"cron_expression": "30 10 * * *"}, {"priority": 7}]
    )
    def test_keeps_what_the_api_does_not_show(self, client, patch):
        scheduler = client.service.scheduler

        async def declare():
            await scheduler.schedule(
                noted,
                cron=CRON,
                args=["x"],
                job_id="daily",
                executor="thread",
                retry=RetryPolicy(3, delay="10m", retry_on=OSError),
            )
            return (await scheduler.get_job("daily")).schedule

        before = client.portal.call(declare)
        service = client.service.api.state.service
        service.types = JobTypes({**service.types.jobs, before.job: noted})
        assert client.patch("/jobs/1", json=patch).status_code == 200
        after = client.portal.call(scheduler.get_job, "daily").schedule
        assert after.args == ("x",)
        assert (after.retry, after.place) == (before.retry, before.place)
        if "name" in patch:
            assert client.portal.call(declare) == after  # the program says it again, and may

    def test_the_name_of_what_another_server_runs(self, client):
        scheduler = client.service.scheduler
        client.portal.call(lambda: scheduler.schedule(noted, cron=CRON, args=["x"]))
        assert client.patch("/jobs/1", json={"name": "new"}).json()["name"] == "new"
        assert client.patch("/jobs/1", json={"priority": 7}).status_code == 422

    def test_all_of_it(self, client):
        made(client, description="old", max_retries=2)
        wanted = job(name="new", parameters={"b": 2}, is_active=False)
        found = client.put("/jobs/1", json=wanted).json()
        assert {name: found[name] for name in wanted} == wanted
        assert (found["description"], found["max_retries"], found["id"]) == (None, None, 1)
        assert client.get("/jobs").json() == [found]

    @pytest.mark.parametrize(
        "patch", [{"name": None}, {"cron_expression": "x"}, {"id": 5}, {"job_type": "odd"}, [1]]
    )
    def test_what_is_wrong_changes_nothing(self, client, patch):
        before = made(client)
        assert client.patch("/jobs/1", json=patch).status_code == 422
        assert client.get("/jobs/1").json() == before

    def test_what_a_program_has_scheduled_can_be_paused(self, client):
        async def declare():
            await client.service.scheduler.schedule("Note", every=3600, job_id="hourly")

        client.portal.call(declare)
        [found] = client.get("/jobs").json()
        assert (found["name"], found["cron_expression"]) == ("hourly", None)
        assert found["schedule"] == "every 1 hour"
        assert not client.patch("/jobs/1", json={"is_active": False}).json()["is_active"]
        assert client.patch("/jobs/1", json={"name": "x"}).status_code == 409
        changed = client.patch("/jobs/1", json={"cron_expression": CRON}).json()
        assert changed["cron_expression"] == CRON

    def test_deleting(self, client):
        made(client)
        run = client.post("/jobs/1/run").json()
        ended(client, run["id"])
        answer = client.delete("/jobs/1")
        assert (answer.status_code, answer.content) == (204, b"")
        assert client.get("/jobs").json() == []
        for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/runs")):
            answer = client.request(method, f"/jobs/1{path}", json={})
            assert answer.status_code == 404
            assert answer.json()["detail"] == "there is no job 1"
        assert client.get(f"/runs/{run['id']}").json()["job_id"] is None
        assert made(client)["id"] == 2


class TestRunning:
    def test_by_itself_again_and_again(self, client):
        made(client, cron_expression=SOON, parameters={"a": 1})
        runs = eventually(
            lambda: [
                each for each in client.get("/jobs/1/runs").json() if each["state"] == "completed"
            ][1:]
        )
        assert runs[0]["parameters"] == {"a": 1}
        found = client.get("/jobs/1").json()
        assert found["completed"] >= 2
        assert found["last_state"] == "completed"
        assert datetime.fromisoformat(found["last_run_at"]) <= datetime.now(UTC)

    def test_not_while_it_is_paused(self, client):
        made(client, cron_expression=SOON, is_active=False)
        made(client, cron_expression=SOON)
        eventually(lambda: client.get("/jobs/2").json()["completed"] >= 2)
        assert client.get("/jobs/1/runs").json() == []

    def test_now(self, client):
        made(client, parameters={"x": 1}, is_active=False)
        answer = client.post("/jobs/1/run", headers={"Idempotency-Key": "once"})
        assert answer.status_code == 202
        again = client.post("/jobs/1/run", headers={"Idempotency-Key": "once"})
        assert again.json()["id"] == answer.json()["id"]
        run = ended(client, answer.json()["id"])
        assert (run["state"], run["result"], run["job_id"]) == ("completed", {"x": 1}, 1)
        assert run["job_name"] == "a job"
        assert [each["id"] for each in client.get("/jobs/1/runs").json()] == [run["id"]]
        assert not client.get("/jobs/1").json()["is_active"]

    def test_a_failed_run_keeps_the_schedule(self, client):
        made(client, cron_expression=SOON, job_type="fails")
        run = eventually(
            lambda: [
                each for each in client.get("/jobs/1/runs").json() if each["state"] == "failed"
            ]
        )[0]
        run = client.get(f"/runs/{run['id']}").json()
        assert run["error"] == "ValueError: as it was meant to <b>be</b>"
        assert "in process" in run["traceback"]
        assert run["output"].startswith("about to fail\n")
        assert run["exit_code"] == 1
        assert client.get("/jobs/1").json()["next_run_at"] is not None
        eventually(lambda: client.get("/jobs/1").json()["failed"] >= 2)

    def test_overdue_ones_once_after_a_downtime(self, address):
        with opened(address) as client:
            made(client, cron_expression=SOON)
            eventually(lambda: client.get("/jobs/1").json()["completed"])
        import time

        time.sleep(3.2)
        with opened(address) as client:
            missed = eventually(lambda: client.get("/jobs/1").json()["missed"])
            assert missed >= 2
            runs = client.get("/jobs/1/runs?limit=1000").json()
            late = [
                run
                for run in runs
                if run["started_at"] is not None
                and datetime.fromisoformat(run["started_at"])
                - datetime.fromisoformat(run["due_at"])
                > timedelta(seconds=1)
            ]
            assert len(late) <= 1

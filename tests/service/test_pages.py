"""The pages as HTML: they show and do everything without JavaScript."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlencode

import pytest
from pydantic import TypeAdapter

from job_scheduler.errors import StoreError
from job_scheduler.run import RunState
from job_scheduler.service.models import JobOut, OutcomeOut, RunDetail, RunOut
from job_scheduler.service.pages import router, words
from job_scheduler.service.pages.assets import STATIC, html
from job_scheduler.service.pages.forms import JobForm
from job_scheduler.service.pages.views import (
    Where,
    job_row,
    run_row,
    run_view,
    totals_of,
    type_option,
)
from job_scheduler.stores.base import Counts
from tests.conftest import eventually
from tests.service.conftest import ended, made, opened
from tests.service.html_reader import Tag, fields_of, form_of, read

EVIL = "<script>alert('x')</script>\"'&"


def page_of(client, url="/", **options) -> Tag:
    answer = client.get(url, **options)
    assert answer.status_code == 200, answer.text
    return read(answer.text)


def submit(client, page, action, **typed):
    """Fill in a form of a page and post it, as a browser does; gives the page that comes."""
    form = form_of(page, action)
    assert form.attributes["method"] == "post"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode(fields_of(form) | typed)
    answer = client.post(action, content=body, headers=headers)
    return answer, read(answer.text)


class TestWithoutAnything:
    def test_the_page_helps_to_begin(self, client):
        page = page_of(client)
        assert "open" in page.one("details", id="add").attributes
        empty = page.one(id="jobs").one(class_="empty")
        assert "Nothing is scheduled yet" in empty.text
        assert "curl http://localhost/jobs" in empty.one("pre").text
        assert "No job has run yet" in page.one(id="runs").text
        assert page.one(id="totals").text.startswith("Jobs 0 Running 0 of 5 Waiting 0")

    def test_the_command_that_it_shows_is_right(self, client):
        command = "".join(page_of(client).one(id="jobs").one("pre").children)
        body = re.search(r"-d '(.*)'$", command, re.DOTALL)[1]
        answer = client.post("/jobs", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 201

    def test_the_command_has_a_place_for_the_key_where_there_is_one(self, address):
        with opened(address, api_key="k" * 32) as client:
            assert client.get("/").status_code == 401
            page = page_of(client, auth=("", "k" * 32))
            assert "X-API-Key: YOUR_KEY" in page.one(id="jobs").one("pre").text

    def test_nothing_matches_a_filter(self, client):
        made(client, name="Report")
        page = page_of(client, "/?text=zzz&runs=failed")
        assert "No job matches" in page.one(id="jobs").text
        assert "No run matches" in page.one(id="runs").text
        assert "open" not in page.one("details", id="add").attributes


class TestAddingAJob:
    def test_once_though_the_form_is_sent_twice(self, client):
        page = page_of(client)
        fields = {"name": "Mail", "job_type": "Note", "cron_expression": "@daily"}
        for _ in range(2):
            _, shown = submit(client, page, "/ui/jobs", **fields)
            assert shown.one(id="said").text == "Added “Mail”."
        submit(client, page, "/ui/jobs", **{**fields, "name": "Another"})
        assert [job["name"] for job in client.get("/jobs").json()] == ["Mail", "Another"]

    def test_by_the_form(self, client):
        answer, page = submit(
            client, page_of(client), "/ui/jobs",
            name="Täglich ☀", job_type="Strict", cron_expression="*/5 9-17 * * mon-fri",
            timezone="Europe/Berlin", parameters='{"what": "wäre", "number": 2}', max_retries="3",
        )  # fmt: skip
        assert (answer.status_code, answer.url.path) == (200, "/")
        assert answer.history[0].status_code == 303
        assert answer.history[0].headers["location"] == "/#job-1"
        assert page.one(id="said").text == "Added “Täglich ☀”."
        row = page.one("tr", id="job-1")
        assert "every 5 minutes from 09:00 to 17:59 on Monday to Friday" in row.text
        assert "Europe/Berlin" in row.text
        [job] = client.get("/jobs").json()
        assert job["parameters"] == {"what": "wäre", "number": 2}
        assert (job["max_retries"], job["timezone"]) == (3, "Europe/Berlin")

    def test_a_message_is_shown_once(self, client):
        typed = {"name": "a", "job_type": "Note", "cron_expression": "0 9 * * *"}
        _, page = submit(client, page_of(client), "/ui/jobs", parameters="{}", **typed)
        assert page.one(id="said").text
        assert not page_of(client).one(id="said").text

    @pytest.mark.parametrize(
        ("field", "typed", "said"),
        [
            ("name", "  ", "Give the job a name."),
            ("name", "x" * 201, "200 characters"),
            ("cron_expression", "", "Say when it runs"),
            ("cron_expression", "0 25 * * *", "Hour '25', at character 3: 25 is out of range"),
            ("cron_expression", "0 0 30 2 *", "cannot occur"),
            ("timezone", "Mars/Base", "Timezone is 'Mars/Base', which is not known"),
            ("job_type", "Nothing", "There is no job type 'Nothing'"),
            ("job_type", "", "Choose what the job does."),
            ("parameters", '{"a": 1,', "This is no JSON"),
            ("parameters", '{"a": NaN}', "NaN"),
            ("parameters", "[1]", "Parameters are an object"),
            ("parameters", '{"wrong": 1}', "wrong"),
            ("parameters", "[" * 5000, "This is no JSON"),
            ("max_retries", "-1", "whole number"),
            ("max_retries", "999999999", ""),
        ],
    )
    def test_a_mistake_is_told_beside_its_field(self, client, field, typed, said):
        fields = {"name": "Mine", "job_type": "Strict", "cron_expression": "0 9 * * *",
                  "parameters": '{"what": "x"}', field: typed}  # fmt: skip
        answer, page = submit(client, page_of(client), "/ui/jobs", **fields)
        if not said:
            assert answer.history
            return
        assert answer.status_code == 422
        assert client.get("/jobs").json() == []
        form = form_of(page, "/ui/jobs")
        wrong = form.one(id=f"wrong-{field}")
        assert said in wrong.text
        control = form.one(id=field)
        assert control.attributes["aria-invalid"] == "true"
        assert wrong.attributes["id"] in control.attributes["aria-describedby"].split()
        assert "open" in page.one("details", id="add").attributes
        if control.name != "select":
            assert fields_of(form)[field] == typed
        assert fields_of(form)["name"] == fields["name"]

    def test_what_is_wrong_in_an_expression_is_marked(self, client):
        typed = {"name": "a", "job_type": "Note", "cron_expression": "0 25 * * *"}
        _, page = submit(client, page_of(client), "/ui/jobs", **typed)
        assert page.one("mark").text == "25"
        assert page.one("mark").parent.text == "0 25 * * *"

    def test_what_was_typed_is_escaped(self, client):
        typed = dict.fromkeys(("name", "cron_expression", "timezone", "parameters"), EVIL)
        _, page = submit(client, page_of(client), "/ui/jobs", job_type="Note", **typed)
        assert not [tag for tag in page.all("script") if "src" not in tag.attributes]
        assert fields_of(form_of(page, "/ui/jobs")).items() >= typed.items()

    def test_a_preview_is_a_part_of_a_page(self, client):
        asked = {"cron_expression": "0 9 * * *", "timezone": "Europe/Berlin"}
        said = read(client.get("/ui/preview", params=asked).text)
        assert said.text.startswith("At 09:00 every day (Europe/Berlin) Next: ")
        assert len(said.all("time")) == 3
        said = read(client.get("/ui/preview", params={"cron_expression": "0 9 * *"}).text)
        assert "5 fields" in said.text or "fields" in said.text


class TestWhatIsListed:
    def test_a_job_with_all_that_is_known_of_it(self, client):
        job = made(client, name="Mail", job_type="Note", description="Good morning",
                   parameters={"to": "a@example.org", "smtp_password": "hunter2"})  # fmt: skip
        row = page_of(client).one("tr", id="job-1")
        assert row.one(class_="state").text == "Active"
        assert row.one("th").text == "Mail Note"
        assert "at 09:00 every day 0 9 * * * UTC" in row.text
        assert "no run yet" in row.text
        time = row.one(class_="c-next").one("time")
        shown = datetime.fromisoformat(time.attributes["datetime"])
        assert shown == datetime.fromisoformat(job["next_run_at"])
        assert re.fullmatch(r"in .*", time.text)
        assert time.attributes["title"].startswith(f"{shown:%Y-%m-%d %H:%M}")
        assert "Good morning" in row.text

    def test_secrets_are_hidden(self, client):
        made(client, parameters={"smtp_password": "hunter2", "deep": [{"token": "hunter2"}]})
        run = client.post("/jobs/1/run").json()
        ended(client, run["id"])
        for url in ("/", f"/ui/runs/{run['id']}"):
            html = client.get(url).text
            assert "smtp_password" in html
            assert "hunter2" not in html

    def test_everything_is_escaped(self, client):
        made(client, name=EVIL, description=EVIL, parameters={EVIL: EVIL})
        run = client.post("/jobs/1/run").json()
        ended(client, run["id"])
        for url in ("/", f"/ui/runs/{run['id']}", "/?text=" + EVIL):
            page = page_of(client, url)
            assert not [tag for tag in page.all("script") if "src" not in tag.attributes]
            assert EVIL in page.text

    def test_the_outcomes_of_the_last_runs(self, client):
        made(client, name="Bad", job_type="Fails")
        runs = [client.post("/jobs/1/run").json()["id"] for _ in range(2)]
        for run in runs:
            ended(client, run)
        row = page_of(client).one("tr", id="job-1")
        assert row.one(class_="state").text == "Failing"
        bars = row.one(class_="strip").all("a")
        assert [bar.attributes["class"] for bar in bars] == ["failed", "failed"]
        assert {bar.attributes["href"] for bar in bars} == {f"/ui/runs/{run}" for run in runs}
        assert all(re.match(r"Failed, \d+ \w+ [\d:]+, took [\d.]+ s", bar.attributes["title"])
                   for bar in bars)  # fmt: skip
        run = page_of(client).one("tr", id=f"run-{runs[0]}")
        assert run.one("summary").text == "ValueError: as it was meant to <b>be</b>"

    def test_filters_and_pages_of_jobs(self, client, monkeypatch):
        monkeypatch.setattr(router, "JOBS", 2)
        for name in ("Mail one", "mail two", "Other", "MAIL three"):
            made(client, name=name, is_active=name != "mail two")

        def names(page):
            return [each.text for each in page.one(id="jobs").all(class_="name")]

        page = page_of(client)
        assert names(page) == ["Mail one", "mail two"]
        more = page.one("a", rel="next").attributes["href"]
        page = page_of(client, more.partition("#")[0])
        assert names(page) == ["Other", "MAIL three"]
        assert not page.all("a", rel="next")
        page = page_of(client, "/?text=mail&state=active")
        assert names(page) == ["Mail one", "MAIL three"]
        form = page.one("form", role="search")
        assert fields_of(form) == {"text": "mail", "state": "active"}
        assert names(page_of(client, "/?state=paused")) == ["mail two"]
        assert "no more jobs" in page_of(client, "/?after=99").one(id="jobs").text

    def test_filters_and_pages_of_runs(self, client, monkeypatch):
        monkeypatch.setattr(router, "RUNS", 2)
        made(client, name="Good"), made(client, name="Bad", job_type="Fails")
        ids = [client.post(f"/jobs/{n}/run").json()["id"] for n in (1, 2, 1)]
        for each in ids:
            ended(client, each)

        def names(page):
            return [each.text for each in page.one(id="runs").all("a", class_="name")]

        page = page_of(client)
        assert names(page) == ["Good", "Bad"]
        earlier = page.one(id="runs").one("a", rel="next").attributes["href"]
        assert names(page_of(client, earlier.partition("#")[0])) == ["Good"]
        page = page_of(client, "/?runs=failed")
        assert names(page) == ["Bad"]
        assert page.one("nav", class_="tabs").one("a", **{"aria-current": "page"}).text == "Failed"
        assert names(page_of(client, "/?job=1")) == ["Good", "Good"]
        assert names(page_of(client, "/?job=99")) == []

    @pytest.mark.parametrize(
        "query",
        ["after=x", "after=-1", "after=" + "9" * 400, "after=%00", "state=zzz", "runs=zzz",
         "job=%F0%9F%98%80", "job=٣", "text=%00%ff", "text=" + "x" * 3000, "a" * 5000],
    )  # fmt: skip
    def test_what_has_no_meaning_is_passed_over(self, client, query):
        assert client.get(f"/?{query}").status_code == 200

    def test_a_cursor_that_has_gone(self, client):
        answer = client.get("/?before=gone")
        assert answer.status_code == 200  # only the list of runs is empty


class TestButtons:
    def test_run_pause_resume_and_delete(self, client):
        made(client, name="Mail")
        _, page = submit(client, page_of(client), "/ui/jobs/1/run")
        assert page.one(id="said").text == "“Mail” runs now."
        assert len(client.get("/runs").json()) == 1
        answer, page = submit(client, page, "/ui/jobs/1/pause")
        assert answer.history[0].headers["location"] == "/#job-1"
        assert page.one("tr", id="job-1").one(class_="c-state").text == "Paused"
        assert not client.get("/jobs/1").json()["is_active"]
        _, page = submit(client, page, "/ui/jobs/1/resume")
        assert client.get("/jobs/1").json()["is_active"]
        confirmed = form_of(page, "/ui/jobs/1/delete").parent
        assert (confirmed.name, "open" in confirmed.attributes) == ("details", False)
        _, page = submit(client, page, "/ui/jobs/1/delete")
        assert page.one(id="said").text == "Deleted “Mail”."
        assert client.get("/jobs").json() == []

    def test_go_back_to_what_was_looked_at(self, client):
        made(client, name="Mail")
        page = page_of(client, "/?text=mail&runs=failed")
        answer, _ = submit(client, page, "/ui/jobs/1/pause")
        assert answer.history[0].headers["location"] == "/?text=mail&runs=failed#job-1"

    @pytest.mark.parametrize("back", ["//evil.example", "https://evil.example", "\r\nX: y"])
    def test_go_nowhere_else(self, client, back):
        made(client)
        answer = client.post("/ui/jobs/1/pause", data={"back": back}, follow_redirects=False)
        assert answer.headers["location"] == "/#job-1"

    def test_tell_what_did_not_work(self, client):
        answer = client.post("/ui/jobs/7/run", data={"a": "b"})
        said = read(answer.text).one(id="said").one("p")
        assert (said.text, said.attributes["class"]) == ("there is no job 7", "bad")
        assert client.post("/ui/jobs/7/explode", data={"a": "b"}).status_code == 404
        assert client.post("/ui/jobs/x/run", data={"a": "b"}).status_code == 404
        assert client.post("/ui/jobs/7/run").status_code == 415
        assert client.post("/ui/jobs/7/run", json={}).status_code == 415
        assert client.post("/ui/jobs", data={str(n): "" for n in range(90)}).status_code == 415

    def test_cancel_and_retry_runs(self, client):
        made(client, name="Long", job_type="Waits")
        run = client.post("/jobs/1/run").json()["id"]
        eventually(lambda: client.get(f"/runs/{run}").json()["state"] == "running")
        page = page_of(client)
        assert page.one("tr", id="job-1").one(class_="c-state").text == "Running"
        submit(client, page, f"/ui/run/cancel/{run}")
        assert ended(client, run)["state"] == "cancelled"
        _, page = submit(client, page_of(client), f"/ui/run/retry/{run}")
        assert page.one(id="said").text == "“Long” runs once more."
        assert len(client.get("/runs").json()) == 2
        page = page_of(client, f"/ui/runs/{run}")
        answer, _ = submit(client, page, f"/ui/run/retry/{run}")
        assert answer.url.path == f"/ui/runs/{run}"


class TestARun:
    def test_with_error_traceback_and_output(self, client):
        made(client, name="Bad", job_type="Fails")
        run = client.post("/jobs/1/run").json()["id"]
        ended(client, run)
        page = page_of(client, f"/ui/runs/{run}")
        assert page.one("h1").text == "Bad"
        assert page.one(class_="error").text == "ValueError: as it was meant to <b>be</b>"
        assert "sample_types.py" in page.one("pre", class_="traceback").text
        assert "about to fail" in page.one("pre", class_="output").text
        assert "ValueError" in page.one("pre", class_="traceback").text

    def test_of_an_id_with_any_characters(self, client):
        made(client)
        run = client.post("/jobs/1/run", headers={"Idempotency-Key": "a/b?c=d&e#f"}).json()
        eventually(lambda: client.get("/runs").json()[0]["ended_at"])
        page = page_of(client)
        [link] = page.one("tr", id="job-1").one(class_="strip").all("a")
        assert unquote(link.attributes["href"]) == f"/ui/runs/{run['id']}"
        assert run["id"] in page_of(client, link.attributes["href"]).text

    def test_that_is_not_there(self, client):
        answer = client.get("/ui/runs/none")
        assert answer.status_code == 404
        assert "there is no run" in read(answer.text).text

    def test_a_very_long_result_is_not_shown(self, client):
        made(client, parameters={"list": ["x" * 1000] * 60})
        run = ended(client, client.post("/jobs/1/run").json()["id"])
        assert run["result"] == {"list": ["x" * 1000] * 60}
        detail = TypeAdapter(RunDetail).validate_python(run)
        [shown] = [text for title, text in run_view(detail).texts if title == "Result"]
        assert "xxx" in shown
        result = {"password": "hunter2", "list": ["x" * 1000] * 600}
        detail = replace(detail, result=result)
        [shown] = [text for title, text in run_view(detail).texts if title == "Result"]
        assert shown.startswith("602,")
        assert "hunter2" not in shown


def test_a_store_that_is_away_tells_nothing_of_where_it_is():
    answer = router._problem(StoreError("the store /srv/secret.db: it is damaged"))
    assert answer.status_code == 503
    assert b"does not answer" in answer.body
    assert b"secret" not in answer.body


class TestParts:
    def test_only_what_changes_is_sent(self, client):
        made(client)
        run = client.post("/jobs/1/run").json()["id"]
        for url, ids in (
            ("/", ["said", "totals", "jobs", "runs"]),
            (f"/ui/runs/{run}", ["said", "run-head", "run-body"]),
        ):
            whole = page_of(client, url)
            part = page_of(client, url, headers={"X-Fragment": "1"})
            children = [each for each in part.children if isinstance(each, Tag)]
            assert [each.attributes["id"] for each in children] == ids
            assert all(whole.one(id=each) for each in ids)


class TestWhatBrowsersAreTold:
    def test_nothing_stands_in_a_page_that_a_strict_policy_forbids(self, client):
        made(client, name="a", parameters={"a": 1})
        made(client, name="b", is_active=False)
        run = client.post("/jobs/1/run").json()["id"]
        ended(client, run)
        for url in ("/", f"/ui/runs/{run}", "/ui/runs/none", "/?text=zzz"):
            answer = client.get(url)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'self'" in policy
            assert "unsafe" not in policy
            for tag in read(answer.text):
                assert not [name for name in tag.attributes if name.startswith("on")]
                assert "style" not in tag.attributes
                assert tag.name != "style"
                assert tag.name != "script" or tag.attributes["src"].startswith("/ui/static/")

    def test_every_id_is_there_once(self, client):
        for n in range(3):
            made(client, name=f"job {n}")
            ended(client, client.post(f"/jobs/{n + 1}/run").json()["id"])
        ids = [tag.attributes["id"] for tag in page_of(client) if "id" in tag.attributes]
        assert len(ids) == len(set(ids))

    def test_files_are_kept_for_good(self, client):
        page = page_of(client)
        urls = [tag.attributes["href"] for tag in page.all("link")]
        urls += [tag.attributes["src"] for tag in page.all("script")]
        assert {url.rpartition("/")[2] for url in urls} == set(STATIC)
        for url in urls:
            answer = client.get(url)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
        assert client.get("/ui/static/x/none.css").status_code == 404
        assert client.get("/ui/static/x/..%2frouter.py").status_code == 404

    def test_the_pages_are_no_part_of_the_api(self, client):
        paths = client.get("/openapi.json").json()["paths"]
        assert not [path for path in paths if path.startswith(("/ui", "/events"))]
        assert "/" not in paths


class TestHints:
    def test_tell_that_something_has_changed_and_end_with_the_service(self, client):
        service = client.service.api.state.service

        async def listen():
            hints = router._hints(service)
            told = [await anext(hints)]
            service.changes.note()
            told.append(await asyncio.wait_for(anext(hints), 5))
            service.changes.note()  # while nobody waits
            told.append(await asyncio.wait_for(anext(hints), 5))
            service.changes.close()
            told += [each async for each in hints]
            return told

        told = client.portal.call(listen)
        assert told[0].startswith("retry:")
        assert set(told[1:]) == {"event: changed\ndata:\n\n"}
        assert 3 <= len(told) <= 4


class TestWords:
    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0, "now"), (-0.9, "now"), (5, "in 5 s"), (-59.9, "59 s ago"), (60, "in 1 min"),
         (-3599, "59 min ago"), (3600, "in 1 h 0 min"), (-8000, "2 h 13 min ago"),
         (6 * 3600, "in 6 h"), (86400, "in 1 day"), (-3 * 86400, "3 days ago"),
         (1500 * 86400, "in 1,500 days")],
    )  # fmt: skip
    def test_how_far_an_instant_is(self, seconds, said):
        now = datetime(2026, 11, 21, tzinfo=UTC)
        assert words.away(now + timedelta(seconds=seconds), now) == said

    @pytest.mark.parametrize(
        ("seconds", "said"),
        [(0, "0.00 s"), (0.456, "0.46 s"), (9.94, "9.9 s"), (48.4, "48 s"), (59.9, "1 min 0 s"),
         (185, "3 min 5 s"), (7800, "2 h 10 min")],
    )  # fmt: skip
    def test_how_long_something_took(self, seconds, said):
        assert words.lasting(seconds) == said

    def test_how_large_something_is(self):
        assert [words.size(n) for n in (512, 3_400_000, 5 * 10**12)] == [
            "512 B", "3.4 MB", "5000.0 GB"
        ]  # fmt: skip


def test_a_full_page_is_rendered_within_30_ms():
    """50 jobs with 20 outcomes each and 50 runs; the best of five, as machines are shared."""
    import time

    now = datetime.now(UTC)
    outcomes = [
        OutcomeOut(run_id=f"run-{n}", state="failed" if n % 7 == 0 else "completed", due_at=now,
                   started_at=now, ended_at=now)
        for n in range(20)
    ]  # fmt: skip
    jobs = [_a_job(n, now) for n in range(50)]
    runs = [_a_run(n, now) for n in range(50)]
    types = [type_option({"name": "Note", "description": "", "parameters": {}})]
    took = []
    for _ in range(5):
        began = time.process_time()
        answer = html(
            "dashboard.html",
            {
                "now": now, "where": Where(), "said": router.Said(), "form": JobForm(),
                "types": types, "totals": totals_of(Counts(0, None, 0, 50, now), 5),
                "rows": [job_row(job, outcomes) for job in jobs], "next_jobs": "50",
                "runs": [run_row(run) for run in runs], "next_runs": "x",
                "run_states": list(RunState), "base_url": "http://localhost:8000",
                "has_key": False,
            },
        )  # fmt: skip
        took.append(time.process_time() - began)
    print(f"{min(took) * 1000:.1f} ms for {len(answer.body):,} bytes")
    assert min(took) < 0.03


def _a_job(number, now):
    return JobOut(
        id=number, name=f"Job {number}", description=None, job_type="Note",
        cron_expression="*/5 * * * *", schedule="every 5 minutes (UTC)", timezone="UTC",
        parameters={"dataset": "user_events", "token": "x"}, is_active=True, max_retries=None,
        timeout=None, priority=5, overlap="skip", catch_up="latest", misfire_grace_time=None,
        jitter=None, start=None, end=None, pause_on_failures=None, created_at=now, updated_at=now,
        last_run_at=now, next_run_at=now, last_state="completed", running=0,
        completed=20, failed=3, cancelled=0, missed=0,
    )  # fmt: skip


def _a_run(number, now):
    return RunOut(
        id=f"run-{number}", job_id=1, job_name="Job 1", job_type="Note", state="failed",
        attempt=1, parameters={}, due_at=now, created_at=now, started_at=now, ended_at=now,
        duration=1.5, exit_code=1, signal=None, error="ValueError: it did not work " * 5,
    )  # fmt: skip

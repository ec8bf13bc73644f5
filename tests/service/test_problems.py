"""Errors of the service: each a problem, with a sentence and its places."""

from __future__ import annotations

import json
import logging
from datetime import datetime

import pytest
from fastapi import APIRouter, FastAPI, Header, HTTPException, Query
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.responses import StreamingResponse

from job_scheduler import Cron, errors
from job_scheduler.service import problems
from job_scheduler.service.security import ErrorBoundary
from tests.service.asking import ask, problem

SECRET = "password=hunter2"


class Retry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    start: datetime


class JobIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1)
    cron_expression: str
    parameters: dict[str, object] = {}
    max_retries: int | None = Field(default=None, le=100)
    retry: Retry | None = None

    @field_validator("cron_expression")
    @classmethod
    def must_be_cron(cls, value: str) -> str:
        Cron(value)
        return value


def raising(error):
    """An application that raises this at every request to /raise."""
    app = make_app()

    @app.post("/raise/{job_type}")
    @app.get("/raise")
    async def fail(job_type: str = ""):
        raise error

    return app


def make_app():
    app = FastAPI()
    problems.install(app, job_types=lambda: ["data_processing", "clean_up"])
    router = APIRouter(prefix="/jobs", responses=problems.RESPONSES)

    @router.post("")
    async def create(job: JobIn, idempotency_key: str = Header("", max_length=5)):
        return job

    @router.get("")
    async def jobs(limit: int = Query(10, ge=1, le=100)):
        return []

    @router.get("/{number}")
    async def job(number: int):
        return number

    @router.patch("/{number}")
    async def change(number: int, job: JobIn | None = None):
        return number

    app.include_router(router)

    @app.delete("/jobs/{number}")
    async def delete(number: int):
        raise HTTPException(418, detail={"tea": "pot"})

    return app


@pytest.fixture(scope="module")
def app():
    return make_app()


GOOD = {"name": "a", "cron_expression": "* * * * *"}


def test_what_is_good_passes(app):
    assert ask(app, "POST", "/jobs", json=GOOD).json()["name"] == "a"


def test_a_missing_field_is_pointed_at(app):
    told = problem(ask(app, "POST", "/jobs", json={"name": "a"}), 422, "invalid-request")
    assert told["detail"] == "cron_expression: it is missing"
    assert told["instance"] == "/jobs"
    assert told["errors"] == [
        {"pointer": "/cron_expression", "code": "missing", "message": "it is missing"}
    ]


def test_the_detail_is_of_the_first_and_counts_the_others(app):
    told = problem(ask(app, "POST", "/jobs", json={"name": "", "max_retries": 101}), 422)
    assert told["detail"].startswith("name: string should have at least 1 character (and 2 more")
    assert [one["pointer"] for one in told["errors"]] == [
        "/name",
        "/cron_expression",
        "/max_retries",
    ]


@pytest.mark.parametrize(
    ("field", "hint"), [("nmae", "did you mean 'name'?"), ("qqqqq", None), ("~/", None)]
)
@pytest.mark.parametrize("ways", [("POST", "/jobs"), ("PATCH", "/jobs/1")])
def test_an_unknown_field_tells_the_nearest(app, field, hint, ways):
    told = problem(ask(app, *ways, json={**GOOD, field: 1}), 422)
    [error] = told["errors"]
    assert error.get("hint") == hint
    assert error["pointer"] == "/" + field.replace("~", "~0").replace("/", "~1")
    assert "there is no such field" in told["detail"]
    assert hint is None or hint in told["detail"]


def test_places_within_are_pointed_at(app):
    body = {**GOOD, "retry": {"start": "yesterday", "nmae": 1}}
    told = problem(ask(app, "POST", "/jobs", json=body), 422)
    start, unknown = told["errors"]
    assert start["pointer"] == "/retry/start"
    assert start["message"].startswith("input should be a valid datetime")
    assert unknown["pointer"] == "/retry/nmae"
    assert unknown["message"] == "there is no such field"


def test_an_endpoint_whose_hints_cannot_be_read_gives_no_hint():
    class Callable:
        async def __call__(self, limit: int):
            return limit

    async def unread(limit: int) -> "Nowhere":  # noqa: F821, UP037
        return limit

    app = make_app()
    app.add_api_route("/callable", Callable())
    app.add_api_route("/unread", unread, response_model=None)
    for path in ("/callable", "/unread"):
        told = problem(ask(app, "GET", f"{path}?limit=x"), 422)
        assert told["errors"][0]["parameter"] == "limit"


@pytest.mark.parametrize(
    ("expression", "code", "field", "position", "value", "hint"),
    [
        ("0 25 * * *", "cron.out_of_range", "hour", 2, "25", "allowed are"),
        ("0 5-3 * * *", "cron.reversed_range", "hour", 2, "5-3", "allowed are"),
        ("0 */0 * * *", "cron.bad_step", "hour", 2, "*/0", "allowed are"),
        ("0 0 * foo *", "cron.unknown_name", "month", 6, "foo", "allowed are"),
        ("0 0 * * mon#7", "cron.out_of_range", "day of week", 8, "mon#7", "allowed are"),
        ("0 0 * * x?", "cron.unreadable", "day of week", 8, "x?", "allowed are"),
        ("0 0 30 2 *", "cron.never", "day of month", None, "30", None),
        ("* * *", "cron.number_of_fields", None, None, None, "it needs five"),
        ("@dayly", "cron.unknown_nickname", None, None, "@dayly", "did you mean '@daily'?"),
    ],
)
def test_a_cron_mistake_has_its_place(app, expression, code, field, position, value, hint):
    with pytest.raises(errors.InvalidCronError) as caught:
        Cron(expression)
    raised = problem(ask(raising(caught.value), "GET", "/raise"), 422, "invalid-cron")
    posted = ask(app, "POST", "/jobs", json={**GOOD, "cron_expression": expression})
    told = problem(posted, 422, "invalid-cron")
    for one in (raised, told):
        [error] = one["errors"]
        assert one["detail"] == error["message"] == str(caught.value)
        assert error["pointer"] == "/cron_expression"
        assert error["code"] == code
        assert error.get("field") == field
        assert error.get("position") == position
        assert error.get("value") == value
        assert (error.get("hint") or "").startswith(hint or "")
        assert bool(error.get("hint")) == bool(hint)


def test_parameters_and_headers_are_named(app):
    told = problem(ask(app, "GET", "/jobs?limit=0"), 422)
    assert told["errors"][0]["parameter"] == "limit"
    assert told["detail"].startswith("parameter limit: input should be greater")
    told = problem(ask(app, "GET", "/jobs/x"), 404, "not-found")
    assert told["errors"][0]["parameter"] == "number"
    assert told["errors"][0]["value"] == "x"
    response = ask(app, "POST", "/jobs", json=GOOD, headers={"Idempotency-Key": "123456"})
    assert problem(response, 422)["errors"][0]["header"] == "idempotency-key"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"a": 1,}',
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b'{"max_retries": ' + b"1" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_json(app, body):
    response = ask(app, "POST", "/jobs", content=body, headers={"Content-Type": "application/json"})
    told = problem(response, 400)
    assert "body" in told["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"1",
        b'"\\ud800"',
        b"NaN",
        b'{"name": "\\u0000"}',
        b'{"name": "\\ud800", "cron_expression": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"\\u0000": 1}',
        b'{"max_retries": NaN}',
        b'{"max_retries": 1e999}',
        b'{"max_retries": ' + b"1" * 4000 + b"}",
        b'{"cron_expression": "\\u0000 * * * *"}',
        b'{"cron_expression": "\'; x"}',
        b'{"' + b"n" * 100_000 + b'": 1}',
        b'{"name": {}, "cron_expression": "' + b"*" * 100_000 + b'"}',
        b"{" + b",".join(b'"x%d":1' % number for number in range(50_000)) + b"}",
    ],
    ids=range(18),
)
def test_odd_bodies_are_refused_in_few_clean_words(app, body):
    response = ask(app, "POST", "/jobs", content=body, headers={"Content-Type": "application/json"})
    told = problem(response, 422)
    assert "\0" not in json.dumps(told, ensure_ascii=False)
    assert len(response.content) < 10_000
    assert all(len(one.get("value", "")) <= 200 for one in told["errors"])


def test_an_unknown_path_and_its_odd_characters(app):
    told = problem(ask(app, "GET", "/nowhere"), 404, "not-found")
    assert told["detail"] == "there is nothing at /nowhere"
    told = problem(ask(app, "GET", "/no%00%0a%C3%A9/" + "x" * 5000), 404)
    assert told["instance"].startswith("/no%00%0A%C3%A9/x")
    assert len(told["instance"]) < 300
    assert len(told["detail"]) < 300


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/jobs", {"GET", "POST"}),
        ("DELETE", "/jobs", {"GET", "POST"}),
        ("PUT", "/jobs/1", {"GET", "PATCH", "DELETE"}),
        ("TRACE", "/jobs/1", {"GET", "PATCH", "DELETE"}),
        ("POST", "/openapi.json", {"GET", "HEAD"}),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/behind"])
def test_the_allowed_methods_are_those_of_all_routes(app, method, path, allowed, root_path):
    async def placed(scope, receive, send):
        await app({**scope, "root_path": root_path, "path": root_path + path}, receive, send)

    response = ask(placed, method, path)
    told = problem(response, 405, "method-not-allowed")
    assert set(response.headers["allow"].split(", ")) == allowed
    assert len(response.headers.get_list("allow")) == 1
    assert method in told["detail"]


def test_files_are_only_read(tmp_path):
    app = make_app()
    app.mount("/static", StaticFiles(directory=tmp_path))
    response = ask(app, "POST", "/static/a.css")
    problem(response, 405)
    assert response.headers["allow"] == "GET, HEAD"
    problem(ask(app, "GET", "/static/a.css"), 404)


def test_other_http_errors(app):
    told = problem(ask(app, "DELETE", "/jobs/1"), 418, "i-m-a-teapot")
    assert told["detail"] == "{'tea': 'pot'}"
    told = problem(ask(raising(HTTPException(599, "odd")), "GET", "/raise"), 599, "error")
    assert told["detail"] == "odd"
    response = ask(raising(HTTPException(304)), "GET", "/raise")
    assert (response.status_code, response.content) == (304, b"")
    response = ask(raising(HTTPException(429, headers={"Retry-After": "7"})), "GET", "/raise")
    problem(response, 429, "too-many-requests")
    assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        (errors.UnknownIdError("no job 7"), 404, "not-found"),
        (errors.DuplicateIdError("there is one"), 409, "conflict"),
        (problems.ConflictError("the run has ended"), 409, "conflict"),
        (problems.KeyReusedError("used before"), 422, "key-reused"),
        (errors.ArgumentsError("needs to"), 422, "invalid-parameters"),
        (errors.InvalidOptionError("priority is 0 to 10"), 422, "invalid-option"),
    ],
)
def test_what_the_package_refuses(error, status, name):
    assert problem(ask(raising(error), "GET", "/raise"), status, name)["detail"] == str(error)


@pytest.mark.parametrize(
    "error",
    [
        errors.StoreError(f"postgresql://{SECRET}@db: refused"),
        errors.QueueFullError("full"),
        errors.ShutdownError("shut down"),
    ],
)
def test_what_may_go_later(error, caplog):
    response = ask(raising(error), "GET", "/raise")
    told = problem(response, 503, "unavailable")
    assert response.headers["retry-after"] == "5"
    assert SECRET not in response.text
    assert told["detail"] != str(error)
    assert str(error) in caplog.text


def test_an_unknown_job_type_lists_the_known():
    error = errors.UnknownJobError("no job is registered as 'os.system'; known jobs: 'clean_up'")
    told = problem(ask(raising(error), "GET", "/raise"), 422, "unknown-job-type")
    [mistake] = told["errors"]
    assert mistake["pointer"] == "/job_type"
    assert mistake["known"] == ["clean_up", "data_processing"]
    assert told["detail"].endswith("known are clean_up, data_processing")
    told = problem(ask(raising(error), "POST", "/raise/os.system"), 404, "not-found")
    assert told["errors"][0]["parameter"] == "job_type"
    assert "pointer" not in told["errors"][0]


@pytest.mark.parametrize("error", [ZeroDivisionError(SECRET), errors.LaunchError(SECRET)])
def test_what_nobody_expected_is_told_to_the_log_alone(error, caplog):
    response = ask(ErrorBoundary(raising(error)), "GET", "/raise")
    told = problem(response, 500, "internal-error")
    assert SECRET not in response.text
    assert told["detail"].startswith("something went wrong here")
    [record] = caplog.records
    assert (record.name, record.levelno) == ("job_scheduler", logging.ERROR)
    assert record.message == "GET /raise has failed"
    assert record.exc_info[1] is error


def test_a_stream_that_fails_is_broken_off(caplog):
    app = make_app()

    @app.get("/stream")
    async def stream():
        async def parts():
            yield b"half"
            raise ZeroDivisionError

        return StreamingResponse(parts())

    with pytest.raises(ZeroDivisionError):
        ask(ErrorBoundary(app), "GET", "/stream")
    assert "GET /stream has failed" in caplog.text


def test_the_schema_of_a_problem_is_in_the_document(app):
    document = ask(app, "GET", "/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert {"Problem", "Mistake", "JobIn"} <= set(schemas)
    responses = document["paths"]["/jobs"]["post"]["responses"]
    assert set(responses) >= {"200", "400", "401", "404", "409", "413", "415", "422", "503"}
    for status, response in responses.items():
        if status != "200":
            [(media_type, content)] = response["content"].items()
            assert media_type == "application/problem+json"
            assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
            assert problems.Problem(**content["example"]).status == int(status)
    assert "$defs" not in json.dumps(document)


@pytest.mark.parametrize("text", ["", "x" * 200, "x" * 201, "x" * 10_000])
def test_shortened_texts_fit(text):
    assert len(problems.shorten(text)) == min(len(text), 200)


def test_shortened_texts_keep_their_end_and_have_no_controls():
    assert problems.shorten("a" * 500 + "end", 11) == "aaaaa…aaend"
    assert problems.shorten("a\0b\nc\x1b\ud800é😀") == "a\\x00b\\nc\\x1b\\ud800é😀"

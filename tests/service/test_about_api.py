"""What can be run, what an expression means, and how the service is."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import eventually
from tests.postgres import execute
from tests.service.conftest import ended, made


def test_job_types_tell_their_parameters(client):
    types = {each["name"]: each for each in client.get("/job-types").json()}
    assert {"email_notification", "data_processing", "Strict"} <= types.keys()
    schema = types["Strict"]["parameters"]
    assert schema["required"] == ["what"]
    assert schema["properties"]["number"]["default"] == 1
    assert types["Strict"]["executor"] == "coroutine"
    assert types["email_notification"]["executor"] == "process"


def test_a_good_expression_is_explained(client):
    wanted = {"cron_expression": "0 9 * * 1-5", "timezone": "Asia/Tokyo"}
    found = client.post("/cron/validate", json=wanted).json()
    assert found["valid"]
    assert found["description"] == "at 09:00 on Monday to Friday (Asia/Tokyo)"
    assert len(found["next_runs"]) == 5
    assert all(each.endswith("T09:00:00+09:00") for each in found["next_runs"])


@pytest.mark.parametrize(
    ("wanted", "field", "position"),
    [
        ({"cron_expression": "0 25 * * *"}, "hour", 2),
        ({"cron_expression": "0 0 30 2 *"}, None, None),
        ({"cron_expression": ""}, None, None),
        ({"cron_expression": "* * * * *", "timezone": "Nowhere"}, "timezone", None),
    ],
)
def test_a_bad_expression_is_explained_too(client, wanted, field, position):
    found = client.post("/cron/validate", json=wanted).json()
    assert not found["valid"]
    assert found["next_runs"] == []
    assert found["error"]["message"]
    if field is not None:
        assert (found["error"]["field"], found["error"]["position"]) == (field, position)


def test_health(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json() == {"status": "ready"}
    for path in ("/healthz", "/readyz"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_without_its_database_it_lives_but_is_not_ready(client, address, tmp_path):
    if address.startswith("sqlite"):
        pytest.skip("a file that is there stays there")
    name = urlsplit(address).path[1:]
    other = address.replace(f"/{name}", "/postgres", 1)
    execute(other, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    execute(other, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname='{name}'")
    try:
        answer = client.get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert client.get("/jobs").status_code == 503
        assert client.get("/healthz").status_code == 200
    finally:
        execute(other, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    eventually(lambda: client.get("/readyz").status_code == 200)
    assert ended(client, client.post("/run/note").json()["id"])["state"] == "completed"


def test_metrics(client):
    made(client)
    ended(client, client.post("/run/note").json()["id"])
    ended(client, client.post("/run/fails").json()["id"])
    client.post("/run/note", json={"delay": 3600})
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert found["job_scheduler_runs_total", "Note", "completed"] == 1
    assert found["job_scheduler_runs_total", "Fails", "failed"] == 1
    assert found["job_scheduler_run_duration_seconds_count", "Fails"] == 1
    assert found["job_scheduler_last_success_timestamp_seconds", "Note"] > 1.7e9
    assert found["job_scheduler_capacity",] == 5
    assert found["job_scheduler_running",] == 0
    assert found["job_scheduler_store_due",] == 0
    assert found["job_scheduler_tick_age_seconds",] < 30


def test_the_description_is_whole(client):
    document = client.get("/openapi.json").json()
    assert {"/jobs", "/jobs/{job_id}", "/runs", "/run/{job_type}"} <= document["paths"].keys()
    ids = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert len(ids) == len(set(ids))

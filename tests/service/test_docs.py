"""``/docs``: all of it from here, under the strict policy of the service."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from fastapi import FastAPI

from job_scheduler.service import docs, problems
from job_scheduler.service.security import SAFE_HEADERS, secured
from tests.service.asking import Given, ask, problem


@pytest.fixture(scope="module")
def app():
    app = FastAPI(title="<Cron> & co", docs_url=None, redoc_url=None)
    problems.install(app)
    docs.install(app)
    return secured(app, Given())


def test_the_page_names_only_what_is_here(app):
    page = ask(app, "GET", "/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<title>&lt;Cron&gt; &amp; co</title>" in page.text
    linked = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(linked) == 5
    for path in linked:
        response = ask(app, "GET", f"/{path}")
        assert response.status_code == 200
        assert response.content
    assert "http" not in page.text


def test_nothing_in_the_page_needs_a_laxer_policy(app):
    page = ask(app, "GET", "/docs")
    assert (
        page.headers["content-security-policy"].encode() == SAFE_HEADERS[b"content-security-policy"]
    )
    assert not re.search(r"<style|style=|\son\w+=", page.text)
    for script in re.findall(r"<script[^>]*>", page.text):
        assert "src=" in script
    assert all(not text for text in re.findall(r"<script[^>]*>(.*?)</script>", page.text))


def test_the_start_names_the_document_and_no_validator_of_others(app):
    start = ask(app, "GET", "/docs/start.js")
    assert start.headers["content-type"].startswith("text/javascript")
    assert '"url": "openapi.json"' in start.text
    assert '"validatorUrl": null' in start.text
    assert ask(app, "GET", "/openapi.json").json()["info"]["title"] == "<Cron> & co"


def test_the_stylesheet_has_its_icons_beside_it(app):
    style = ask(app, "GET", "/docs/swagger-ui.css")
    assert style.headers["content-type"].startswith("text/css")
    icons = re.findall(r"url\(\"?([^)\"]*)", style.text)
    assert len(icons) >= 10
    for icon in icons:
        response = ask(app, "GET", f"/docs/{icon}")
        if response.headers["content-type"] == "image/svg+xml":
            ElementTree.fromstring(response.content)
        else:
            assert response.content.startswith((b"\x89PNG", b"\xff\xd8\xff"))


def test_assets_are_kept_by_browsers(app):
    response = ask(app, "HEAD", "/docs/swagger-ui-bundle.js")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "private, max-age=3600"
    assert ask(app, "GET", "/docs").headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2fcore.py", "%00", "a/b"])
def test_there_is_nothing_else(app, name):
    problem(ask(app, "GET", f"/docs/{name}"), 404)


def test_the_pages_are_not_in_the_document(app):
    assert ask(app, "GET", "/openapi.json").json()["paths"] == {}

"""The pages in a real browser, from a real server: what JavaScript and styles make of them."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import threading
import urllib.request

import pytest
import uvicorn

from job_scheduler.service.app import Service
from job_scheduler.service.job_types import built_in
from job_scheduler.service.job_types.registry import JobTypes
from job_scheduler.service.pages import words
from job_scheduler.service.settings import Settings
from tests.conftest import eventually
from tests.service import sample_types

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium"
)

PHONE = {"width": 360, "height": 740}


class Server:
    """A service on a port of its own, in a thread of this process."""

    def __init__(self, database_url):
        types = JobTypes({**built_in(), **sample_types.JOBS})
        settings = Settings(database_url=database_url, shutdown_timeout=0.0)
        self.service = Service(settings, types)
        config = uvicorn.Config(
            self.service.app, log_level="warning", ws="none", timeout_graceful_shutdown=5
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self):
        self._server.run(sockets=[self._listening])

    def __enter__(self):
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread.start()
        eventually(lambda: self._server.started)
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        self._server.should_exit = True
        self.service.stop_accepting()
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._listening.close()

    def ask(self, method, path, body=None):
        """What the API answers, for whatever another user does meanwhile."""
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def add(self, **fields):
        job = {"name": "a job", "cron_expression": "0 9 * * *", "job_type": "Note", **fields}
        return self.ask("POST", "/jobs", job)

    def ran(self, number):
        """The id of a run of a job that has ended."""
        run = self.ask("POST", f"/jobs/{number}/run")["id"]
        eventually(lambda: self.ask("GET", f"/runs/{run}")["ended_at"])
        return run


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def server(tmp_path):
    with Server(f"sqlite:///{tmp_path}/scheduler.db") as server:
        yield server


def is_a_refused_form(message):
    """Browsers log every answer that is no success, also one that is shown."""
    return "status of 422" in message.text and message.location["url"].endswith("/ui/jobs")


@contextlib.contextmanager
def opened(browser, server, path="/", **options):
    """A page in a window of its own; fails if anything was logged in the browser's console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
    context.set_default_timeout(10_000)
    page = context.new_page()
    logged = []
    page.on("console", lambda message: is_a_refused_form(message) or logged.append(message.text))
    page.on("pageerror", lambda error: logged.append(str(error)))
    page.goto(server.url + path)
    yield page
    context.close()
    assert logged == []


@pytest.fixture
def page(browser, server):
    with opened(browser, server) as page:
        yield page


def expect(locator):
    return playwright.expect(locator)


def live(page):
    expect(page.locator("#badge")).to_have_text("Live")
    return page


def test_add_run_pause_and_delete_a_job(server, page):
    live(page)
    page.get_by_label("Name").first.fill("First job")
    page.get_by_label("What it does").select_option("Note")
    page.get_by_label("When").fill("*/5 * * * *")
    expect(page.locator("#cron-words")).to_contain_text("Every 5 minutes (UTC)")
    page.get_by_label("Parameters").fill('{"a": 1}')
    page.get_by_role("button", name="Add the job").click()
    expect(page.locator("#said")).to_have_text("Added “First job”.")
    row = page.locator("#job-1")
    expect(row).to_contain_text("every 5 minutes")
    live(page)
    page.evaluate("window.same = true")

    row.get_by_role("button", name="Run now First job").click()
    expect(page.locator("#said")).to_have_text("“First job” runs now.")
    expect(row.locator(".strip a.completed")).to_have_count(1)
    expect(page.locator("#runs tbody tr")).to_contain_text("Completed")

    row.get_by_role("button", name="Pause First job").click()
    expect(row.locator(".c-state")).to_have_text("Paused")
    row.get_by_role("button", name="Resume First job").click()
    expect(row.locator(".c-state")).to_have_text("Active")

    row.get_by_role("button", name="More about First job").click()
    more = page.locator("#more-1")
    expect(more).to_be_visible()
    expect(more).to_contain_text('"a": 1')
    more.get_by_text("Delete this job…").click()
    more.get_by_role("button", name="Delete it First job").click()
    expect(row).to_have_count(0)
    expect(page.locator("#said")).to_have_text("Deleted “First job”.")
    assert page.evaluate("document.activeElement.id") == "jobs-title"
    assert page.evaluate("window.same"), "it was all done on one page"
    assert server.ask("GET", "/jobs") == []


def test_the_same_without_javascript(browser, server):
    with opened(browser, server, java_script_enabled=False) as page:
        page.get_by_label("Name").first.fill("First job")
        page.get_by_label("What it does").select_option("Note")
        page.get_by_label("When").fill("0 25 * * *")
        page.get_by_role("button", name="Add the job").click()
        expect(page.locator("#wrong-cron_expression")).to_contain_text("25 is out of range")
        page.get_by_label("When").fill("0 9 * * *")
        page.get_by_label("Parameters").fill("{}")
        page.get_by_role("button", name="Add the job").click()
        row = page.locator("#job-1")
        expect(row).to_contain_text("at 09:00 every day")
        row.get_by_role("button", name="Pause First job").click()
        expect(row.locator(".c-state")).to_have_text("Paused")
        row.get_by_role("button", name="Run now First job").click()
        expect(page.locator("#said")).to_have_text("“First job” runs now.")
        row.get_by_role("button", name="More about First job").click()
        page.locator("#more-1").get_by_text("Delete this job…").click()
        page.locator("#more-1").get_by_role("button", name="Delete it").click()
        expect(page.locator("#job-1")).to_have_count(0)


def test_what_others_do_is_seen_without_a_reload(server, page):
    live(page)
    page.evaluate("window.same = true")
    server.add(name="Of another")
    expect(page.locator("#job-1 .name")).to_have_text("Of another")
    expect(page.locator("#totals dd").first).to_have_text("1")
    server.ask("PATCH", "/jobs/1", {"name": "Renamed"})
    expect(page.locator("#job-1 .name")).to_have_text("Renamed")
    server.ask("PATCH", "/jobs/1", {"job_type": "Fails"})
    server.ran(1)
    expect(page.locator("#job-1 .c-state")).to_have_text("Failing")
    expect(page.locator("#runs .error")).to_have_text("ValueError: as it was meant to <b>be</b>")
    server.ask("DELETE", "/jobs/1")
    expect(page.locator("#jobs .empty")).to_contain_text("Nothing is scheduled yet")
    assert page.evaluate("window.same")


def test_focus_and_what_is_open_stay(server, browser):
    server.add(name="Bad", job_type="Fails")
    server.add(name="Good")
    run = server.ran(1)
    with opened(browser, server) as page:
        live(page)
        pause = page.locator("#job-2").get_by_role("button", name="Pause")
        pause.focus()
        details = page.locator(f"#more-{run}")
        details.locator("summary").click()
        traceback = details.locator("pre.traceback")
        expect(traceback).to_contain_text("sample_types.py")
        expect(details.locator("pre.output")).to_contain_text("about to fail")
        pause.focus()
        place = pause.bounding_box()["y"]
        server.add(name="Third")
        server.ran(2)
        expect(page.locator("#job-2 .strip a.completed")).to_have_count(1)
        expect(page.locator("#job-3")).to_be_visible()
        assert pause.evaluate("element => element === document.activeElement")
        expect(traceback).to_be_visible()
        assert pause.bounding_box()["y"] == place

        page.locator("#job-2").get_by_role("button", name="More").click()
        server.add(name="Fourth")
        expect(page.locator("#job-4")).to_be_attached()
        expect(page.locator("#more-2")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#more-2")).to_be_hidden()

        pause.press("Enter")
        resume = page.locator("#job-2").get_by_role("button", name="Resume")
        expect(resume).to_be_focused()


def test_what_is_typed_stays(server, page):
    live(page)
    page.get_by_label("Name").first.fill("Half a na")
    page.locator("#filter-text").fill("mai")
    server.add(name="Of another")
    expect(page.locator("#job-1")).to_be_visible()
    assert page.get_by_label("Name").first.input_value() == "Half a na"
    assert page.locator("#filter-text").input_value() == "mai"


def test_the_parameters_of_a_type_are_proposed_until_they_are_typed(page):
    kind, parameters = page.get_by_label("What it does"), page.get_by_label("Parameters")
    kind.select_option("email_notification")
    assert set(json.loads(parameters.input_value())) >= {"recipient", "subject"}
    kind.select_option("Strict")
    assert json.loads(parameters.input_value()) == {"what": "", "number": 1}
    parameters.fill('{"mine": 1}')
    kind.select_option("email_notification")
    assert parameters.input_value() == '{"mine": 1}'
    assert page.locator("#timezones option[value='Europe/Berlin']").count() == 1


def test_the_badge_tells_when_the_server_is_gone(browser, tmp_path):
    with Server(f"sqlite:///{tmp_path}/scheduler.db") as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        live(page)
        server.stop()
        expect(page.locator("#badge")).to_contain_text("Stale: as of", timeout=15_000)
        context.close()


def test_a_page_that_nobody_sees_does_not_ask(server, page):
    live(page)
    page.evaluate(
        """() => {
            Object.defineProperty(document, "hidden", {configurable: true, get: () => true});
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    server.add(name="Unseen")
    page.wait_for_timeout(1500)
    assert asked == []
    page.evaluate(
        """() => {
            delete document.hidden;
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )
    expect(page.locator("#job-1")).to_be_visible()
    live(page)


def test_times_go_on_in_the_words_of_the_server(page):
    seconds = [0, 5, 60, 3599, 3600, 8000, 6 * 3600, 86400, 3 * 86400, 1500 * 86400]
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    said = page.evaluate(
        """instants => {
            document.getElementById("said").innerHTML =
                instants.map(each => `<time datetime="${each}">?</time>`).join("");
            return new Promise(done => setTimeout(() => done(Array.from(
                document.querySelectorAll("#said time"), each => each.textContent)), 1100));
        }""",
        [(now - timedelta(seconds=each)).isoformat() for each in seconds],
    )
    later = [now + timedelta(seconds=each) for each in (0, 1, 2, 3, 4, 5, 6, 7, 8)]
    for text, each in zip(said, seconds, strict=True):
        assert text in {words.away(now - timedelta(seconds=each), then) for then in later}


def test_the_arrow_keys_go_through_a_strip(server, browser):
    server.add()
    runs = [server.ran(1) for _ in range(3)]
    with opened(browser, server) as page:
        live(page)
        page.locator("#job-1 .strip a").last.focus()
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{server.url}/ui/runs/{runs[0]}")
        expect(page.locator("h1")).to_have_text("a job")


def test_a_run_is_seen_to_end(server, browser):
    server.add(name="Long", job_type="Waits", parameters={"seconds": 60})
    run = server.ask("POST", "/jobs/1/run")["id"]
    eventually(lambda: server.ask("GET", f"/runs/{run}")["state"] == "running")
    with opened(browser, server, f"/ui/runs/{run}") as page:
        live(page)
        expect(page.locator("#run-head .state")).to_have_text("Running")
        server.ask("POST", f"/runs/{run}/cancel")
        expect(page.locator("#run-head .state")).to_have_text("Cancelled")


def full(server):
    """Jobs of all states, with runs."""
    server.add(name="Good with a name that is long " * 4, description="What it is for")
    server.add(name="Bad", job_type="Fails", timezone="America/Argentina/Buenos_Aires")
    server.add(name="Paused", is_active=False, parameters={"a": "x" * 300})
    server.add(name="Long", job_type="Waits", cron_expression="1,4,9,16,25,36,49 3-17 * * *")
    for number in (1, 1, 2, 3):
        server.ran(number)
    server.ask("POST", "/jobs/4/run")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_and_hit(server, browser, scheme):
    full(server)
    server.add(name="Open")
    with opened(browser, server, color_scheme=scheme) as page:
        live(page)
        page.locator("#add summary").click()
        page.locator("#runs details summary").first.click()
        check(page)
        page.locator("#job-1").get_by_role("button", name="More").click()
        page.locator("#more-1").get_by_text("Delete this job…").click()
        check(page)
        page.goto(server.url + page.locator("#runs a.name").nth(1).get_attribute("href"))
        check(page)
        page.goto(server.url)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(246, 245, 241)" if scheme == "light" else "rgb(21, 23, 26)"
        )


def check(page):
    """What the guidelines for accessibility ask for, as far as a program can tell."""
    page.wait_for_timeout(100)
    found = page.evaluate(CHECKS)
    assert found == []


CHECKS = """() => {
  const wrong = [];
  const tell = (what, element) => wrong.push(`${what}: ${element.outerHTML.slice(0, 160)}`);
  const isSeen = element => element.checkVisibility({checkOpacity: true}) &&
    !element.closest(".vh, .sprite, .skip");
  const rgb = text => {
    const numbers = text.match(/[\\d.]+/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    return [...numbers.slice(0, 3).map(each => each * scale), numbers[3] ?? 1];
  };
  const behind = element => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      layers.push(color);
      if (color[3] === 1) break;
    }
    return layers.reverse().reduce((below, [r, g, b, a]) =>
      [r, g, b].map((each, i) => each * a + below[i] * (1 - a)), [255, 255, 255]);
  };
  const light = color => {
    const [r, g, b] = color.map(each => {
      each /= 255;
      return each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [a, b] = [light(one), light(other)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!texts.currentNode.nodeValue.trim() || !isSeen(element)) continue;
    const ratio = contrast(rgb(getComputedStyle(element).color).slice(0, 3), behind(element));
    if (ratio < 4.5) tell(`contrast ${ratio.toFixed(2)}`, element);
  }
  for (const bar of document.querySelectorAll(".strip a")) {
    const style = getComputedStyle(bar, "::before");
    const color = style.boxShadow === "none" ? style.backgroundColor : style.boxShadow;
    const ratio = contrast(rgb(color).slice(0, 3), behind(bar));
    if (ratio < 3) tell(`contrast of a bar ${ratio.toFixed(2)}`, bar);
    if (!bar.title) tell("a link without words", bar);
  }
  for (const control of document.querySelectorAll("input, select, textarea")) {
    if (control.type !== "hidden" && !control.labels.length) tell("no label", control);
  }
  for (const control of document.querySelectorAll("input, select, textarea, button, summary")) {
    if (control.type === "hidden" || !isSeen(control)) continue;
    const {width, height} = control.getBoundingClientRect();
    if (width < 24 || height < 24) tell(`${width} x ${height}`, control);
  }
  for (const button of document.querySelectorAll("button, a:not(.strip a), summary")) {
    if (!button.textContent.trim() && !button.ariaLabel) tell("no words", button);
  }
  for (const table of document.querySelectorAll("table")) {
    if (!table.caption) tell("no caption", table);
    for (const cell of table.querySelectorAll("thead th")) {
      if (cell.scope !== "col") tell("no scope", cell);
    }
    for (const row of table.tBodies[0].rows) {
      if (!row.querySelector("th[scope=row]")) tell("no header", row);
    }
  }
  const ids = Array.from(document.querySelectorAll("[id]"), each => each.id);
  for (const element of document.querySelectorAll("[aria-describedby], [aria-labelledby]")) {
    const named = `${element.getAttribute("aria-describedby") ?? ""} ` +
      `${element.getAttribute("aria-labelledby") ?? ""}`;
    for (const id of named.split(" ").filter(Boolean)) {
      if (!ids.includes(id)) tell(`no #${id}`, element);
    }
  }
  let level = 0;
  for (const heading of document.querySelectorAll("h1, h2, h3")) {
    if (heading.closest("[popover]")) continue;
    const now = Number(heading.localName[1]);
    if (now > level + 1) tell(`h${now} after h${level}`, heading);
    level = now;
  }
  return wrong;
}"""


def test_every_step_of_the_keyboard_is_seen(server, browser):
    full(server)
    with opened(browser, server) as page:
        live(page)
        seen = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            at = page.evaluate(
                """() => {
                    const element = document.activeElement;
                    const {top, bottom} = element.getBoundingClientRect();
                    const bar = document.querySelector(".top").getBoundingClientRect();
                    return [element.outerHTML.slice(0, 120), getComputedStyle(element).outlineStyle,
                            bottom > (element.closest(".top, .skip") ? 0 : bar.bottom) &&
                            top < innerHeight];
                }"""
            )
            assert at[1:] == ["solid", True], at
            seen.add(at[0])
        assert len(seen) > 25


@pytest.mark.parametrize("path", ["/", "/?runs=failed", "run", "error"])
def test_nothing_is_wider_than_a_phone(server, browser, path):
    full(server)
    with opened(browser, server) as page:
        page.set_viewport_size(PHONE)
        if path == "run":
            [failed] = server.ask("GET", "/runs?state=failed")
            path = f"/ui/runs/{failed['id']}"
        if path.startswith("/"):
            page.goto(server.url + path)
        else:
            page.locator("#add summary").click()
            page.get_by_label("Timezone").fill("Mars/" + "x" * 90)
            page.get_by_label("When").fill("0 25 * * *")
        page.wait_for_timeout(500)
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        if path == "/":
            page.locator("#runs details summary").first.click()
            expect(page.locator("#runs pre").first).to_be_visible()
            page.locator("#job-3").get_by_role("button", name="More").click()
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollWidth") == 360
            box = page.locator("#more-3").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 360
            check(page)


def test_nothing_moves_for_those_who_do_not_want_it(server, browser):
    full(server)
    with opened(browser, server, reduced_motion="reduce") as page:
        assert page.evaluate("document.getAnimations().length") == 0
    with opened(browser, server) as page:
        assert page.evaluate("document.getAnimations().length") > 0


def test_the_script_is_of_one_file_and_evaluates_nothing():
    from job_scheduler.service.pages.assets import STATIC

    assert {re.sub(r".*\.", "", name) for name in STATIC} == {"css", "js", "svg"}
    script = STATIC["dashboard.js"].content.decode()
    assert not re.search(r"\beval\b|new Function|innerHTML|outerHTML|document\.write", script)

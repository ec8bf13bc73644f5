"""What passes the checks of the service, and what every response carries."""

from __future__ import annotations

import asyncio
import base64
import http.client
import socket
import threading

import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, StreamingResponse

from job_scheduler.errors import InvalidOptionError
from job_scheduler.service import problems
from job_scheduler.service.security import MOST_BODY, SAFE_HEADERS, BodyLimit, secured
from tests.conftest import eventually
from tests.service.asking import Given, ask, problem

KEY = "jsk_Zürich"
MACHINE = socket.gethostname()


def make_app(**settings):
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    @app.get("/healthz")
    async def look():
        return {}

    @app.api_route("/jobs", methods=["POST", "PUT", "PATCH", "DELETE"])
    @app.post("/ui/jobs")
    @app.post("/uid")
    async def change(request: Request):
        return {"size": len(await request.body())}

    @app.post("/unread")
    async def unread():
        return {}

    @app.post("/model")
    async def model(value: dict[str, int]):
        return value

    @app.get("/error")
    async def error():
        raise ZeroDivisionError

    @app.get("/own")
    async def own():
        return JSONResponse({}, headers={"Cache-Control": "max-age=5", "X-Frame-Options": "DENY"})

    @app.post("/echo")
    async def echo(request: Request):
        async def parts():
            yield b"start"
            async for part in request.stream():
                yield b"%d;" % len(part)

        return StreamingResponse(parts())

    return secured(app, Given(**settings))


@pytest.fixture(scope="module")
def app():
    return make_app()


def is_safe(response):
    for name, value in SAFE_HEADERS.items():
        assert response.headers.get_list(name.decode()) == [value.decode()]


# Hosts.

LOOPBACK = ["127.0.0.1", "localhost", "::1"]
OPEN = ["0.0.0.0", "::", "192.0.2.7", "cron.example.com"]

HOSTS = {
    # the Host header: whether it passes on loopback, and elsewhere without a key
    "localhost": (True, True),
    "LOCALHOST:1234": (True, True),
    "127.0.0.1": (True, True),
    "127.0.0.1:8000": (True, True),
    "[::1]": (True, True),
    "[::1]:8000": (True, True),
    "Trusted.example": (True, True),
    "trusted.example:444": (True, True),
    "with-port.example": (True, True),
    f"{MACHINE}:8000": (MACHINE in ("localhost",), True),
    "192.168.1.7:8000": (False, True),
    "[2001:db8::1]": (False, True),
    "evil.example": (False, False),
    "evil.example:8000": (False, False),
    "sub.trusted.example": (False, False),
    "a.wild.example": (True, True),
    "b.A.wild.example:8000": (True, True),
    "wild.example": (False, False),
    "notwild.example": (False, False),
    "nottrusted.example": (False, False),
    "localhost.evil.example": (False, False),
    "127.0.0.1.nip.io": (False, False),
    "127.1": (False, False),
    "0x7f000001": (False, False),
    "localhost@evil.example": (False, False),
    "evil.example#localhost": (False, False),
    "[::1]evil.example": (False, False),
    "localhost:80:80": (False, False),
    "localhost:x": (False, False),
    "localhost evil.example": (False, False),
    "": (False, False),
    "é.example": (False, False),
}


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(host):
    header = {"Host": host.encode("latin-1")}
    trusted = ("trusted.example", "with-port.example:8000", "*.wild.example")
    for bound in LOOPBACK + OPEN:
        passes = HOSTS[host][bound in OPEN]
        response = ask(make_app(host=bound, trusted_hosts=trusted), "GET", "/", headers=header)
        assert response.status_code == (200 if passes else 400), bound
        is_safe(response)
        if not passes:
            told = problem(response, 400, "unknown-host")
            assert "JOB_SCHEDULER_TRUSTED_HOSTS" in told["detail"]


def test_with_a_key_all_hosts_are_fine_but_on_loopback():
    header = {"Host": "any.example", "X-API-Key": "key"}
    for bound in OPEN:
        response = ask(make_app(host=bound, api_key="key"), "GET", "/", headers=header)
        assert response.status_code == 200
    for bound in LOOPBACK:
        response = ask(make_app(host=bound, api_key="key"), "GET", "/", headers=header)
        problem(response, 400, "unknown-host")


def test_no_host_and_two_hosts_are_refused(app):
    for hosts in ([], [b"localhost", b"evil.example"], [b"localhost", b"localhost"]):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        scope["headers"] = [(b"host", host) for host in hosts]
        sent = []

        async def send(message, sent=sent):
            sent.append(message)

        asyncio.run(app(scope, None, send))
        assert sent[0]["status"] == 400


# Origins.

ORIGINS = [
    ({}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "nonsense"}, False),
    ({"Sec-Fetch-Site": ""}, False),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://localhost:8000"}, True),
    ({"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"}, True),
    ({"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8000"}, False),
    ({"Origin": "http://localhost:8000"}, True),
    ({"Origin": "HTTP://LOCALHOST:8000"}, True),
    ({"Origin": "http://localhost"}, False),
    ({"Origin": "http://localhost:8001"}, False),
    ({"Origin": "http://127.0.0.1:8000"}, False),
    ({"Origin": "http://evil.example"}, False),
    ({"Origin": "http://evil.example/localhost:8000"}, False),
    ({"Origin": "http://localhost:8000.evil.example"}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "localhost:8000"}, False),
    ({"Origin": b"\xff://\xfe"}, False),
]


@pytest.mark.parametrize(("headers", "passes"), ORIGINS, ids=map(str, range(len(ORIGINS))))
def test_origins(app, headers, passes):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        response = ask(app, method, "/jobs", headers=headers)
        is_safe(response)
        if passes:
            assert response.status_code == 200
        else:
            problem(response, 403, "cross-origin")
    assert ask(app, "GET", "/", headers=headers).status_code == 200
    assert ask(app, "OPTIONS", "/jobs", headers=headers).status_code == 405


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Origin", ["http://localhost:8000", "http://evil.example"]),
        ("Sec-Fetch-Site", ["same-origin", "cross-site"]),
    ],
)
def test_of_two_origins_both_must_be_its_own(app, name, values):
    headers = [(name, value) for value in values]
    problem(ask(app, "POST", "/jobs", headers=headers), 403)


# Content types.

TYPES = [
    ("application/json", True, True),
    ("APPLICATION/JSON", True, True),
    ("application/json; charset=utf-8", True, True),
    ("application/merge-patch+json", True, True),
    ("application/x-www-form-urlencoded", False, True),
    ("application/x-www-form-urlencoded; charset=utf-8", False, True),
    ("text/plain", False, False),
    ("text/plain; application/json", False, False),
    ("text/json", False, False),
    ("multipart/form-data; boundary=x", False, False),
    ("application/jsonp", False, False),
    ("application/json, text/plain", False, False),
    ("application/ +json", False, False),
    ("", False, False),
    (None, False, False),
]


@pytest.mark.parametrize(("kind", "is_json", "is_form"), TYPES)
def test_content_types(app, kind, is_json, is_form):
    headers = {} if kind is None else {"Content-Type": kind}
    for method, path, passes in (
        ("POST", "/jobs", is_json),
        ("PUT", "/jobs", is_json),
        ("PATCH", "/jobs", is_json),
        ("POST", "/unread", is_json),
        ("POST", "/uid", is_json),
        ("POST", "/ui/jobs", is_form),
    ):
        response = ask(app, method, path, content=b"{}", headers=headers)
        is_safe(response)
        if passes:
            assert response.status_code == 200
        else:
            problem(response, 415, "unsupported-media-type")
            assert response.headers["accept"] == "application/json"
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert ask(app, method, "/jobs", headers=headers).status_code == 200


def test_a_body_in_parts_needs_its_type_too(app):
    async def parts():
        yield b"{}"

    problem(ask(app, "POST", "/jobs", content=parts()), 415)


def test_two_content_types_are_refused(app):
    headers = [("Content-Type", "application/json"), ("Content-Type", "text/plain")]
    problem(ask(app, "POST", "/jobs", headers=headers, content=b"{}"), 415)


# Keys.


def basic(user, password):
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


KEYS = [
    ({"Authorization": f"Bearer {KEY}".encode()}, True),
    ({"Authorization": f"bearer  {KEY} ".encode()}, True),
    ({"X-API-Key": KEY.encode()}, True),
    ({"Authorization": basic("", KEY)}, True),
    ({"Authorization": basic("anybody", KEY)}, True),
    ({"Authorization": b"Bearer wrong", "X-API-Key": KEY.encode()}, True),
    ({}, False),
    ({"Authorization": b""}, False),
    ({"Authorization": b"Bearer"}, False),
    ({"Authorization": b"Bearer "}, False),
    ({"Authorization": KEY.encode()}, False),
    ({"Authorization": f"Bearer {KEY}x".encode()}, False),
    ({"Authorization": f"Bearer {KEY[:-1]}".encode()}, False),
    ({"Authorization": f"Bearer {KEY}".encode("latin-1")}, False),
    ({"Authorization": b"Bearer \xff\xfe"}, False),
    ({"Authorization": b"Basic"}, False),
    ({"Authorization": b"Basic !!!"}, False),
    ({"Authorization": b"Basic \xff"}, False),
    ({"Authorization": b"Basic YQ"}, False),
    ({"Authorization": b"Basic " + base64.b64encode(b"no colon")}, False),
    ({"Authorization": b"Basic " + base64.b64encode(b"\xff:\xff")}, False),
    ({"Authorization": basic(KEY, "")}, False),
    ({"Authorization": b"Digest " + KEY.encode()}, False),
    ({"X-API-Key": b""}, False),
    ({"X-API-Key": b"\x80"}, False),
]


@pytest.mark.parametrize(("headers", "passes"), KEYS, ids=map(str, range(len(KEYS))))
@pytest.mark.parametrize("bound", ["127.0.0.1", "0.0.0.0"])
def test_keys(headers, passes, bound):
    app = make_app(host=bound, api_key=KEY)
    response = ask(app, "GET", "/", headers=headers)
    is_safe(response)
    if passes:
        assert response.status_code == 200
    else:
        told = problem(response, 401, "unauthorized")
        assert KEY not in response.text
        assert told["detail"]
        assert response.headers.get_list("www-authenticate") == ['Bearer realm="job_scheduler"']
    assert ask(app, "GET", "/healthz", headers=headers).status_code == 200


def test_an_empty_key_is_refused():
    with pytest.raises(InvalidOptionError, match="needs characters"):
        make_app(api_key="")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/nowhere"),
     ("GET", "//healthz"), ("GET", "/healthz/"), ("POST", "/jobs"), ("DELETE", "/jobs"),
     ("OPTIONS", "/jobs"), ("POST", "/ui/jobs")],
)  # fmt: skip
def test_every_path_but_one_needs_the_key(method, path):
    problem(ask(make_app(api_key=KEY), method, f"http://localhost{path}"), 401)


def test_a_browser_is_asked_for_the_key():
    headers = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    response = ask(make_app(api_key=KEY), "GET", "/", headers=headers)
    problem(response, 401)
    asked = response.headers.get_list("www-authenticate")
    assert asked == [
        'Basic realm="job_scheduler", charset="UTF-8"',
        'Bearer realm="job_scheduler"',
    ]


# Headers.


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 200), ("GET", "/nowhere", 404), ("PUT", "/", 405), ("GET", "/error", 500),
     ("POST", "/model", 422)],
)  # fmt: skip
def test_every_response_is_safe(app, method, path, status):
    response = ask(app, method, path)
    assert response.status_code == status
    is_safe(response)


def test_a_response_keeps_its_own_headers(app):
    headers = ask(app, "GET", "/own").headers
    assert headers.get_list("cache-control") == ["max-age=5"]
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


def test_what_fails_outside_the_application_is_a_problem_too(caplog):
    async def broken(scope, receive, send):
        raise ZeroDivisionError

    response = ask(secured(broken, Given()), "GET", "/")
    problem(response, 500, "internal-error")
    is_safe(response)
    assert "GET / has failed" in caplog.text


def test_web_sockets_are_closed(app):
    sent = []

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "websocket", "path": "/", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


# Bodies, and requests as no client sends them: on a real server.


@pytest.fixture(scope="module")
def port():
    config = uvicorn.Config(make_app(), lifespan="on", log_level="warning")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        eventually(lambda: server.started, what="the start of the server")
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


JSON = {"Content-Type": "application/json"}


def send(port, method, path, body=None, headers=JSON, **options):
    """A response of the server, with its headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path, body, headers, **options)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def test_the_largest_body_passes(port):
    status, _, body = send(port, "POST", "/jobs", b"x" * MOST_BODY)
    assert (status, body) == (200, b'{"size":%d}' % MOST_BODY)
    parts = [b"x" * 1024] * 1024
    assert send(port, "POST", "/jobs", iter(parts), encode_chunked=True)[0] == 200


@pytest.mark.parametrize("path", ["/jobs", "/model", "/unread", "/nowhere"])
def test_a_larger_body_is_refused_by_its_length(port, path):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {MOST_BODY + 1}\r\n\r\n".encode()
        )
        answer = read_all(line)  # no byte of the body is sent
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"application/problem+json" in answer
    assert b"content-security-policy" in answer


@pytest.mark.parametrize("path", ["/jobs", "/model"])
def test_a_larger_body_in_parts_is_refused_as_soon_as_it_is_too_large(port, path):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        for _ in range(1025):
            line.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        answer = read_all(line)  # the body has not ended
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"/problems/too-large" in answer
    assert b"content-security-policy" in answer


def test_a_body_that_is_too_large_ends_a_response_that_has_begun(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(
            b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(1025):
            line.sendall(b"400\r\n" + b"x" * 1024 + b"\r\n")
        answer = read_all(line)
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n")


def test_who_only_waits_for_the_end_is_told_that_it_is_there():
    async def stream(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            pass
        await send({"type": "http.response.body", "body": b"end"})

    async def receive():
        return {"type": "http.request", "body": b"x" * 1000, "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(BodyLimit(stream)(scope, receive, send))
    assert sent[-1]["body"] == b"end"


def read_all(line):
    answer = b""
    while True:
        try:
            part = line.recv(65536)
        except ConnectionResetError:
            return answer
        answer += part
        if not part or answer.endswith((b"}", b"0\r\n\r\n")):
            return answer


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\xff\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_malformed_heads_are_bad_requests(port, head):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        line.sendall(head)
        line.shutdown(socket.SHUT_WR)
        assert line.recv(65536).split(b" ", 2)[1] == b"400"


def test_a_client_that_leaves_in_the_middle_is_no_failure(app, caplog):
    async def receive():
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/jobs", "query_string": b""}
    asyncio.run(app({**scope, "headers": [(b"host", b"localhost")]}, receive, send))
    assert sent[0]["status"] == 400
    assert not caplog.records


def test_errors_on_the_server_carry_all_headers(port):
    status, headers, body = send(port, "GET", "/error")
    assert status == 500
    assert headers["Content-Type"] == "application/problem+json"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert b"ZeroDivision" not in body
    status, headers, body = send(port, "HEAD", "/error")
    assert (status, body) == (405, b"")

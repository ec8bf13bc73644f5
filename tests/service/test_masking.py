"""What is shown of parameters and texts: no secrets, and one line."""

from __future__ import annotations

import time

import pytest

from job_scheduler.service.masking import is_secret, masked, masked_text, one_line

CANARY = "hunter2canary"


@pytest.mark.parametrize(
    "key",
    [
        "password", "Password", "DB_PASSWORD", "db-passwd", "userPassword", "smtp_pass", "pwd",
        "secret", "clientSecret", "client-secret", "token", "accessToken", "id_token", "csrftoken",
        "api_key", "apiKey", "API-KEY", "x-api-key", "APIKey", "authorization", "Authorization",
        "auth", "credential", "credentials", "private_key", "privateKey", "secret_access_key",
        "cookie", "Set-Cookie", "session_id", "passphrase", "jwt", "cvv", "dsn",
    ],
)  # fmt: skip
def test_secret_keys(key):
    assert is_secret(key)
    assert masked({key: CANARY, "dataset": "sales"}) == {key: "***", "dataset": "sales"}
    assert masked({key: {"deep": [CANARY]}}) == {key: "***"}
    assert masked({key: None}) == {key: None}


@pytest.mark.parametrize(
    "key",
    ["recipient", "subject", "dataset", "author", "tokenizer", "passenger", "compass", "name",
     "key", "monkey", "keyboard", "value", "id", "spinner", "", "amount"],
)  # fmt: skip
def test_other_keys(key):
    assert not is_secret(key)
    assert masked({key: "shown"}) == {key: "shown"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"postgresql://app:{CANARY}@db/x", "postgresql://app:***@db/x"),
        (f"see redis://:p@{CANARY}/x@cache:1/0 now", "see redis://:***@cache:1/0 now"),
        (f"Bearer {CANARY}", "Bearer ***"),
        (f"Authorization: bearer {CANARY}", "Authorization: bearer ***"),
        ("Basic aHVudGVyMjpjYW5hcnk=", "Basic ***"),
        (f"sk_live_{CANARY}", "***"),
        (f"key whsec_{CANARY}.", "key ***."),
        ("AKIAIOSFODNN7EXAMPLE", "***"),
        (f"ghp_{CANARY}{CANARY}", "***"),
        (f"xoxb-12345-{CANARY}", "***"),
        ("eyJhbGciOiJIUzI1.eyJzdWIiOiIx.c2lnbmF0dXJl", "***"),
        (f"https://hooks.slack.com/services/T0/B0/{CANARY}", "https://hooks.slack.com/services/***"),
        (f"https://x.org/?api_key={CANARY}&y=1", "https://x.org/?api_key=***&y=1"),
        (f"--password={CANARY} --user=me", "--password=*** --user=me"),
        (f'{{"password": "{CANARY} {CANARY}", "y": 1}}', '{"password": "***", "y": 1}'),
        (f"KeyError: token: {CANARY}", "KeyError: token: ***"),
        (f"-----BEGIN RSA PRIVATE KEY-----\nA-B\n{CANARY}\n-----END RSA PRIVATE KEY-----!", "***!"),
    ],
)  # fmt: skip
def test_secrets_in_texts(text, shown):
    assert masked_text(text) == shown
    assert masked({"note": [text]}) == {"note": [shown]}


@pytest.mark.parametrize(
    "text",
    ["Daily report", "http://host:80/a", "the bearer of news", "risk-averse", "user@example.com",
     "task_test_one", "tokens used: 5", "Ada:Grace@example.com", "passwords", "10:30 @ noon"],
)  # fmt: skip
def test_other_texts(text):
    assert masked_text(text) == text


def test_the_shape_stays():
    given = {
        "list": [1, 2.5, True, None, {"password": "x"}],
        "nested": {"a": {"b": {"token": ["x"]}}},
        "headers": [{"name": "Authorization", "value": "x"}, {"key": "Accept", "value": "y"}],
        7: "a number as a key",
    }
    assert masked(given) == {
        "list": [1, 2.5, True, None, {"password": "***"}],
        "nested": {"a": {"b": {"token": "***"}}},
        "headers": [{"name": "Authorization", "value": "***"}, {"key": "Accept", "value": "y"}],
        7: "a number as a key",
    }
    assert given["nested"] == {"a": {"b": {"token": ["x"]}}}


@pytest.mark.parametrize(
    "value", [None, 7, "x", [], {}, (1, "x"), {"a": ()}, object, b"x", "\ud800"]
)
def test_anything_can_be_masked(value):
    masked(value)


def test_what_is_very_deep_is_masked_as_a_whole():
    deep = value = {}
    for _ in range(100_000):
        value["x"] = value = {}
    value["y"] = CANARY
    shown = masked(deep)
    assert CANARY not in repr(shown)
    assert "***" in repr(shown)
    while deep:  # taken apart by hand, since its end would be as deep
        deep = deep.get("x") if isinstance(deep, dict) else None


@pytest.mark.parametrize(
    "piece",
    ["a", "://", "://a:", "password", "password=", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----",
     "eyJ", "eyJaaaaaa.", "Bearer ", " ", "sk-", "token \t"],
)  # fmt: skip
def test_no_text_takes_long(piece):
    began = time.process_time()
    masked_text(piece * (64 * 1024 // len(piece)))
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("a\tb\0c", r"a\tb\x00c"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b31m\x85", r"\x9b31m\x85"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("\u2028\u2029\ufeff\u200b", r"\u2028\u2029\ufeff\u200b"),
        ("\ud800", r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
        ("Grüße, 世界 👩\u200d🚀 C:\\x", "Grüße, 世界 👩\u200d🚀 C:\\x"),
        (["a\nb"], r"['a\nb']"),
        (None, "None"),
    ],
)
def test_one_line(text, shown):
    assert one_line(text) == shown
    assert one_line(text).splitlines() == [shown]
    one_line(text).encode()


def test_a_long_line_is_cut():
    assert one_line("x" * 1_005) == "x" * 1_000 + "... (5 characters more)"
    assert one_line("x" * 10, 3) == "xxx... (7 characters more)"

"""What the service is told, and how it says what is wrong with that."""

from __future__ import annotations

import logging
import os

import pytest

from job_scheduler.errors import ConfigError
from job_scheduler.service.settings import Settings, load_dotenv, without_password

KEY = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    environment = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)


def read_wrong(environ, **given):
    with pytest.raises(ConfigError) as refused:
        Settings.read(environ, **given)
    said = str(refused.value)
    assert "\n" not in said
    return said


def test_nothing_has_to_be_set():
    settings = Settings.read({})
    assert settings == Settings()
    assert settings.database_url == "sqlite:///scheduler.db"
    assert (settings.max_concurrent_jobs, settings.debug, settings.port) == (5, False, 8000)
    assert settings.is_loopback


def test_everything_can_be_set(tmp_path):
    (tmp_path / "more").mkdir()
    settings = Settings.read(
        {
            "DATABASE_URL": "postgresql://user:password@localhost/scheduler_db",
            "DEBUG": "TRUE",
            "MAX_CONCURRENT_JOBS": " 7 ",
            "JOB_SCHEDULER_HOST": "0.0.0.0",
            "JOB_SCHEDULER_PORT": "9000",
            "JOB_SCHEDULER_API_KEY": KEY,
            "JOB_SCHEDULER_ALLOW_UNAUTHENTICATED": "no",
            "JOB_SCHEDULER_TRUSTED_HOSTS": "jobs.example.com, *.example.org",
            "JOB_SCHEDULER_JOBS": "more,tests.sample_jobs",
            "JOB_SCHEDULER_SHUTDOWN_TIMEOUT": "2.5",
        }
    )
    assert settings == Settings(
        database_url="postgresql://user:password@localhost/scheduler_db",
        debug=True,
        max_concurrent_jobs=7,
        host="0.0.0.0",
        port=9000,
        api_key=KEY,
        trusted_hosts=("jobs.example.com", "*.example.org"),
        jobs=("more", "tests.sample_jobs"),
        shutdown_timeout=2.5,
    )


def test_the_command_line_wins():
    environ = {"JOB_SCHEDULER_PORT": "no number", "MAX_CONCURRENT_JOBS": "3"}
    settings = Settings.read(environ, port=0, max_concurrent_jobs=None, debug=True)
    assert (settings.port, settings.max_concurrent_jobs, settings.debug) == (0, 3, True)
    said = read_wrong({}, max_concurrent_jobs="0")
    assert said == "--concurrency is '0'; it must be a whole number from 1 to 100000"
    with pytest.raises(TypeError, match="no settings are called ports"):
        Settings.read({}, ports=1)


@pytest.mark.parametrize("text", ["0", "-1", "abc", "2.5", "", "1e3", "٣", "9" * 5000, "1_0"])
def test_how_many_jobs_is_a_positive_whole_number(text):
    said = read_wrong({"MAX_CONCURRENT_JOBS": text})
    assert said.startswith(f"MAX_CONCURRENT_JOBS is {text[:200]!r}; ")
    assert said.endswith("it must be a whole number from 1 to 100000")


@pytest.mark.parametrize("text", ["true", "True", "1", "YES", "on"])
def test_what_turns_debug_on(text):
    assert Settings.read({"DEBUG": text}).debug is True


@pytest.mark.parametrize("text", ["false", "FALSE", "0", "No", "off"])
def test_what_turns_debug_off(text):
    assert Settings.read({"DEBUG": text}).debug is False


@pytest.mark.parametrize("text", ["", "maybe", "2", "*"])
def test_debug_is_a_flag(text):
    said = read_wrong({"DEBUG": text})
    assert said == f"DEBUG is {text!r}; it must be one of true, 1, yes, on, false, 0, no, off"


@pytest.mark.parametrize("text", ["-1", "65536", "http", ""])
def test_a_port_is_in_its_range(text):
    said = read_wrong({"JOB_SCHEDULER_PORT": text})
    assert said.startswith(f"JOB_SCHEDULER_PORT is {text!r}; it must be a whole number from 0 to ")


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon", ""])
def test_the_time_to_shut_down_is_a_number(text):
    assert "it must be a number of seconds" in read_wrong({"JOB_SCHEDULER_SHUTDOWN_TIMEOUT": text})


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://me:hunter2@db/x", "'mysql://me:***@db/x'; there is no store for the scheme"),
        ("memory://", "nothing in memory outlives the server"),
        ("", "DATABASE_URL is empty; it must be like"),
        ("scheduler.db", "it must be like 'sqlite:///scheduler.db' or 'postgresql://"),
        ("sqlite://scheduler.db", "a file stands after three slashes"),
        ("sqlite:///:memory:", "it must be like"),
        ("postgresql+asyncpg://me:hunter2@db/x", "write postgresql://"),
        ("POSTGRESQL://me:hunter2@db/x", "write postgresql://"),
        ("postgresql://me:hunter2@db:port/x", "which port is meant"),
        ("postgresql://me:hun/ter2@db/x", "where the password ends"),
        ("postgresql://me:12/hunter2@db/x", "where the password ends"),
        ("host=db password=hunter2", "'host=db password=***'"),
        ("host=db password='hunter2 hunter2'", "'host=db password=***'"),
    ],
)
def test_a_database_that_cannot_be_is_told_without_its_password(url, said):
    told = read_wrong({"DATABASE_URL": url})
    assert told.startswith("DATABASE_URL is ")
    assert said in told
    assert "hun" not in told
    assert "ter2" not in told


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///scheduler.db",
        "sqlite:////var/lib/jobs.db",
        "postgres://me:pass@db/x",
        "postgresql://me@[::1]:5433/x",
        "postgresql://me:p@one:5432,two:5433/x?target_session_attrs=any",
        "postgresql:///x?host=/var/run/postgresql",
    ],
)
def test_databases(url, tmp_path):
    assert Settings.read({"DATABASE_URL": url}).database_url == url
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:a:b@c/d@db/x", "postgresql://me:***@db/x"),
        ("postgresql://:secret@db", "postgresql://:***@db"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("postgresql://db/x?user=me&password=secret&y=1", "postgresql://db/x?user=me&password=***&y=1"),
        ("me:secret@db/x", "me:***@db/x"),
        ("sqlite:///scheduler.db", "sqlite:///scheduler.db"),
        ("", ""),
    ],
)  # fmt: skip
def test_addresses_are_shown_without_passwords(url, shown):
    assert without_password(url) == shown


def test_secrets_are_not_in_the_repr():
    settings = Settings.read(
        {"DATABASE_URL": "postgresql://me:hunter2@db/x", "JOB_SCHEDULER_API_KEY": KEY}
    )
    assert "hunter2" not in repr(settings)
    assert KEY not in repr(settings)


@pytest.mark.parametrize(
    "key", ["", "   ", "short", "a" * 40, "with a blank in it", "ключключключключ"]
)
def test_weak_keys_are_refused_and_not_shown(key):
    said = read_wrong({"JOB_SCHEDULER_API_KEY": key})
    assert "at least 16 characters" in said
    assert 'python -c "import secrets; print(secrets.token_urlsafe(32))" makes one' in said
    assert not key.strip() or key not in said


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost", "LOCALHOST", "::ffff:127.0.0.1"],
)
def test_loopback_needs_no_key(host):
    settings = Settings.read({"JOB_SCHEDULER_HOST": host})
    assert settings.host == host.strip("[]")
    assert settings.is_loopback


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "192.168.1.5", "localhost.example.com", "127.evil.com", "::ffff:10.0.0.1"],
)
def test_any_other_address_needs_a_key(host):
    said = read_wrong({"JOB_SCHEDULER_HOST": host})
    assert f"would listen on {host}, where others may reach it, without an API key" in said
    assert "JOB_SCHEDULER_ALLOW_UNAUTHENTICATED=1" in said
    for more in ({"JOB_SCHEDULER_API_KEY": KEY}, {"JOB_SCHEDULER_ALLOW_UNAUTHENTICATED": "1"}):
        assert not Settings.read({"JOB_SCHEDULER_HOST": host, **more}).is_loopback
    read_wrong({"JOB_SCHEDULER_HOST": host, "JOB_SCHEDULER_ALLOW_UNAUTHENTICATED": "0"})


@pytest.mark.parametrize("host", ["", " ", "http://x", "a b", "x\ny"])
def test_a_host_is_a_name_or_an_address(host):
    assert "it must be an address or a name" in read_wrong({"JOB_SCHEDULER_HOST": host})


def test_trusted_hosts_are_names():
    said = read_wrong({"JOB_SCHEDULER_TRUSTED_HOSTS": "https://x"})
    assert "'https://x' is no name of a host" in said
    assert Settings.read({"JOB_SCHEDULER_TRUSTED_HOSTS": ""}).trusted_hosts == ()


def test_places_of_jobs_exist():
    said = read_wrong({"JOB_SCHEDULER_JOBS": "work"})
    assert "JOB_SCHEDULER_JOBS is 'work'; 'work' is no folder in " in said
    assert "'no/such' is no folder" in read_wrong({}, jobs=["no/such"])
    assert Settings.read({"JOB_SCHEDULER_JOBS": ""}).jobs == ()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("JOB_SCHEDULER_PROT", "did you mean JOB_SCHEDULER_PORT?"),
        ("JOB_SCHEDULER_DATABASE_URL", "did you mean DATABASE_URL?"),
        ("JOB_SCHEDULER_DEBUG", "did you mean DEBUG?"),
        ("JOB_SCHEDULER_QQQQQQQQQQQQQQQQ", "known are DATABASE_URL, DEBUG"),
    ],
)
def test_misspelt_variables_are_warned_of(caplog, name, hint):
    with caplog.at_level(logging.WARNING, "job_scheduler"):
        Settings.read({name: "1", "JOB_SCHEDULER_PORT": "1", "OTHER": "x"})
    [record] = caplog.records
    said = record.getMessage()
    assert said.startswith(f"the variable {name} is not known and does nothing; ")
    assert hint in said


def test_dotenv_of_the_working_folder_where_nothing_is_set(tmp_path, monkeypatch):
    text = "\ufeffDEBUG=true\nMAX_CONCURRENT_JOBS=\"9\" # nine\nexport GREETING='Grüße'\n"
    (tmp_path / ".env").write_text(text + "ODD=a${HOME}b\n", encoding="utf-8")
    monkeypatch.setenv("MAX_CONCURRENT_JOBS", "2")
    monkeypatch.delenv("DEBUG", raising=False)
    load_dotenv()
    assert os.environ["DEBUG"] == "true"
    assert os.environ["MAX_CONCURRENT_JOBS"] == "2"
    assert os.environ["GREETING"] == "Grüße"
    assert os.environ["ODD"] == "a${HOME}b"  # it may be a password


def test_dotenv_of_a_folder_above_is_none_of_ours(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("FROM_ABOVE=1")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    load_dotenv()
    assert "FROM_ABOVE" not in os.environ


def test_a_virtual_environment_called_dotenv_is_passed_over(tmp_path):
    (tmp_path / ".env").mkdir()
    load_dotenv()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"A=1\nB=\xff\n", r"\.env, line 2: it must be text in UTF-8"),
        (b"A_NUL=1\0\n", r"\.env cannot be used: embedded null byte"),
    ],
)
def test_a_dotenv_that_is_no_text(tmp_path, content, said):
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_dotenv()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_dotenv_that_may_not_be_read(tmp_path):
    (tmp_path / ".env").touch(mode=0)
    with pytest.raises(ConfigError, match=r"\.env cannot be read: Permission denied"):
        load_dotenv()


def test_a_dotenv_that_cannot_be_read(tmp_path):
    (tmp_path / ".env").symlink_to(".env")
    with pytest.raises(ConfigError, match=r"\.env cannot be read: Too many levels"):
        load_dotenv()

"""The service with a few lively jobs, as ``make serve`` shows it; Ctrl-C ends it.

Starts ``job-scheduler serve`` on an SQLite file in the folder ``.serve``, and posts the jobs over
its API if it has none yet. What is given on the command line goes on to the server.
"""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".serve"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever http_proxy says

JOBS: Final[list[dict[str, Any]]] = [
    {
        "name": "Heartbeat",
        "description": "Every 10 seconds: the first of six fields are the seconds.",
        "cron_expression": "*/10 * * * * *",
        "job_type": "MyAwesomeJob",
        "parameters": {"name": "Ada"},
    },
    {
        "name": "Fruit prices",
        "description": "The shop is down one time in four: see the errors of its runs.",
        "cron_expression": "*/15 * * * * *",
        "job_type": "FetchPrices",
        "parameters": {"shop": "fruit.example.com", "fails_one_in": 4},
    },
    {
        "name": "Welcome mail",
        "description": "Shown in its output; nothing is sent.",
        "cron_expression": "*/30 * * * * *",
        "job_type": "email_notification",
        "parameters": {"recipient": "ada@example.com", "subject": "Welcome!"},
    },
    {
        "name": "Events by country",
        "description": "Its result is a summary of 200 events.",
        "cron_expression": "* * * * *",
        "job_type": "data_processing",
        "parameters": {"dataset": "user_events", "group_by": "country"},
    },
    {
        "name": "Disk space",
        "cron_expression": "*/5 * * * *",
        "job_type": "CheckDiskSpace",
        "parameters": {"path": "/", "at_least": 1},
    },
    {
        "name": "Backup",
        "description": "Takes a minute, and says how far it is.",
        "cron_expression": "*/10 * * * *",
        "job_type": "BackUp",
        "parameters": {"parts": 12, "seconds": 5},
    },
    {
        "name": "Morning report",
        "cron_expression": "0 9 * * mon-fri",
        "timezone": "Europe/Berlin",
        "job_type": "email_notification",
        "parameters": {"recipient": "team@example.com", "subject": "Good morning"},
        "max_retries": 3,
    },
    {
        "name": "Newsletter",
        "description": "Paused: resume it, or run it now.",
        "cron_expression": "0 8 1 * *",
        "job_type": "email_notification",
        "parameters": {"recipient": "readers@example.com", "subject": "News"},
        "is_active": False,
    },
]


def main(arguments: list[str]) -> int:
    FOLDER.mkdir(mode=0o700, exist_ok=True)
    database = FOLDER / "scheduler.db"
    print(f"Jobs and runs are kept in {FOLDER}; remove it to begin anew.\n", flush=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "job_scheduler.service", "--store", f"sqlite:///{database}",
         "--jobs", "jobs", "--jobs", "examples.serve_jobs", *arguments],
        cwd=ROOT,
        env={"JOB_SCHEDULER_SHUTDOWN_TIMEOUT": "2", **os.environ, "SMTP_HOST": ""},  # no mail
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that Ctrl-C reaches it once: a second signal hurries it
    )  # fmt: skip
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: server.send_signal(number))
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="", flush=True)
        url = re.match(r"job_scheduler is at (\S+)", line)
        if url is not None:
            add_jobs(url[1])
    return server.wait()


def add_jobs(url: str) -> None:
    """Post the jobs, and run each active one at once; if there are jobs already, do nothing."""
    try:
        if ask(f"{url}/jobs?limit=1"):
            return
        for job in JOBS:
            made = ask(f"{url}/jobs", job)
            if made["is_active"]:
                ask(f"{url}/jobs/{made['id']}/run", {})
    except OSError as error:  # it was told to end, say
        print(f"the example jobs could not be added: {error}", file=sys.stderr)


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    """What the API answers: to a GET, or to a POST of this body."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with DIRECT.open(request, timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

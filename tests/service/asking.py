"""Asks an application without a server, and reads the problems that it tells."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx2 as httpx

PROBLEM = "application/problem+json"


@dataclass(frozen=True)
class Given:
    """Settings."""

    host: str = "127.0.0.1"
    api_key: str | None = None
    trusted_hosts: tuple[str, ...] = ()


def ask(app, method, path, **options):
    """The response to one request, given to the application as a server would."""

    async def send():
        transport = httpx.ASGITransport(app=app)
        base_url = options.pop("base_url", "http://localhost:8000")
        async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def problem(response, status, name=None):
    """What a response tells, once it is a problem of this status and type."""
    told = response.json()
    assert response.status_code == status, told
    assert response.headers["content-type"] == PROBLEM
    assert told["status"] == status
    assert type(told["detail"]) is str
    assert told["detail"].strip()
    assert told["title"]
    assert told["instance"].startswith("/")
    assert told["type"].startswith("/problems/")
    if name is not None:
        assert told["type"] == f"/problems/{name}"
    return told

"""Connections to the broker of a Celery application, of our own: no fork shares them."""

from __future__ import annotations

from typing import Any, Final

_PATIENCE: Final = 10.0
"""Seconds for a broker of Redis that does not answer, or that cannot be reached."""


def line_to(app: Any) -> Any:
    """A connection that does not wait for ever for a broker that has gone without a word."""
    connection = app.connection_for_write()
    if connection.transport.driver_type == "redis":
        for name in ("socket_timeout", "socket_connect_timeout"):
            connection.transport_options.setdefault(name, _PATIENCE)
    return connection

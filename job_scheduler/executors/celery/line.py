"""A connection to the broker of a Celery application, of our own: no fork shares it."""

from __future__ import annotations

import contextlib
from typing import Any, Final

_PATIENCE: Final = 10.0
"""Seconds for a broker of Redis that does not answer, or that cannot be reached."""


class Line:
    """One connection at a time; used by one thread."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._connection: Any = None

    def connection(self) -> Any:
        """It, or a new one, which does not wait for ever for a broker that has gone."""
        if self._connection is None:
            self._connection = self._app.connection_for_write()
            if self._connection.transport.driver_type == "redis":
                for name in ("socket_timeout", "socket_connect_timeout"):
                    self._connection.transport_options.setdefault(name, _PATIENCE)
        return self._connection

    def drop(self) -> None:
        """Have the next one be new."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.collect()
        self._connection = None

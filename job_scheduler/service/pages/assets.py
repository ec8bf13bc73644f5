"""The templates and the few files that browsers load, read once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import jinja2
from starlette.responses import HTMLResponse, Response

from job_scheduler.service.pages import words

if TYPE_CHECKING:
    from collections.abc import Mapping

_HERE: Final = Path(__file__).parent
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class StaticFile(NamedTuple):
    """A file that browsers may keep for good, as its address changes with its content."""

    content: bytes
    media_type: str
    version: str

    def response(self) -> Response:
        headers = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(self.content, media_type=self.media_type, headers=headers)


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(content, _TYPES[path.suffix], hashlib.sha256(content).hexdigest()[:12])


STATIC: Final = {path.name: _read(path) for path in sorted((_HERE / "static").iterdir())}


def static_url(name: str) -> str:
    """Where a browser finds one of our files."""
    return f"/ui/static/{STATIC[name].version}/{name}"


def _make_environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals.update(static_url=static_url)
    environment.filters.update(
        away=words.away, lasting=words.lasting, day_and_time=words.day_and_time, size=words.size
    )
    return environment


_TEMPLATES: Final = _make_environment()


def html(template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """A page, or a part of one."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status)

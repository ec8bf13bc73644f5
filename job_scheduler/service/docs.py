"""``/docs``: Swagger UI from files of this machine, without a script in the page.

The files are those that the package ``fastapi-offline`` ships. Its stylesheet carries its icons
within, as ``data:`` addresses, which a strict Content-Security-Policy refuses; they are served as
files of their own.
"""

from __future__ import annotations

import base64
import html
import importlib.util
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="docs/favicon.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<noscript>This page needs JavaScript; what it shows is at <a href="openapi.json">openapi.json</a>.
</noscript>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_OPTIONS: Final = {
    "url": "openapi.json",
    "dom_id": "#swagger-ui",
    "deepLinking": True,
    "displayRequestDuration": True,
    "showCommonExtensions": True,
    "validatorUrl": None,  # it would send the description to a site of others
}

_TYPES: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}

_ICON: Final = re.compile(r"""url\((["']?)data:([\w/+-]+)([^,]*),(.*?)\1\)""")


class Asset(NamedTuple):
    """A file that the page needs."""

    content: bytes
    media_type: str


def install(app: FastAPI) -> None:
    """Serve ``/docs`` in an application that was made with ``docs_url=None``."""
    assets = read_assets()

    async def page(request: Request) -> Response:
        return HTMLResponse(_PAGE.format(title=html.escape(app.title)))

    async def asset(request: Request) -> Response:
        found = assets.get(request.path_params["name"])
        if found is None:
            raise HTTPException(404)
        headers = {"Cache-Control": "private, max-age=3600"}
        return Response(found.content, headers=headers, media_type=found.media_type)

    app.add_route("/docs", page, include_in_schema=False)
    app.add_route("/docs/{name}", asset, include_in_schema=False)


def read_assets() -> dict[str, Asset]:
    """All files by their names."""
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "/docs needs fastapi-offline: pip install 'job_scheduler[service]'"
        )
    folder = Path(spec.origin).with_name("static")
    assets = {name: Asset((folder / name).read_bytes(), kind) for name, kind in _TYPES.items()}
    start = f"SwaggerUIBundle({json.dumps(_OPTIONS)});\n"
    assets["start.js"] = Asset(start.encode(), "text/javascript")
    return _with_icons(assets)


def _with_icons(assets: dict[str, Asset]) -> dict[str, Asset]:
    """The files, with the icons of the stylesheet beside it."""
    icons: dict[str, Asset] = {}

    def take_out(found: re.Match[str]) -> str:
        _, kind, options, data = found.groups()
        data = re.sub(r"\\(.)", r"\1", data)  # the escapes of a text in CSS
        content = base64.b64decode(data) if "base64" in options else unquote_to_bytes(data)
        name = f"icon-{len(icons)}"
        icons[name] = Asset(content, kind)
        return f'url("{name}")'

    style = assets["swagger-ui.css"]
    text = _ICON.sub(take_out, style.content.decode())
    return {**assets, **icons, "swagger-ui.css": style._replace(content=text.encode())}

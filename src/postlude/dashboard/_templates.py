"""Templates and what belongs to them: package data, read once."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import Any, cast
from urllib.parse import quote

import jinja2

from postlude import __version__
from postlude.dashboard import _text
from postlude.dashboard._http import Response

_KINDS = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_A_YEAR = "private, max-age=31536000, immutable"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("postlude.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_text.clean,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("ago", "bound", "clock", "iso", "moment", "number", "seconds"):
        environment.filters[name] = getattr(_text, name)
    environment.filters["urlencode"] = (
        _quoted  # Jinja's raises at half a surrogate pair
    )
    known: dict[str, object] = cast("Any", environment.globals)
    known["asset"] = {name: path for path, name in _paths().items()}
    known["version"] = __version__
    return environment


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="replace")


def render(template: str, **values: Any) -> str:
    """Make a page."""
    return _environment().get_template(template).render(**values)


def asset(path: str) -> Response | None:
    """Give the file of that path; None if there is none."""
    name = _paths().get(path)
    if name is None:
        return None
    kind = ("content-type", _KINDS[name])
    return Response(200, _content(name), (kind, ("cache-control", _A_YEAR)))


@cache
def _paths() -> dict[str, str]:
    """Map paths to names; a path has the content's hash in it, so it may be kept."""
    return {
        f"assets/{sha256(_content(name)).hexdigest()[:12]}/{name}": name
        for name in _KINDS
    }


@cache
def _content(name: str) -> bytes:
    return (files("postlude.dashboard") / "assets" / name).read_bytes()

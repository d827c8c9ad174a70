"""What pages know of HTTP, whichever protocol brought it."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qs

_POLICY = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "connect")),
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_ALWAYS = (
    ("content-security-policy", _POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    # With `no-referrer`, browsers send `Origin: null` with forms.
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
)
LONGEST_BODY = 64 * 1024
"""Bytes of a form: some hundred ids."""


class Request(NamedTuple):
    """What a page asks of a request."""

    method: str
    path: str
    """Below the place where the dashboard is mounted; begins with a slash, or is empty
    where that place was asked for without one."""
    mount: str
    """The place itself, as far as it is known: `/postlude`, or empty."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    form: Mapping[str, list[str]]
    secure: bool
    """Whether it came over TLS, as far as the server knows."""

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies."""
        return parse_cookies(self.headers.get("cookie", ""))


class Response(NamedTuple):
    """What is sent back; `headers` are complete but for those of every response."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def all_headers(self) -> list[tuple[str, str]]:
        """Give the headers to send, those of every response included."""
        names = {name for name, _ in self.headers}
        kept = () if "cache-control" in names else (("cache-control", "no-store"),)
        length = ("content-length", str(len(self.body)))
        return [*self.headers, *kept, *_ALWAYS, length]


def html(text: str, status: int = 200, *headers: tuple[str, str]) -> Response:
    """Give a page."""
    kind = ("content-type", "text/html; charset=utf-8")
    return Response(status, text.encode(errors="replace"), (kind, *headers))


def plain(text: str, status: int, *headers: tuple[str, str]) -> Response:
    """Give a text."""
    kind = ("content-type", "text/plain; charset=utf-8")
    return Response(status, text.encode(errors="replace"), (kind, *headers))


def compressed(request: Request, response: Response) -> Response:
    """Give the response in fewer bytes, if the browser takes that.

    Only for what holds neither a token nor what was asked: the length of one that has
    both tells of the token (BREACH, CVE-2013-3587).
    """
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return response
    headers = (*response.headers, ("content-encoding", "gzip"))
    body = gzip.compress(response.body, 5, mtime=0)
    return Response(response.status, body, (*headers, ("vary", "accept-encoding")))


def redirect(where: str, status: int = 303) -> Response:
    """Send the browser elsewhere, relative to where it is."""
    return Response(status, b"", (("location", where),))


def parse_cookies(text: str) -> dict[str, str]:
    """Read the header `Cookie`.

    `http.cookies` gives up at the first cookie that it dislikes, whoever set it.
    """
    pairs = (part.partition("=") for part in text.split(";"))
    return {name.strip(): value.strip() for name, _, value in pairs}


def parse_query(text: str) -> dict[str, str]:
    """Read a query; the first value of each name counts."""
    return {name: values[0] for name, values in parse_form(text.encode()).items()}


def parse_form(body: bytes) -> dict[str, list[str]]:
    """Read a form; one that cannot be read is an empty one."""
    try:
        return parse_qs(body.decode("latin-1"), max_num_fields=1_000)
    except ValueError:
        return {}


def too_long(headers: Mapping[str, str]) -> bool:
    """Tell whether a form announces more than is read."""
    try:
        return int(headers.get("content-length") or 0) > LONGEST_BODY
    except ValueError:
        return True


TOO_LONG = plain("This form is too long. Choose fewer records at once.\n", 413)
REFUSED = plain(
    "You may not see this dashboard. Usually you are not signed in to the application "
    "that it belongs to, or not as somebody whom its authorize function lets in. Sign "
    "in there, then reload.\n",
    403,
)
BROKEN = plain(
    "This page could not be made. Usually that is a bug in Postlude's dashboard. The "
    "traceback is in the application's log.\n",
    500,
)

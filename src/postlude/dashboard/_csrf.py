"""Whether a form comes from a page of ours.

A token in a cookie and the same in the form (double submit): another site can make the
browser send the first, and cannot know the second. Besides, browsers say where a form
comes from (`Sec-Fetch-Site`, or `Origin` without TLS), and it must be here.
"""

from __future__ import annotations

import re
import secrets
from hmac import compare_digest
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from postlude.dashboard._http import Request

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def token_of(request: Request) -> str | None:
    """Give the token of this browser; None if it has none yet."""
    token = request.cookies.get(_name(request), "")
    return token if _TOKEN.fullmatch(token) else None


def new_token() -> str:
    """Make a token."""
    return secrets.token_urlsafe(32)


def cookie(request: Request, token: str) -> tuple[str, str]:
    """Give the header that has the browser keep *token*."""
    secure = "; Secure" if request.secure else ""
    value = f"{_name(request)}={token}; Path=/; HttpOnly; SameSite=Strict{secure}"
    return "set-cookie", value


def refusal(request: Request) -> str | None:
    """Say why a form is not believed to come from a page of ours; None if it is."""
    if not _is_from_here(request):
        return "it comes from another site, or the browser does not say from where"
    ours, theirs = token_of(request), request.form.get("token", [""])[0]
    if ours is None or not compare_digest(ours.encode(), theirs.encode()):
        return "its token is missing or not the one of this browser"
    return None


def _name(request: Request) -> str:
    # With that prefix, no other host of the domain can set it; only over TLS.
    return "__Host-postlude" if request.secure else "postlude"


def _is_from_here(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    origin = urlsplit(request.headers.get("origin", "null"))
    return bool(origin.netloc) and origin.netloc == request.headers.get("host")

"""The dashboard as a server of its own, on this machine: `postlude dashboard`.

Whoever opens it shows a token, which stands in the address that is printed; then it is
a cookie. A site that makes its own name point here (DNS rebinding) is refused by the
`Host` that the browser then sends.
"""

from __future__ import annotations

import ipaddress
import secrets
import socket
import sys
from collections.abc import Callable, Iterable
from hmac import compare_digest
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from postlude.dashboard._http import parse_cookies
from postlude.dashboard._wsgi import wsgi

if TYPE_CHECKING:
    from postlude._types import Environ, StartResponse, WSGIApp
    from postlude.failures import FailureStore

_PATIENCE = 30.0
"""Seconds that a connection may say nothing."""


def serve(
    store: FailureStore | str,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    *,
    ready: Callable[[str], object] | None = None,
) -> None:
    """Serve the dashboard over *store* until it is interrupted; blocks.

    Args:
        store: a store, or its path or address.
        host: where to listen. Other than this machine sees all data, without TLS.
        port: 0 takes a free one.
        token: what opens the dashboard; default: a new random one.
        ready: is called with the address to open, token included, once it answers;
            default: it is printed.

    Raises:
        SettingsError: *store* names no kind of store, or one that is not installed.
        OSError: the port is taken, or not this user's.
    """
    with Server(store, host, port, token) as server:
        (ready or _print)(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


class Server(ThreadingMixIn, WSGIServer):
    """The standard library's server with threads, behind a door."""

    daemon_threads = True

    def __init__(
        self, store: FailureStore | str, host: str, port: int, token: str | None = None
    ) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._token = token or secrets.token_urlsafe(24)
        super().__init__((host, port), _Handler)
        pages = wsgi(store, authorize=lambda _environ: True)  # the door has asked
        self.set_app(_Door(pages, self._token, host, self.server_port))

    @property
    def address(self) -> str:
        """Where to open it, token included."""
        host = str(self.server_address[0])
        shown = f"[{host}]" if ":" in host else host
        return f"http://{shown}:{self.server_port}/?token={self._token}"

    def server_bind(self) -> None:
        """Take the port, and ask no name server for this machine's name."""
        TCPServer.server_bind(self)
        self.server_name = str(self.server_address[0])
        self.server_port = int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of browsers that hang up."""


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE
    server_version = "Postlude"
    sys_version = ""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        """Write no log: the first address has the token in it."""


class _Door:
    """Lets in who comes by a right name and knows the token."""

    def __init__(self, app: WSGIApp, token: str, host: str, port: int) -> None:
        self._app = app
        self._token = token
        self._host = host.lower()
        # Browsers keep cookies by host only, and there may be another one on this one.
        self._cookie = f"postlude-{port}"

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Serve one request."""
        if not self._is_ours(environ.get("HTTP_HOST", "")):
            text = (
                "This dashboard is not known by that name. Usually another address was "
                "given to this machine. Open the address that the command printed, or "
                "start it with --host and that name.\n"
            )
            return _refuse(start_response, text)
        asked = parse_qs(environ.get("QUERY_STRING", "")).get("token", [""])[0]
        if environ.get("PATH_INFO") == "/" and self._opens(asked):
            cookie = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            headers = [("Location", "./"), ("Set-Cookie", cookie), *_QUIET]
            start_response("303 See Other", headers)
            return []
        cookies = parse_cookies(environ.get("HTTP_COOKIE", ""))
        if not self._opens(cookies.get(self._cookie, "")):
            text = (
                "This dashboard does not know you. Usually its address was opened "
                "without the token, or it was started anew since. Open the whole "
                "address that the command printed.\n"
            )
            return _refuse(start_response, text)
        return self._app(environ, start_response)

    def _opens(self, token: str) -> bool:
        return compare_digest(
            token.encode(errors="replace"), self._token.encode(errors="replace")
        )

    def _is_ours(self, host: str) -> bool:
        """Tell whether no name server can have sent the browser here."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in {"localhost", self._host}:
            return bool(name)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


_QUIET = (
    ("Cache-Control", "no-store"),
    ("Referrer-Policy", "no-referrer"),
    ("Content-Length", "0"),
)


def _refuse(start_response: StartResponse, text: str) -> Iterable[bytes]:
    body = text.encode()
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
    ]
    start_response("403 Forbidden", headers)
    return [body]


def _print(address: str) -> None:
    sys.stdout.write(f"The dashboard is at {address}\nCtrl-C ends it.\n")
    sys.stdout.flush()

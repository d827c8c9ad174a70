"""Visits to a dashboard by its protocol alone, with a browser's cookies."""

import asyncio
import gzip
import io
import re
from html import unescape
from typing import NamedTuple
from urllib.parse import urlencode, urljoin, urlsplit
from wsgiref.util import setup_testing_defaults


class Page(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def text(self):
        """What a reader sees, roughly."""
        plain = re.sub(r"<[^>]*>", " ", self.body.partition("<body>")[2])
        return re.sub(r"\s+", " ", unescape(plain))

    @property
    def token(self):
        """The token of its forms."""
        found = re.search(r'name="token" value="([^"]+)"', self.body)
        assert found, "the page has no form"
        return found[1]


class Visitor:
    """Asks, keeps cookies, and follows nothing by itself."""

    def __init__(self, send, mount=""):
        self._send = send
        self.mount = mount
        self.cookies: dict[str, str] = {}
        self.run = asyncio.run  # each request on a loop of its own

    def ask(self, method, path, *, form=None, headers=(), body=None, **other):
        """Send one request for *path*, which is below the mount."""
        content = urlencode(form, doseq=True).encode() if form is not None else b""
        sent = {"host": "shop.test", **dict(headers)}
        if self.cookies:
            pairs = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
            sent["cookie"] = f"{sent['cookie']}; {pairs}" if "cookie" in sent else pairs
        if method == "POST":
            sent.setdefault("content-type", "application/x-www-form-urlencoded")
            sent.setdefault("content-length", str(len(body or content)))
        asked = (method, self.mount, path, sent, body or content)
        page = self._send(self.run, asked, **other)
        cookie = page.headers.get("set-cookie")
        if cookie:
            name, _, rest = cookie.partition("=")
            self.cookies[name] = rest.partition(";")[0]
        return page

    def get(self, path, **other):
        """Ask for a page."""
        return self.ask("GET", path, **other)

    def post(
        self, path, form, *, headers=(("sec-fetch-site", "same-origin"),), **other
    ):
        """Send a form from a page of ours."""
        return self.ask("POST", path, form=form, headers=headers, **other)

    def follow(self, path, page):
        """Go where a redirect of *path* leads, as a browser does."""
        assert page.status in {303, 307}, page.body
        where = urljoin(f"http://shop.test{self.mount}{path}", page.headers["location"])
        below = urlsplit(where)
        query = f"?{below.query}" if below.query else ""
        assert below.path.startswith(f"{self.mount}/")
        return self.get(below.path.removeprefix(self.mount) + query)


def _plain(head, content):
    gzipped = head.get("content-encoding") == "gzip"
    return (gzip.decompress(content) if gzipped and content else content).decode()


def over_wsgi(app):
    """Give a way to send requests to a WSGI application."""

    def send(_run, asked, scheme="http"):
        method, mount, path, headers, body = asked
        path, _, query = path.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": mount.encode().decode("latin-1"),
            "PATH_INFO": path.encode().decode("latin-1"),
            "QUERY_STRING": query,
            "wsgi.input": io.BytesIO(body),
            "wsgi.url_scheme": scheme,
        }
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key.startswith("CONTENT_") else f"HTTP_{key}"] = value
        setup_testing_defaults(environ)
        answered = []

        def start_response(status, headers, _exc_info=None):
            answered.append((status, headers))

        content = b"".join(app(environ, start_response))
        [(status, head)] = answered
        return Page(int(status[:3]), dict(head), _plain(dict(head), content))

    return send


def over_asgi(app):
    """Give a way to send requests to an ASGI application."""

    def send(run, asked, scheme="http"):
        method, mount, path, headers, body = asked
        path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "scheme": scheme,
            "root_path": mount,
            "path": mount + path,
            "query_string": query.encode(),
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }
        parts = [
            {"type": "http.request", "body": body[:7], "more_body": True},
            {"type": "http.request", "body": body[7:]},
        ]
        sent = []

        async def receive():
            return parts.pop(0)

        async def keep(message):
            sent.append(message)

        run(app(scope, receive, keep))
        start, *bodies = sent
        head = {k.decode(): v.decode() for k, v in start["headers"]}
        content = b"".join(part.get("body", b"") for part in bodies)
        return Page(start["status"], head, _plain(head, content))

    return send

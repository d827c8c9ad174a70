import asyncio
import contextlib
import sys
from pathlib import Path

import httpx
import pytest
from asgiref.sync import async_to_sync
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.db import connections
from django.test import AsyncClient, Client, RequestFactory
from django.test.utils import override_settings
from django.urls import re_path

import postlude
from postlude import asgi, wsgi

sys.path.insert(0, str(Path(__file__).with_name("probes")))

import in_process

POSTLUDE = "postlude.integrations.django.PostludeMiddleware"

in_process.configure()


@pytest.fixture(scope="session", autouse=True)
def databases():
    """Make the tables, in a file and in memory."""
    in_process.make_databases()
    yield
    connections.close_all()


class Pages:
    """A URL configuration: one view for every path, and error pages."""

    def __init__(self, view, error_pages):
        """Take the view, and the views of error pages by name."""
        self.urlpatterns = [re_path("^.*$", view)]
        vars(self).update(error_pages)


@pytest.fixture
def site():
    """Serve a view at every path, with Postlude first in `MIDDLEWARE`."""
    with contextlib.ExitStack() as stack:

        def site(view, *middleware, error_pages=None, **options):
            options.setdefault("MIDDLEWARE", [POSTLUDE, *middleware])
            options["ROOT_URLCONF"] = Pages(view, error_pages or {})
            stack.enter_context(override_settings(**options))

        yield site


class ByClient:
    """Django's test client."""

    sent = ()
    on_loop = False

    def __init__(self, events, watched):
        """Take what is to be told and who tells."""

    def __call__(self, path="/", method="GET"):
        """Request a page, and read its body."""
        client = Client(raise_request_exception=False)
        response = client.generic(method, path)
        return response.status_code, response.getvalue()


class ByAsyncClient(ByClient):
    """Django's asynchronous test client."""

    on_loop = True

    def __call__(self, path="/", method="GET"):
        """Request a page, and read its body."""
        return async_to_sync(self._get)(path, method)

    async def _get(self, path, method):
        client = AsyncClient(raise_request_exception=False)
        response = await client.generic(method, path)
        if getattr(response, "is_async", False):
            return response.status_code, b"".join([part async for part in response])
        return response.status_code, response.getvalue()


class ByWSGI:
    """Django's WSGI application, called as a server does."""

    sent = ("last byte",)
    on_loop = False

    application = staticmethod(get_wsgi_application)

    def __init__(self, events, watched):
        """Take what is to be told and who tells."""
        self._events = events

    def __call__(self, path="/", method="GET"):
        """Request a page, read and close it, and wait for its calls."""
        started = []
        environ = RequestFactory().generic(method, path).environ
        environ["SERVER_SOFTWARE"] = "a server/1.0"
        response = self.application()(environ, lambda *args: started.extend(args))
        try:
            body = b"".join(response)
        finally:
            self._events.append("last byte")
            response.close()
            postlude.drain()
        return int(started[0].split()[0]), body


class ByASGI:
    """Django's ASGI application, called as a server without lifespan does."""

    sent = ("last byte",)
    on_loop = True

    application = staticmethod(get_asgi_application)

    def __init__(self, events, watched):
        """Take what is to be told and who tells."""
        self._watched = watched

    def __call__(self, path="/", method="GET"):
        """Request a page, and return when the application has."""
        app = self._watched(self.application())
        return asyncio.run(self._get(app, path, method))

    async def _get(self, app, path, method):
        transport = httpx.ASGITransport(app, client=("192.0.2.1", 50_001))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as web:
            response = await web.request(method, path)
        return response.status_code, response.content


class ByWrappedWSGI(ByWSGI):
    """The same, inside Postlude's own WSGI middleware."""

    def application(self):
        """Make the application."""
        return wsgi.PostludeMiddleware(get_wsgi_application())


class ByWrappedASGI(ByASGI):
    """The same, inside Postlude's own ASGI middleware."""

    def application(self):
        """Make the application."""
        return asgi.PostludeMiddleware(get_asgi_application())


WAYS = {
    "client": ByClient,
    "async-client": ByAsyncClient,
    "wsgi": ByWSGI,
    "wsgi-wrapped": ByWrappedWSGI,
    "asgi": ByASGI,
    "asgi-wrapped": ByWrappedASGI,
}


# Wrapped, the middleware only joins the unit; test_joined.py is about that.
@pytest.fixture(
    params=[
        pytest.param(way, marks=pytest.mark.wide if "wrapped" in way else ())
        for way in WAYS
    ]
)
def get(request, events, watched):
    """Request a page and wait for its calls, in each way there is.

    `events` has its last byte where it can be seen: not with Django's test clients.
    """
    return WAYS[request.param](events, watched)

"""Mounted in real frameworks, in each one's own way."""

import re
import sys
from pathlib import Path

import pytest
from desk import Visitor, chores, over_wsgi, record
from fastapi import FastAPI
from fastapi.testclient import TestClient
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Mount
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from postlude import dashboard
from postlude.failures import Batch
from postlude.integrations import fastapi as fastapi_integration
from postlude.integrations.flask import Postlude

# Django is set up once per process, as its integration's tests want it.
sys.path.insert(0, str(Path(__file__).parents[1] / "integrations/django/probes"))

import in_process


def may(_request):
    """Let everybody in."""
    return True


@pytest.mark.parametrize("root_path", ["", "/api"])
@pytest.mark.parametrize("kind", ["starlette", "fastapi"])
def test_starlette_and_fastapi_mount_it(store, kind, root_path):
    """`mount` works as for any application, a proxy's root_path included."""
    store.write(Batch((record(),)))
    pages = dashboard.asgi(store, authorize=may)
    if kind == "fastapi":
        app = FastAPI()
        app.mount("/staff/postlude", pages)
        fastapi_integration.install(app)
    else:
        app = Starlette(routes=[Mount("/staff/postlude", pages)])
    client = TestClient(app, root_path=root_path)
    page = client.get("/staff/postlude/failures")
    assert page.status_code == 200
    assert "desk.chores" in page.text
    assert client.get("/staff/postlude", follow_redirects=True).status_code == 200
    token = re.search(r'name="token" value="([^"]+)"', page.text)[1]
    done = client.post(
        "/staff/postlude/retry",
        data={"id": record().id, "token": token},
        headers={"sec-fetch-site": "same-origin"},
        follow_redirects=True,
    )
    assert "its record is gone" in done.text
    assert chores.ran == ["x"]


def test_flask_mounts_it(store):
    """Werkzeug's DispatcherMiddleware puts it beside a Flask application."""
    store.write(Batch((record(),)))
    app = Flask(__name__)
    Postlude(app)
    pages = dashboard.wsgi(store, authorize=may)
    visitor = Visitor(
        over_wsgi(DispatcherMiddleware(app.wsgi_app, {"/postlude": pages}))
    )
    assert visitor.get("/postlude").headers["location"] == "postlude/"
    page = visitor.get("/postlude/failures")
    done = visitor.post("/postlude/retry", {"id": record().id, "token": page.token})
    assert done.status == 303
    assert chores.ran == ["x"]


def test_django_has_it_among_its_addresses(store):
    """`path()` takes it, sign-in and prefix are Django's, and forms pass its CSRF."""
    in_process.configure()
    from django.http import HttpRequest  # noqa: PLC0415 - after the settings
    from django.middleware.csrf import CsrfViewMiddleware  # noqa: PLC0415 - as above
    from django.test import RequestFactory  # noqa: PLC0415 - as above
    from django.urls import path  # noqa: PLC0415 - as above
    from django.urls.resolvers import RegexPattern, URLResolver  # noqa: PLC0415 - as above

    from postlude.integrations.django.dashboard import dashboard  # noqa: PLC0415 - as above

    store.write(Batch((record(),)))
    asked = []

    def is_staff(request):
        asked.append(request)
        return request.headers.get("x-user") == "staff"

    resolver = URLResolver(
        RegexPattern(r"^/"), [path("postlude/", dashboard(store, authorize=is_staff))]
    )

    def visit(request):
        match = resolver.resolve(request.path_info)
        refused = CsrfViewMiddleware(lambda _request: None).process_view(
            request, match.func, match.args, match.kwargs
        )
        assert refused is None
        return match.func(request, *match.args, **match.kwargs)

    factory = RequestFactory(headers={"x-user": "staff", "host": "shop.test"})
    page = visit(factory.get("/postlude/failures"))
    assert page.status_code == 200
    assert page["Content-Security-Policy"].startswith("default-src 'none'")
    assert isinstance(asked[0], HttpRequest)
    token = re.search(rb'name="token" value="([^"]+)"', page.content)[1].decode()
    factory.cookies["postlude"] = token
    form = {"id": record().id, "token": token}
    forged = visit(factory.post("/postlude/retry", form))
    assert forged.status_code == 403
    done = visit(
        factory.post("/postlude/retry", form, headers={"sec-fetch-site": "same-origin"})
    )
    assert (done.status_code, done["Location"]) == (303, "failures?notice=done")
    assert chores.ran == ["x"]
    assert visit(RequestFactory().get("/postlude/failures")).status_code == 403
    with pytest.raises(TypeError, match="authorize"):
        dashboard(store)

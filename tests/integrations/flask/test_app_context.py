"""D4: calls run in an application context of their request's application."""

import asyncio
import threading
from contextvars import ContextVar

import pytest
from flask import current_app, g, has_app_context, request, url_for
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from harness.wire import TIMEOUT
from postlude import defer

request_id = ContextVar("request_id", default="none")


def add_endpoint(app, act, path="/"):
    """Add an endpoint that does this and answers."""

    def endpoint():
        act()
        return "ok"

    app.add_url_rule(path, f"endpoint {path}", endpoint)


def deferring(kind, look):
    """Return what defers *look*, as a sync or an async call."""

    async def look_async():
        await asyncio.sleep(0)
        look()

    return lambda: defer({"sync": look, "async": look_async}[kind])


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
def test_calls_have_the_application(kind, app, client, events):
    """`current_app` in a call is the application of its request (D4)."""
    look = deferring(kind, lambda: events.append(current_app.name))
    add_endpoint(app, look)
    client.get("/")
    assert events == ["shop"]
    assert not has_app_context()


@both_kinds
def test_calls_have_their_own_application(kind, make_app, events):
    """Of two applications under a dispatcher, each call has its own (D4, A8)."""
    shop, admin = make_app("shop"), make_app("admin")
    for app in (shop, admin):
        add_endpoint(app, deferring(kind, lambda: events.append(current_app.name)))
    client = Client(DispatcherMiddleware(shop, {"/admin": admin}))
    for path in ("/", "/admin/", "/"):
        client.get(path)
    assert events == ["shop", "admin", "shop"]


@both_kinds
def test_calls_of_a_request_within_a_request(kind, make_app, events):
    """An application called by another's view runs its own calls, in itself (A8)."""
    shop, stock = make_app("shop"), make_app("stock")
    look = deferring(kind, lambda: events.append(current_app.name))

    def ask_the_stock():
        look()
        stock.test_client().get("/")
        events.append("answer")

    add_endpoint(shop, ask_the_stock)
    add_endpoint(stock, look)
    shop.test_client().get("/")
    assert events == ["stock", "answer", "shop"]


@both_kinds
def test_each_call_has_a_fresh_g(kind, app, client, events):
    """`g` is empty in each call: neither the request's nor another call's (D4)."""

    def look():
        events.append(g.get("user"))
        g.user = "set by a call"

    defer_look = deferring(kind, look)

    def act():
        g.user = "set by the request"
        defer_look()
        defer_look()

    add_endpoint(app, act)
    client.get("/")
    assert events == [None, None]


@both_kinds
def test_each_context_is_torn_down(kind, app, client, events):
    """What a call has opened is closed by `teardown_appcontext` after it (D4)."""

    @app.teardown_appcontext
    def close(exc):
        events.append(f"close {g.pop('session', 'nothing')}: {exc!r}")

    def use(name, error=None):
        g.session = name
        events.append(f"use {name}")
        if error is not None:
            raise error

    def act():
        deferring(kind, lambda: use("first"))()
        deferring(kind, lambda: use("second", LookupError("gone")))()
        deferring(kind, lambda: use("third"))()

    add_endpoint(app, act)
    client.get("/")
    assert events == [
        "close nothing: None",
        *("use first", "close first: None"),
        *("use second", "close second: LookupError('gone')"),
        *("use third", "close third: None"),
    ]


@both_kinds
def test_calls_make_urls(kind, make_app, events):
    """`url_for` works in a call, with the server's name of the configuration (D4)."""
    app = make_app(SERVER_NAME="shop.example")
    look = deferring(
        kind, lambda: events.append(url_for("endpoint /order", _external=True))
    )
    add_endpoint(app, look, "/order")
    app.test_client().get("/order")
    assert events == ["http://shop.example/order"]


@both_kinds
def test_calls_read_their_request(kind, app, client, events):
    """A call reads what its request was: context variables have their values (D4)."""
    look = deferring(kind, lambda: events.append((request.path, request.args["item"])))
    add_endpoint(app, look, "/order")
    client.get("/order?item=book")
    assert events == [("/order", "book")]


@both_kinds
def test_calls_have_the_values_of_their_call_site(kind, app, client, events):
    """Each call sees context variables as they were where it was deferred (D4)."""
    look = deferring(kind, lambda: events.append(request_id.get()))

    def act():
        token = request_id.set("first")
        look()
        request_id.set("second")
        look()
        request_id.reset(token)

    add_endpoint(app, act)
    client.get("/")
    assert events == ["first", "second"]


def test_calls_of_a_server_run_in_threads_of_their_own(app, client, as_server):
    """Under a server, sync calls run in Postlude's threads, in context (D3, D4)."""
    seen = []
    called = threading.Event()

    def look():
        seen.append((threading.current_thread().name, current_app.name))
        called.set()

    add_endpoint(app, lambda: defer(look))
    client.get("/", environ_overrides={"SERVER_SOFTWARE": "one of them"}).close()
    assert called.wait(TIMEOUT)
    ((thread, name),) = seen
    assert thread.startswith("postlude-")
    assert name == "shop"

"""A1: `defer` in dependencies and in their exit code."""

from typing import Annotated

import pytest
from fastapi import Depends, HTTPException

from postlude import defer


@pytest.fixture
def dependencies(events):
    """Dependencies of each kind; each defers, with exit code on both sides of it."""

    def sync():
        defer(events.append, "dependency")

    async def asynchronous():
        defer(events.append, "dependency")

    def sync_with_exit():
        defer(events.append, "dependency")
        yield
        defer(events.append, "exit")

    async def asynchronous_with_exit():
        defer(events.append, "dependency")
        yield
        defer(events.append, "exit")

    def sync_that_cleans_up():
        try:
            yield
        finally:
            defer(events.append, "exit").always()

    async def asynchronous_that_cleans_up():
        try:
            yield
        finally:
            defer(events.append, "exit").always()

    return {
        "sync": sync,
        "async": asynchronous,
        "sync-exit": sync_with_exit,
        "async-exit": asynchronous_with_exit,
        "sync-cleanup": sync_that_cleans_up,
        "async-cleanup": asynchronous_that_cleans_up,
    }


def add_endpoints(app, dependency, act):
    """Add a sync and an async endpoint that depend on it."""

    @app.get("/sync")
    def in_thread(value: Annotated[object, Depends(dependency)]):
        return act()

    @app.get("/async")
    async def on_loop(value: Annotated[object, Depends(dependency)]):
        return act()


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
@pytest.mark.parametrize("name", ["sync", "async"])
def test_a_dependency_may_defer(name, kind, app, client, events, dependencies):
    """Calls of a dependency come before those of its endpoint (A1, D1)."""
    add_endpoints(app, dependencies[name], lambda: defer(events.append, "endpoint").id)
    client(app).get(f"/{kind}")
    assert events == ["last byte", "dependency", "endpoint"]


@both_kinds
@pytest.mark.parametrize("name", ["sync-exit", "async-exit"])
def test_exit_code_may_defer(name, kind, app, client, events, dependencies):
    """Exit code defers into the same unit, before or after the last byte (A1, A6).

    FastAPI runs it after the response (0.118 on) or before; the calls run after both.
    """
    add_endpoints(app, dependencies[name], lambda: defer(events.append, "endpoint").id)
    client(app).get(f"/{kind}")
    assert events == ["last byte", "dependency", "endpoint", "exit"]


@both_kinds
@pytest.mark.parametrize("name", ["sync-cleanup", "async-cleanup"])
def test_cleaning_up_may_defer(name, kind, app, client, events, dependencies):
    """What `finally` defers runs though the endpoint refused or failed (A1, C1)."""
    failure = HTTPException(404)

    def fail():
        defer(events.append, "endpoint")
        raise failure

    add_endpoints(app, dependencies[name], fail)
    assert client(app).get(f"/{kind}").status_code == 404
    assert events == ["last byte", "exit"]
    events.clear()
    failure = LookupError("no such order")
    running = client(app, raise_server_exceptions=False)
    assert running.get(f"/{kind}").status_code == 500
    assert [event for event in events if event != "last byte"] == ["exit"]


@both_kinds
def test_a_dependency_that_refuses(kind, app, client, events):
    """A dependency that raises drops what it has deferred itself (C1)."""

    def refuse():
        defer(events.append, "plain")
        defer(events.append, "always").always()
        raise HTTPException(401)

    add_endpoints(app, refuse, lambda: None)
    assert client(app).get(f"/{kind}").status_code == 401
    assert events == ["last byte", "always"]


def test_dependencies_of_routers_and_applications(app, client, events):
    """Dependencies that stand on a route and have no value defer too (A1)."""

    async def audit():
        defer(events.append, "audit")

    @app.get("/", dependencies=[Depends(audit)])
    async def endpoint():
        defer(events.append, "endpoint")

    client(app).get("/")
    assert events == ["last byte", "audit", "endpoint"]


def test_an_overridden_dependency(app, client, events):
    """`dependency_overrides` replaces what defers, as a test of an app does (A1)."""

    async def send_mail():
        defer(events.append, "real mail")

    async def send_nothing():
        defer(events.append, "no mail")

    add_endpoints(app, send_mail, lambda: None)
    app.dependency_overrides[send_mail] = send_nothing
    client(app).get("/async")
    assert events == ["last byte", "no mail"]


def test_nested_dependencies_share_the_unit(app, client, events):
    """Each level defers into one line, names included (A1, C3)."""

    def settings():
        defer(events.append, "settings").named("audit")

    async def session(settings: Annotated[None, Depends(settings)]):
        defer(events.append, "session")
        yield
        defer(events.append, "closed")

    @app.get("/")
    async def endpoint(session: Annotated[None, Depends(session)]):
        defer(events.append, "endpoint").named("audit")

    client(app).get("/")
    assert events == ["last byte", "session", "endpoint", "closed"]

"""B3 and AC9 with sessions on a connection that somebody else has begun on.

It is what test suites do: a transaction around each test, rolled back at its end.
"""

import pytest
from orders import Order, call
from sqlalchemy import insert, select
from sqlalchemy.orm import Session
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from postlude import DeferScope, defer
from postlude.asgi import PostludeMiddleware

MODES = ["conditional_savepoint", "create_savepoint", "control_fully", "rollback_only"]


def join(connection, mode):
    """Make a session on a connection."""
    return Session(connection, join_transaction_mode=mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("end", ["commit", "rollback"])
def test_a_call_waits_for_both(engine, mode, end, stored):
    """The session's commit is not the end, unless it has been given control (B3)."""
    with DeferScope(), engine.connect() as connection:
        connection.begin()
        connection.execute(insert(Order).values(name="a"))
        with join(connection, mode) as session:
            session.add(Order(name="b"))
            early = defer(call)
            session.flush()
            late = defer(call)
            session.commit()
        if mode == "control_fully":
            assert stored(engine) == ["a", "b"]
        else:
            assert {early.state, late.state} == {"pending"}
            getattr(connection, end)()
    kept = end == "commit" or mode == "control_fully"
    assert {early.state, late.state} == {"done" if kept else "dropped"}


@pytest.mark.parametrize("mode", MODES)
def test_a_sessions_rollback_drops(engine, mode):
    """Whatever becomes of the rest (C2)."""
    with DeferScope(), engine.connect() as connection:
        connection.begin()
        outer = defer(call)
        with join(connection, mode) as session:
            session.add(Order(name="b"))
            session.flush()
            inner = defer(call)
            session.rollback()
        if connection.in_transaction():
            connection.commit()
    assert inner.reason == "rollback"
    assert outer.state == ("done" if mode == "create_savepoint" else "dropped")


@pytest.mark.parametrize("mode", ["conditional_savepoint", "create_savepoint"])
def test_a_session_that_only_reads(engine, mode):
    """What others wrote on the connection before is not its own."""
    with DeferScope(), engine.begin() as connection:
        connection.execute(insert(Order).values(name="a"))
        with join(connection, mode) as session:
            session.scalars(select(Order)).all()
            deferred = defer(call)
    assert deferred.state == "done"


@pytest.mark.parametrize("mode", MODES[:2])
@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_a_request_inside_a_tests_transaction(sqlite_engine, mode, end):
    """The test's own is none of the request; its session's commit counts (AC9)."""
    calls = []

    def endpoint(_request):
        with join(connection, mode) as session:
            session.add(Order(name="a"))
            calls.append(defer(call))
            with session.begin_nested():
                calls.append(defer(call))
            getattr(session, end)()
        calls.append(defer(call))
        return Response()

    app = PostludeMiddleware(Starlette(routes=[Route("/", endpoint)]))
    with sqlite_engine.connect() as connection:
        connection.begin()
        TestClient(app).get("/")
        assert [deferred.state for deferred in calls] == [
            *(["done" if end == "commit" else "dropped"] * 2),
            "done",
        ]
        connection.rollback()


def test_a_block_inside_a_tests_transaction(sqlite_engine, drained):
    """A plain block has no request around it, and waits for what is (AC9, B3)."""
    with sqlite_engine.connect() as connection:
        connection.begin()
        with DeferScope(), join(connection, "create_savepoint") as session:
            session.add(Order(name="a"))
            deferred = defer(call)
            session.flush()
            inner = defer(call)
            session.commit()
        assert {deferred.state, inner.state} == {"pending"}
        connection.rollback()
        drained()
    assert {deferred.state, inner.state} == {"dropped"}

"""C1: which calls run after a failed request, and when. B5: the client has gone."""

import time

import pytest

from harness.catalogue import (
    ENDS_CUT_SHORT,
    NOTICED_BEFORE,
    NOTICED_MIDWAY,
    every_server,
)

both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@every_server
@both_kinds
@pytest.mark.parametrize(("route", "status"), [("missing", 404), ("failed", 500)])
def test_a_failing_status_runs_only_always_calls(server, route, status, kind, visit):
    """With a status from 400 on only `.always()` calls run (C1)."""
    with server.connect() as connection:
        calls = f"plain:{kind}", f"audit:{kind}:always", "last:sync:always"
        response = connection.get(visit.target(route, *calls))
    assert visit.outcome("audit")["status"] == response.status == status
    visit.end("last")
    assert visit.begun() == ["audit", "last"]


@every_server
@both_kinds
def test_an_exception_before_the_response_runs_only_always_calls(server, kind, visit):
    """`.always()` calls begin after the 500 that the server itself sends (C1, B1)."""
    with server.connect() as connection:
        calls = f"plain:{kind}", f"audit:{kind}:always", "last:sync:always"
        response = connection.get(visit.target("raises", *calls))
        begin = visit.begin("audit")
        visit.end("last")
    assert response.status == 500
    assert server.keeps_order(begin, response.last_byte_at)
    assert begin.detail["exception"] == "RuntimeError"
    assert visit.begun() == ["audit", "last"]


@every_server
@both_kinds
def test_an_exception_within_the_response_runs_only_always_calls(server, kind, visit):
    """An exception after the start fails the unit, whatever its status (C1, B1)."""
    with server.connect() as connection:
        calls = f"plain:{kind}", f"audit:{kind}:always", "last:sync:always"
        connection.request(visit.target("breaks", *calls))
        connection.read_until(b"begun")
        visit.gate("midway").open()
        if not server.spec.limit(ENDS_CUT_SHORT):
            connection.read_rest()
        begin = visit.begin("audit")
        visit.end("last")
    assert server.keeps_order(begin, connection.last_read_at)
    assert begin.detail["exception"] == "RuntimeError"
    assert visit.begun() == ["audit", "last"]


def let_the_server_notice(server):
    """Return when the server has had every chance to see what happened before.

    Its loop has answered somebody else meanwhile, and the request has become old
    enough (10 ms) for Postlude to ask whether its client is still there.
    """
    if server.spec.slots > 1:
        with server.connect() as other:
            other.get("/length")
    time.sleep(0.02)


@every_server
@both_kinds
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_gone_before_the_response(server, how, kind, visit):
    """Nobody takes the response: its calls run and know that (B5)."""
    with server.connect() as connection:
        connection.request(visit.target("waits", f"call:{kind}"))
        handler = visit.gate("handler")
        getattr(connection, how)()
    let_the_server_notice(server)
    handler.open()
    outcome = visit.outcome("call")
    assert outcome["ok"]
    if server.spec.limit(NOTICED_BEFORE):
        assert outcome["delivered"]
    else:
        assert not outcome["delivered"]
        assert outcome["reason"]


@every_server
@both_kinds
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_gone_in_mid_stream(server, how, kind, visit):
    """The client leaves during the body: its calls run and know that (B5)."""
    with server.connect() as connection:
        connection.request(visit.target("flood", f"call:{kind}"))
        connection.read_until(b"begun")
        handler = visit.gate("midway")
        getattr(connection, how)()
    let_the_server_notice(server)
    handler.open()
    outcome = visit.outcome("call")
    assert outcome["ok"]
    if server.spec.limit(NOTICED_MIDWAY):
        assert outcome["delivered"]
    else:
        assert not outcome["delivered"]
        assert outcome["reason"]

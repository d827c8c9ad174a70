"""A6, B4, C5, D1: where units begin and end."""

import pytest

from harness.catalogue import KEEP_ALIVE, asgi_servers, every_server
from harness.websocket import WebSocket

both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@every_server
def test_each_request_of_a_connection_is_a_unit(server, visit):
    """Two requests on one connection run their own calls, each once, in order (C5)."""
    names = [f"{unit}-{number}" for unit in "ab" for number in range(3)]
    connection = server.connect()
    for unit in "ab":
        calls = [f"{name}:sync" for name in names if name.startswith(unit)]
        connection.get(visit.target("length", *calls))
        visit.end(f"{unit}-2")
        if server.spec.limit(KEEP_ALIVE):
            connection.close()
            connection = server.connect()
    connection.get(visit.target("length", "sentinel:sync"))
    connection.close()
    visit.end("sentinel")
    assert visit.begun() == [*names, "sentinel"]
    assert visit.ended() == [*names, "sentinel"]


@every_server
@both_kinds
def test_a_late_call_runs_at_once(server, kind, visit):
    """Work that outlived its request may still defer, and the call runs (A6)."""
    with server.connect() as connection:
        target = visit.target("late", "early:sync", late=f"late:{kind}")
        response = connection.get(target)
    visit.end("early")
    visit.gate("task").open()
    outcome = visit.outcome("late")
    assert visit.begun() == ["early", "late"]
    assert outcome["status"] == response.status == 200


@every_server
@both_kinds
def test_a_late_call_is_judged_by_its_unit(server, kind, visit):
    """After a failed request a late plain call is dropped, an always call runs (A6)."""
    with server.connect() as connection:
        late = f"plain:{kind}", f"audit:{kind}:always"
        connection.get(visit.target("late-failed", "end:sync:always", late=late))
    visit.end("end")
    visit.gate("task").open()
    assert visit.outcome("audit")["status"] == 500
    assert visit.begun() == ["end", "audit"]


@asgi_servers
@both_kinds
def test_the_unit_of_a_websocket_ends_when_it_closes(server, kind, visit):
    """What is deferred on a WebSocket runs when it closes, and not before (B4)."""
    with server.connect() as connection:
        websocket = WebSocket(connection, visit.target("socket"))
        assert websocket.ask(f"plain call:{kind}") == "plain done"
        assert websocket.ask(f"plain last:{kind}") == "plain done"
        assert visit.begun() == []
        websocket.close()
    visit.end("last")
    assert visit.begun() == ["call", "last"]
    assert visit.begin("call").at >= visit.event("websocket-closed").at


@asgi_servers
@both_kinds
def test_a_block_on_a_websocket_is_a_smaller_unit(server, kind, visit):
    """The calls of a block within have run before the WebSocket goes on (B4, B6)."""
    with server.connect() as connection:
        websocket = WebSocket(connection, visit.target("socket"))
        websocket.ask(f"plain outer:{kind}")
        assert websocket.ask(f"scoped inner:{kind}") == "scoped done"
        assert visit.ended() == ["inner"]
        websocket.close()
    visit.end("outer")
    assert visit.begun() == ["inner", "outer"]


@asgi_servers
@both_kinds
def test_a_client_that_leaves_a_websocket_ends_its_unit(server, kind, visit):
    """A WebSocket whose client vanishes closes too, undelivered (B4, B5)."""
    with server.connect() as connection:
        websocket = WebSocket(connection, visit.target("socket"))
        websocket.ask(f"plain call:{kind}")
        connection.reset()
    outcome = visit.outcome("call")
    assert outcome["ok"]
    assert not outcome["delivered"]

"""B2, D3: nobody waits for a deferred call.

Each call here waits for a word of the test, which comes only after the test has what
the call must not hold. If the call held it, the test would wait until its time-out. The
order of events is the proof; no time is measured.
"""

import pytest

from harness.catalogue import (
    KEEP_ALIVE,
    PIPELINING,
    asgi_servers,
    every_server,
    wsgi_servers,
)
from harness.process import THREADS
from harness.wire import request_bytes

both_kinds = pytest.mark.parametrize("kind", ["held", "held-async"])


@every_server
@both_kinds
def test_the_next_request_on_the_connection_is_answered(server, kind, visit):
    """A running call does not hold the next request of its connection (B2)."""
    with server.connect() as connection:
        first = connection.get(visit.target("length", f"call:{kind}"))
        gate = visit.gate("call")
        if server.spec.limit(KEEP_ALIVE):
            assert first.closes
            assert connection.read_to_eof() == b""
        else:
            assert connection.get(visit.target("length")).status == 200
        assert visit.ended() == []
        gate.open()
        visit.end("call")


@every_server
@both_kinds
def test_a_pipelined_request_is_answered(server, kind, visit):
    """A request sent together with the first is answered during its call (B2)."""
    requests = [
        request_bytes(visit.target("length", f"call:{kind}")),
        request_bytes(visit.target("chunked")),
    ]
    with server.connect() as connection:
        connection.send(b"".join(requests))
        first = connection.read_response()
        gate = visit.gate("call")
        if server.spec.limit(KEEP_ALIVE):
            assert first.closes
        if server.spec.limit(KEEP_ALIVE) or server.spec.limit(PIPELINING):
            assert connection.read_to_eof() == b""
        else:
            assert connection.read_response().body == b"one,two,three"
        assert visit.ended() == []
        gate.open()
        visit.end("call")


@every_server
@both_kinds
def test_a_request_on_another_connection_is_answered(server, kind, visit):
    """A running call holds no other connection (B2)."""
    with server.connect() as connection:
        connection.get(visit.target("length", f"call:{kind}"))
    gate = visit.gate("call")
    with server.connect() as other:
        assert other.get(visit.target("length")).status == 200
    assert visit.ended() == []
    gate.open()
    visit.end("call")


@every_server
@both_kinds
@pytest.mark.parametrize("route", ["length", "chunked", "no-content", "file"])
def test_the_end_of_a_closed_connection_comes(server, route, kind, visit):
    """EOF comes to a client that asked for `Connection: close` (B2)."""
    with server.connect() as connection:
        target = visit.target(route, f"call:{kind}")
        assert connection.get(target, "Connection: close").closes
        gate = visit.gate("call")
        assert connection.read_to_eof() == b""
        assert visit.ended() == []
        gate.open()
        visit.end("call")


@every_server
@both_kinds
@pytest.mark.parametrize("route", ["length", "chunked"])
def test_the_end_of_an_http10_connection_comes(server, route, kind, visit):
    """EOF comes to an HTTP/1.0 client, for which it may be the end of the body (B2)."""
    with server.connect() as connection:
        target = visit.target(route, f"call:{kind}")
        connection.request(target, version="1.0")
        connection.read_response()
        gate = visit.gate("call")
        assert connection.read_to_eof() == b""
        assert visit.ended() == []
        gate.open()
        visit.end("call")


@every_server
@both_kinds
def test_a_large_body_arrives_whole(server, kind, visit):
    """A call that begins right after 1 MiB was handed over does not hold it (B2)."""
    with server.connect() as connection:
        response = connection.get(visit.target("large", f"call:{kind}"))
        gate = visit.gate("call")
        assert len(response.body) == 1 << 20
        assert visit.ended() == []
        gate.open()
        visit.end("call")


@every_server
@both_kinds
def test_calls_take_none_of_the_servers_slots(server, kind, visit):
    """As many running calls as the server takes requests at once hold no slot (B2)."""
    names = [f"call-{number}" for number in range(server.spec.slots)]
    for name in names:
        with server.connect() as connection:
            connection.get(visit.target("length", f"{name}:{kind}"))
            visit.gate(name)
    with server.connect() as connection:
        assert connection.get(visit.target("length")).status == 200
    assert visit.ended() == []
    for name in names:
        visit.gate(name).open()
        visit.end(name)


def occupy_threads(server, visit):
    """Block all of Postlude's threads and return the names of the calls."""
    names = [f"call-{number}" for number in range(THREADS)]
    for name in names:
        with server.connect() as connection:
            connection.get(visit.target("length", f"{name}:held"))
        visit.gate(name)
    return names


@every_server
def test_blocking_calls_hold_no_request_and_no_async_call(server, visit):
    """With all of Postlude's threads blocked, requests and async calls go on (D3)."""
    names = occupy_threads(server, visit)
    with server.connect() as connection:
        assert connection.get(visit.target("length", "other:async")).status == 200
        visit.end("other")
    assert visit.ended() == ["other"]
    assert len({visit.begin(name).thread for name in names}) == THREADS
    for name in names:
        visit.gate(name).open()
        visit.end(name)


@every_server
def test_a_call_waits_for_a_free_thread(server, visit):
    """A call that finds no free thread begins when there is one (D6)."""
    first, *others = occupy_threads(server, visit)
    with server.connect() as connection:
        connection.get(visit.target("length", "queued:sync"))
    with server.connect() as connection:
        connection.get(visit.target("length", "later:async"))
    visit.end("later")
    visit.gate(first).open()
    assert visit.begin("queued").at > visit.end(first).at
    for name in others:
        visit.gate(name).open()
        visit.end(name)


@asgi_servers
def test_calls_run_on_their_own_threads_under_asgi(server, visit):
    """Async calls run on the application's loop, sync calls on other threads (D3)."""
    with server.connect() as connection:
        response = connection.get(visit.target("length", "on:async", "off:sync"))
    loop = int(response.headers["x-thread"])
    assert visit.begin("on").thread == loop
    assert visit.begin("off").thread != loop


@wsgi_servers
def test_calls_run_on_their_own_threads_under_wsgi(server, visit):
    """No call, sync or async, runs on the thread that serves requests (D3)."""
    with server.connect() as connection:
        response = connection.get(visit.target("length", "one:async", "other:sync"))
    serving = int(response.headers["x-thread"])
    assert serving not in {visit.begin("one").thread, visit.begin("other").thread}

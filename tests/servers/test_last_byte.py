"""B1: no call starts before the last byte, in every framing, on every server."""

from dataclasses import dataclass, field, replace

import pytest

from harness.catalogue import (
    ENDS_WITH_EOF,
    TELLS_WHEN_SENT,
    every_server,
    wsgi_servers,
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and how its response must be framed for the case to be the case."""

    name: str
    route: str
    framing: str
    status: int = 200
    method: str = "GET"
    version: str = "1.1"
    headers: tuple[str, ...] = ()
    query: dict[str, str] = field(default_factory=dict)

    def framing_on(self, server):
        """Return the framing, or the one that this server uses instead."""
        limited = self.framing == "eof" and server.spec.limit(ENDS_WITH_EOF)
        return "chunked" if limited else self.framing

    def measure(self, server, visit, kind, number):
        """Return by how many nanoseconds the first call began after the last byte."""
        with server.connect() as connection:
            # up to 1 MiB, and never more than arrives without this process reading
            chunks = str(connection.capacity // 65_536)
            calls = f"first-{number}:{kind}", f"second-{number}:sync"
            target = visit.target(self.route, *calls, chunks=chunks, **self.query)
            wanted = {"method": self.method, "version": self.version}
            connection.request(target, *self.headers, **wanted)
            response = connection.read_response(self.method)
            visit.end(f"second-{number}")
        assert response.status == self.status
        assert response.framing == self.framing_on(server)
        assert visit.begun()[-2:] == [f"first-{number}", f"second-{number}"]
        return visit.begin(f"first-{number}").at - response.last_byte_at


EXCHANGES = (
    Exchange("content-length", "length", "length"),
    Exchange("chunked", "chunked", "chunked"),
    Exchange("head", "length", "head", method="HEAD"),
    Exchange("no-content", "no-content", "head", status=204),
    Exchange("not-modified", "not-modified", "head", status=304),
    Exchange("redirect", "redirect", "length", status=302),
    Exchange("empty", "empty", "length"),
    Exchange("file", "file", "length"),
    Exchange("large", "large", "length"),
    Exchange("large-chunked", "large-chunked", "chunked"),
    Exchange("http10", "length", "length", version="1.0"),
    Exchange("http10-no-length", "chunked", "eof", version="1.0"),
    Exchange("close", "length", "length", headers=("Connection: close",)),
    Exchange("close-chunked", "chunked", "chunked", headers=("Connection: close",)),
)


def kept(server, measure):
    """Tell whether calls began after the last byte: `measure` says by how much.

    One attempt is one proof, where a call cannot begin early by an accident of
    scheduling. Elsewhere a machine with no free core may do that, but not every time.
    """
    attempts = 5 if server.spec.limit(TELLS_WHEN_SENT) else 1
    return any(measure(number) >= 0 for number in range(attempts))


@every_server
@pytest.mark.parametrize("kind", ["sync", "async", "busy"])
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange.name)
def test_no_call_begins_before_the_last_byte(server, exchange, kind, visit):
    """No call begins before the last byte of the response has arrived (B1)."""
    assert kept(server, lambda number: exchange.measure(server, visit, kind, number))


@wsgi_servers
@pytest.mark.parametrize("name", ["chunked", "head", "no-content", "not-modified"])
def test_no_call_begins_while_the_server_ends_the_response(server, name, visit):
    """What a server writes only after `close()` comes before any call, too (B1)."""
    exchange = next(one for one in EXCHANGES if one.name == name)
    lingering = replace(exchange, query={"lingers": "yes"})
    assert kept(server, lambda number: lingering.measure(server, visit, "sync", number))


@every_server
def test_no_call_begins_while_an_event_stream_is_open(server, visit):
    """A stream of events is one response: its calls begin after its end (B1)."""

    def measure(number):
        with server.connect() as connection:
            later = f"within-{number}:async"
            target = visit.target("events", f"before-{number}:sync", midway=later)
            connection.request(target)
            connection.read_until(b"data: 1\n\n")
            visit.gate("second-event").open()
            connection.read_until(b"data: 2\n\n")
            assert len(visit.begun()) == 2 * number  # those of earlier attempts
            visit.gate("end-of-stream").open()
            connection.read_until(b"\r\n0\r\n\r\n")
            visit.end(f"within-{number}")
        assert visit.begun()[-2:] == [f"before-{number}", f"within-{number}"]
        return visit.begin(f"before-{number}").at - connection.last_read_at

    assert kept(server, measure)

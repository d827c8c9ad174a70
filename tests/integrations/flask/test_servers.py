"""B1, B2, D7: Flask's own development server, as a process, over raw sockets."""

import signal
from dataclasses import dataclass

import pytest

from harness.catalogue import Server


@dataclass(frozen=True, slots=True)
class DevelopmentServer(Server):
    """`flask run`."""

    def arguments(self, app, port, *more):
        """Return what stands after `python -m`."""
        return ["flask", "--app", app, "run", "--port", str(port), *more]


FLASK_RUN = DevelopmentServer("flask-run", "wsgi", "", ("flask",))


@pytest.fixture
def server(start):
    """A development server with the probe."""
    return start(FLASK_RUN, "flask_probe", POSTLUDE_GRACE="3600")


def test_the_development_server(server, visit):
    """`flask run` answers before its calls end, and drains at Ctrl-C (B2, D7)."""
    for path in ("order", "stream"):
        with server.connect() as connection:
            target = visit.target(path, f"{path}-first:held", f"{path}-second:async")
            response = connection.get(target)
            assert connection.read_to_eof() == b""
        assert visit.begin(f"{path}-first").at >= response.last_byte_at
        assert visit.ended() == []
    server.signal(signal.SIGINT)
    server.event("shutdown-begun")
    for path in ("order", "stream"):
        visit.gate(f"{path}-first").open()
        visit.end(f"{path}-second")
    server.wait_exit()
    assert visit.event("application", "flask_probe")


def test_an_exception_on_the_development_server(server, visit):
    """After an unhandled exception only always calls run, behind the 500 (C1, B1)."""
    with server.connect() as connection:
        target = visit.target("raises", "plain:sync", "audit:sync:always")
        response = connection.get(target)
        begin = visit.begin("audit")
    assert response.status == 500
    assert begin.at >= response.last_byte_at
    assert begin.detail["exception"] == "LookupError"
    assert visit.begun() == ["audit"]

"""The servers under test, and what each of them makes impossible."""

import os
import signal
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec

import pytest

REQUIRE_ALL = "REQUIRE_ALL_SERVERS"  # environment variable: a missing one is an error

FULL = "TEST_SERVICES"  # environment variable: "all" in the environment of all tests


@dataclass(frozen=True, slots=True)
class Server:
    """A server, how to start it, and how it ends."""

    name: str
    protocol: str
    command: str
    needs: tuple[str, ...]
    slots: int = 4
    """How many requests it serves at once, where that is bounded, else just a few."""
    stop_signal: signal.Signals = signal.SIGTERM
    """The signal that it drains at."""
    exit_status: int = 0
    in_full_only: bool = False
    """Whether only the environment of all tests has it."""

    @property
    def is_installed(self) -> bool:
        """Tell whether everything it needs can be imported."""
        return all(find_spec(module) for module in self.needs)

    def arguments(self, app: str, port: int, *more: str) -> list[str]:
        """Return what stands after `python -m`."""
        words = self.command.format(port=port).split()
        return [*words, *more, app]

    def limit(self, promise: str) -> str | None:
        """Return the reason why this server cannot keep a promise, if it cannot."""
        return LIMITS.get((self.name, promise))


UVICORN = "uvicorn --host 127.0.0.1 --port {port} --limit-concurrency 8 --ws wsproto"
HYPERCORN = "hypercorn --bind 127.0.0.1:{port} --worker-class asyncio"
GRANIAN = "granian --host 127.0.0.1 --port {port} --blocking-threads"
GUNICORN = (
    "gunicorn --bind 127.0.0.1:{port} --config python:gunicorn_settings --worker-class"
)
WAITRESS = "waitress --listen 127.0.0.1:{port} --threads 4"

SERVERS = (
    Server(
        name="uvicorn-asyncio",
        protocol="asgi",
        command=f"{UVICORN} --loop asyncio --http h11",
        needs=("uvicorn", "h11", "wsproto"),
        slots=8,
        exit_status=-signal.SIGTERM,  # it raises the signal again when it is done
    ),
    Server(
        name="uvicorn-uvloop",
        protocol="asgi",
        command=f"{UVICORN} --loop uvloop --http httptools",
        needs=("uvicorn", "uvloop", "httptools", "wsproto"),
        slots=8,
        exit_status=-signal.SIGTERM,
    ),
    Server(
        name="hypercorn",
        protocol="asgi",
        command=HYPERCORN,
        needs=("hypercorn",),
    ),
    Server(
        name="granian-asgi",
        protocol="asgi",
        command=f"{GRANIAN} 1 --interface asgi",
        needs=("granian",),
    ),
    Server(
        name="gunicorn-sync",
        protocol="wsgi",
        command=f"{GUNICORN} sync",
        needs=("gunicorn",),
        slots=1,
    ),
    Server(
        name="gunicorn-gthread",
        protocol="wsgi",
        command=f"{GUNICORN} gthread --threads 4",
        needs=("gunicorn",),
    ),
    Server(
        name="gunicorn-gevent",
        protocol="wsgi",
        command=f"{GUNICORN} gevent",
        needs=("gunicorn", "gevent"),
        in_full_only=True,
    ),
    Server(
        name="waitress",
        protocol="wsgi",
        command=WAITRESS,
        needs=("waitress",),
        stop_signal=signal.SIGINT,
    ),
    Server(
        name="granian-wsgi",
        protocol="wsgi",
        command=f"{GRANIAN} 4 --interface wsgi",
        needs=("granian",),
    ),
)

ENDS_WITH_EOF = "B1: HTTP/1.0 without a length ends with EOF"
TELLS_WHEN_SENT = "B1: a call never begins early, not even with no core free"
ENDS_CUT_SHORT = "B1: a body that fails midway ends"
KEEP_ALIVE = "B2: another request on the same connection"
PIPELINING = "B2: a request that was sent together with another one"
SIGTERM_DRAIN = "D7: SIGTERM drains"
SECOND_SIGNAL = "D7: a second signal ends at once"
NOTICED_BEFORE = "B5: a client gone before the response is noticed"
NOTICED_MIDWAY = "B5: a client gone in mid-stream is noticed"

WRITES_LATER = "its own threads write after send() and close(), and nobody tells"
ONE_SIGNAL = "its first process passes on the first signal only"
ONLY_TO_WHO_WAITS = "its receive() says so only to who waits for it"

LIMITS: dict[tuple[str, str], str] = {
    ("uvicorn-uvloop", ENDS_WITH_EOF): "with httptools it answers HTTP/1.0 in chunks",
    ("granian-asgi", TELLS_WHEN_SENT): WRITES_LATER,
    ("granian-wsgi", TELLS_WHEN_SENT): WRITES_LATER,
    ("waitress", TELLS_WHEN_SENT): "it writes the end after close(), and nobody tells",
    ("granian-asgi", NOTICED_BEFORE): ONLY_TO_WHO_WAITS,
    ("granian-asgi", NOTICED_MIDWAY): ONLY_TO_WHO_WAITS,
    ("granian-wsgi", NOTICED_BEFORE): "it shows neither its socket nor a disconnect",
    ("waitress", NOTICED_BEFORE): "it reads nothing while a request is served",
    ("gunicorn-sync", KEEP_ALIVE): "it closes the connection after each response",
    ("hypercorn", SECOND_SIGNAL): ONE_SIGNAL,
    ("granian-asgi", SECOND_SIGNAL): ONE_SIGNAL,
    ("granian-wsgi", SECOND_SIGNAL): ONE_SIGNAL,
    ("waitress", SIGTERM_DRAIN): "it leaves SIGTERM to the system, which ends it",
}


def _is_before(package: str, *release: int) -> bool:
    """Tell whether a version is installed that is older than *release*."""
    if find_spec(package) is None:
        return False
    return tuple(int(part) for part in version(package).split(".")[:3]) < release


if _is_before("granian", 2, 8, 7):
    LIMITS["granian-asgi", ENDS_CUT_SHORT] = "it leaves the response without an end"
if _is_before("gunicorn", 25):
    LIMITS["gunicorn-sync", SECOND_SIGNAL] = ONE_SIGNAL
    LIMITS["gunicorn-gthread", SECOND_SIGNAL] = ONE_SIGNAL
if _is_before("gunicorn", 27):
    LIMITS["gunicorn-gthread", PIPELINING] = "it waits for more, then closes"


def of_protocol(protocol: str) -> list[Server]:
    """Return the installed servers of a protocol."""
    return [
        server
        for server in SERVERS
        if server.protocol == protocol and server.is_installed
    ]


def missing() -> list[str]:
    """Return the names of the servers that are not installed."""
    full = os.environ.get(FULL) == "all"
    return [
        server.name
        for server in SERVERS
        if not server.is_installed and (full or not server.in_full_only)
    ]


def check_installed() -> None:
    """Refuse to run with a server missing where all are required.

    Raises:
        pytest.UsageError: `REQUIRE_ALL_SERVERS` is set and a server is missing.
    """
    if os.environ.get(REQUIRE_ALL) and missing():
        raise pytest.UsageError(f"{REQUIRE_ALL} is set, but {missing()} are missing.")


def _on(
    protocols: str, fixture: str, narrow: tuple[str, ...] | None = None
) -> pytest.MarkDecorator:
    """Parametrise a test over servers; where *narrow* is given, others are wide."""
    servers = [
        pytest.param(
            server,
            id=server.name,
            marks=() if narrow is None or server.name in narrow else pytest.mark.wide,
        )
        for name in protocols.split()
        for server in of_protocol(name)
    ]
    shared = fixture == "server"
    return pytest.mark.parametrize(fixture, servers, indirect=shared)


# `server` is a running one that all tests share, `spec` one for the test to start
every_server = _on("asgi wsgi", "server")
asgi_servers = _on("asgi", "server")
wsgi_servers = _on("wsgi", "server")
own_server = _on("asgi wsgi", "spec")
KINDS = ("uvicorn-uvloop", "granian-asgi", "gunicorn-gthread", "waitress")
own_server_of_a_kind = _on("asgi wsgi", "spec", narrow=KINDS)
own_asgi_server_of_a_kind = _on("asgi", "spec", narrow=KINDS)

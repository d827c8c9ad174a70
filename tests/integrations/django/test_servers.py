"""B1, B2, B3, D7: Django on its own server and on others, over raw sockets."""

import os
import signal
import subprocess
from contextlib import suppress

import pytest

from harness.catalogue import SERVERS as CATALOGUE
from harness.catalogue import Server
from harness.process import POLL

RUNSERVER = "manage runserver 127.0.0.1:{port}"
SERVERS = {
    "runserver": Server(
        "runserver", "wsgi", f"{RUNSERVER} --noreload --settings", ("django",)
    ),
    "runserver-reloading": Server(
        "runserver-reloading", "wsgi", f"{RUNSERVER} --settings", ("django",)
    ),
    "uvicorn": Server(
        "uvicorn", "asgi", "uvicorn --host 127.0.0.1 --port {port}", ("uvicorn",)
    ),
}


@pytest.fixture
def serve(start):
    """Start a server with the project of the probes."""

    def serve(name, app):
        # `manage.py` and the applications agree on the settings through it.
        return start(SERVERS[name], app, DJANGO_SETTINGS_MODULE="shop_settings")

    return serve


def get(server, target):
    """Get a page on a connection of its own that ends with it."""
    with server.connect() as connection:
        response = connection.get(target, "Connection: close")
        assert connection.read_to_eof() == b""
    return response


def wait_until_closing(server):
    """Wait until a server listens no more: its shutdown has begun."""
    while True:
        try:
            server.connect().close()
        except ConnectionRefusedError:
            return
        with suppress(subprocess.TimeoutExpired):
            server.process.wait(POLL)
            return


@pytest.mark.parametrize(
    "name",
    ["runserver", pytest.param("runserver-reloading", marks=pytest.mark.wide)],
)
def test_runserver(name, serve, visit):
    """`runserver` answers before its calls end, and drains at Ctrl-C (B2, D7)."""
    server = serve(name, "shop_settings")
    for page in ("sync", "async", "stream"):
        calls = f"{page}-first:held", f"{page}-second:async"
        response = get(server, visit.target(page, *calls))
        assert visit.begin(f"{page}-first").at >= response.last_byte_at
    assert visit.ended() == []
    os.killpg(server.process.pid, signal.SIGINT)  # as Ctrl-C does
    server.event("shutdown-begun")
    for page in ("sync", "async", "stream"):
        visit.gate(f"{page}-first").open()
        visit.end(f"{page}-second")
    server.wait_exit()


def test_an_exception_on_runserver(serve, visit):
    """After an unhandled exception always calls follow the 500 (C1, B1)."""
    server = serve("runserver", "shop_settings")
    response = get(server, visit.target("raises", "plain:sync", "audit:sync:always"))
    assert response.status == 500
    begin = visit.begin("audit")
    assert begin.at >= response.last_byte_at
    assert begin.detail["exception"] == "LookupError"
    assert visit.begun() == ["audit"]


every_page = pytest.mark.parametrize("page", ["sync", "async"])
every_call = pytest.mark.parametrize("call", ["held", "held-async"])


@every_page
@every_call
def test_uvicorn_answers_before_the_calls(call, page, serve, visit):
    """With Django's middleware alone nobody waits for the calls (B1, B2)."""
    server = serve("uvicorn", "shop_asgi:bare")
    with server.connect() as connection:
        for number in range(2):
            target = visit.target(page, f"{number}:{call}")
            response = connection.get(target)
            assert visit.begin(f"{number}").at >= response.last_byte_at
        assert get(server, visit.target(page)).status == 200
    assert visit.ended() == []
    for number in range(2):
        visit.gate(f"{number}").open()
        visit.end(f"{number}")


@pytest.mark.parametrize("leaves", [True, False], ids=["client-left", "client-stays"])
@pytest.mark.parametrize(
    "app", ["bare", pytest.param("with_sync_middleware", marks=pytest.mark.wide)]
)
@every_call
def test_uvicorn_drains_at_sigterm(call, app, leaves, serve, visit):
    """With Django's middleware alone SIGTERM waits for the calls (D7)."""
    server = serve("uvicorn", f"shop_asgi:{app}")
    with server.connect() as connection:
        target = visit.target("sync", f"first:{call}", "second:sync")
        connection.get(target, "Connection: close" if leaves else "Accept: */*")
        if leaves:
            connection.read_to_eof()
        visit.gate("first")
        server.signal(signal.SIGTERM)
        if leaves:
            connection.close()
        wait_until_closing(server)
        visit.gate("first").open()
        visit.end("second")
    assert server.wait_exit() == -signal.SIGTERM


@every_call
def test_the_wrapper_drains_at_sigterm(call, serve, visit):
    """Wrapped, Django is drained in the lifespan that it refuses itself (D7)."""
    server = serve("uvicorn", "shop_asgi:wrapped")
    for page in ("sync", "async"):
        response = get(server, visit.target(page, f"{page}:{call}", f"{page}-2:sync"))
        assert visit.begin(page).at >= response.last_byte_at
    server.signal(signal.SIGTERM)
    server.event("shutdown-begun")
    for page in ("sync", "async"):
        visit.gate(page).open()
        visit.end(f"{page}-2")
    assert server.wait_exit() == -signal.SIGTERM


(GTHREAD,) = [server for server in CATALOGUE if server.name == "gunicorn-gthread"]


@pytest.mark.parametrize(
    ("server", "app"),
    [
        (GTHREAD, "django.core.wsgi:get_wsgi_application()"),
        (SERVERS["runserver"], "shop_atomic"),
    ],
    ids=["gunicorn", "runserver"],
)
def test_atomic_requests(server, app, start, visit):
    """Calls follow a response whose transaction committed, and no other (B1, C2)."""
    running = start(server, app, DJANGO_SETTINGS_MODULE="shop_atomic")
    lost = get(running, visit.target("rolled_back", "mail:sync", "audit:sync:always"))
    assert visit.begin("audit").at >= lost.last_byte_at
    kept = get(running, visit.target("sync", "second:sync"))
    assert visit.begin("second").at >= kept.last_byte_at
    assert (lost.status, kept.status) == (200, 200)
    assert visit.begun() == ["audit", "second"]

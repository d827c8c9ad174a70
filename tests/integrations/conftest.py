"""What the tests of all frameworks share."""

import asyncio
import contextlib
import logging
import os
import secrets
import sys
import tempfile
from pathlib import Path

import httpx
import pytest

# The raw client, the events and the gates of the socket tests serve here too.
sys.path.insert(0, str(Path(__file__).parents[1] / "servers"))

from harness import process
from harness.observer import Gates, Journal
from harness.visit import Visit
from harness.wire import stamping
from postlude import _settings

LOGS = pytest.StashKey[list[Path]]()


@pytest.fixture
def events():
    """What has happened so far, in order; calls of any thread append to it."""
    return []


@pytest.fixture
def watched(events):
    """Wrap an ASGI app so that `events` tells when its last byte was handed over."""

    def watch(app):
        async def outermost(scope, receive, send):
            async def send_and_tell(message):
                await send(message)
                body = message["type"] == "http.response.body"
                if body and not message.get("more_body"):
                    events.append("last byte")

            http = scope["type"] == "http"
            await app(scope, receive, send_and_tell if http else send)

        return outermost

    return watch


@pytest.fixture
def lifespan():
    """Send an ASGI app what a server sends at its start and its end."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        to_app, from_app = asyncio.Queue(), asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        task = asyncio.create_task(app(scope, to_app.get, from_app.put))
        await to_app.put({"type": "lifespan.startup"})
        assert (await from_app.get())["type"] == "lifespan.startup.complete"
        yield
        await to_app.put({"type": "lifespan.shutdown"})
        assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
        await task

    return lifespan


@pytest.fixture
async def remote():
    """Make a client that an application takes for one of a server."""
    async with contextlib.AsyncExitStack() as stack:

        async def remote(app):
            transport = httpx.ASGITransport(app, client=("192.0.2.1", 50_001))
            client = httpx.AsyncClient(transport=transport, base_url="http://x")
            return await stack.enter_async_context(client)

        yield remote


@pytest.fixture
def fresh_settings():
    """Begin with the default settings, and forget what the test configured."""
    _settings.reset()
    yield
    _settings.reset()


@pytest.fixture
def reported(caplog):
    """Return the errors that Postlude has logged so far."""

    def errors():
        return [
            record.exc_info[1] if record.exc_info else record.getMessage()
            for record in caplog.records
            if record.name == "postlude" and record.levelno >= logging.ERROR
        ]

    return errors


@pytest.fixture(scope="session")
def meeting_place():
    """A folder for Unix sockets: their paths may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def journal(meeting_place):
    """What the servers report."""
    journal = Journal(meeting_place / "events")
    yield journal
    journal.close()


@pytest.fixture(scope="session")
def gates(meeting_place):
    """Where calls and handlers of servers wait for the test."""
    gates = Gates(meeting_place / "gates")
    yield gates
    gates.close()


@pytest.fixture
def visit(journal, gates):
    """A token for this test; whoever waits at its gates is sent away at its end."""
    visit = Visit(secrets.token_hex(6), journal, gates)
    yield visit
    gates.close_all(visit.token)


@pytest.fixture(scope="session")
def stamps():
    """Have all arrivals stamped by the kernel, from before the first server."""
    with stamping():
        yield


@pytest.fixture
def start(request, stamps, journal, gates, meeting_place):
    """Start a server with an application of the folder `probes` beside the test."""
    probes = [process.PROBES, request.path.with_name("probes")]
    inherited = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([*map(str, probes), inherited])
    logs = request.node.stash[LOGS] = []
    with contextlib.ExitStack() as stack:

        def start(spec, app, **environment):
            running = process.start(
                spec, app, journal, gates, meeting_place, PYTHONPATH=path, **environment
            )
            logs.append(running.log)
            stack.callback(running.stop)
            return running

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the logs of the servers that a failed test used."""
    report = yield
    if report.failed:
        for log in item.stash.get(LOGS, []):
            text = log.read_text(errors="replace")[-5_000:]
            report.sections.append((f"log of {log.name}", text))
    return report

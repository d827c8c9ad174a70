import contextlib
import secrets
import sys
import tempfile
from pathlib import Path

import pytest

# The files that the tests of this folder share are a package beside them, and the
# importlib mode of pytest puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))

from harness import catalogue
from harness.observer import Gates, Journal
from harness.process import Running, start
from harness.visit import Visit
from harness.wire import stamping

LOG = pytest.StashKey[list[Running]]()
APPS = {"asgi": "asgi_probe:app", "wsgi": "wsgi_probe:app"}


def pytest_configure(config):
    """Refuse to start where all servers are required and one is missing."""
    catalogue.check_installed()


def pytest_terminal_summary(terminalreporter):
    """Say which servers were left out; set REQUIRE_ALL_SERVERS to refuse that."""
    if catalogue.missing():
        names = ", ".join(catalogue.missing())
        terminalreporter.section("servers not installed, and so not tested")
        terminalreporter.write_line(names)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the logs of the servers that a failed test used."""
    report = yield
    if report.failed:
        for running in item.stash.get(LOG, []):
            text = running.log.read_text(errors="replace")[-5_000:]
            report.sections.append((f"log of {running.spec.name}", text))
    return report


@pytest.fixture(scope="session")
def meeting_place():
    """A folder for Unix sockets: their paths may have about 100 characters."""
    with tempfile.TemporaryDirectory(prefix="probe-") as folder:
        yield Path(folder)


@pytest.fixture(scope="session", autouse=True)
def stamps():
    """Have all arrivals stamped by the kernel, from before the first test."""
    with stamping():
        yield


@pytest.fixture(scope="session")
def journal(meeting_place):
    """What the servers report."""
    journal = Journal(meeting_place / "events")
    yield journal
    journal.close()


@pytest.fixture(scope="session")
def gates(meeting_place):
    """Where calls and handlers wait for the test."""
    gates = Gates(meeting_place / "gates")
    yield gates
    gates.close()


def end(running):
    """Stop a server; what it leaves in its log must be no sign of dropped work."""
    running.stop()
    assert running.complaints() == []


@pytest.fixture(scope="session")
def fleet(journal, gates, meeting_place):
    """Start each server when it is first asked for and keep it to the end."""
    asked: set[tuple[str, str]] = set()
    running: dict[tuple[str, str], Running] = {}
    with contextlib.ExitStack() as stack:

        def ask(spec, app):
            if (spec.name, app) not in asked:
                asked.add((spec.name, app))
                one = start(spec, app, journal, gates, meeting_place)
                stack.callback(end, one)
                running[spec.name, app] = one
            if (spec.name, app) not in running:
                pytest.fail(f"{spec.name} did not start, see the first test with it")
            return running[spec.name, app]

        yield ask


@pytest.fixture
def server(request, fleet):
    """The server of the table that a test is parametrised with, shared by all tests."""
    running = fleet(request.param, APPS[request.param.protocol])
    request.node.stash[LOG] = [running]
    return running


@pytest.fixture
def start_own(request, journal, gates, meeting_place):
    """Start a server that belongs to one test, which may end it."""
    own = request.node.stash[LOG] = []
    with contextlib.ExitStack() as stack:

        def start_one(spec, *more, app=None, **environment):
            app = app or APPS[spec.protocol]
            one = start(spec, app, journal, gates, meeting_place, *more, **environment)
            stack.callback(end, one)
            own.append(one)
            return one

        yield start_one


@pytest.fixture
def visit(journal, gates):
    """A token for this test; whoever waits at its gates is sent away at its end."""
    visit = Visit(secrets.token_hex(6), journal, gates)
    yield visit
    gates.close_all(visit.token)

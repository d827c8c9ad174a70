"""C1, B1: errors that a framework answers, outside of what `add_middleware` sees."""

import time

import pytest

from harness.catalogue import ENDS_CUT_SHORT, of_protocol

ASGI = of_protocol("asgi")
APPS = ("added", "installed", "fastapi_installed")


@pytest.fixture
def framework(request, fleet):
    """A server with the Starlette probe, installed in one of the ways."""
    spec, app = request.param
    return fleet(spec, f"starlette_probe:{app}")


def way(spec, app):
    """Give the parameter; how it is installed is the same thing on each server."""
    narrow = app == "added" or spec.name == "uvicorn-uvloop"
    marks = () if narrow else pytest.mark.wide
    return pytest.param((spec, app), id=f"{app}-{spec.name}", marks=marks)


every_way = pytest.mark.parametrize(
    "framework", [way(spec, app) for app in APPS for spec in ASGI], indirect=True
)


@every_way
@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("route", ["raises", "raises-in-thread"])
def test_always_calls_follow_the_error_page(framework, route, kind, visit):
    """Calls begin after the last byte of the framework's error page (C1, B1)."""
    with framework.connect() as connection:
        calls = f"plain:{kind}", f"audit:{kind}:always", "last:sync:always"
        response = connection.get(visit.target(route, *calls))
        begin = visit.begin("audit")
        visit.end("last")
    assert (response.status, response.body) == (500, b"error")
    assert framework.keeps_order(begin, response.last_byte_at)
    assert visit.begun() == ["audit", "last"]


@every_way
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_always_calls_wait_for_a_slow_error_page(framework, kind, visit):
    """Calls begin after the error page, however long it takes (C1, B1)."""
    with framework.connect() as connection:
        audit = f"audit:{kind}:always"
        connection.request(visit.target("raises", audit, slowly="yes"))
        page = visit.gate("error-page")
        time.sleep(0.05)  # for a call to begin that should not: nothing tells of that
        assert visit.begun() == []
        page.open()
        response = connection.read_response()
        visit.end("audit")
    assert framework.keeps_order(visit.begin("audit"), response.last_byte_at)


@every_way
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_refused_request_runs_only_always_calls(framework, kind, visit):
    """What the framework turns into a status from 400 on is a failure (C1)."""
    with framework.connect() as connection:
        calls = f"plain:{kind}", f"audit:{kind}:always", "last:sync:always"
        response = connection.get(visit.target("refuses", *calls))
    assert visit.outcome("audit")["status"] == response.status == 409
    visit.end("last")
    assert visit.begun() == ["audit", "last"]


@every_way
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_always_calls_follow_a_body_cut_short(framework, kind, visit):
    """Calls begin after the last byte that a failing body left (C1, B1)."""
    with framework.connect() as connection:
        calls = f"plain:{kind}", f"audit:{kind}:always", "last:sync:always"
        connection.request(visit.target("breaks", *calls))
        connection.read_until(b"begun")
        visit.gate("midway").open()
        if not framework.spec.limit(ENDS_CUT_SHORT):
            connection.read_rest()
        begin = visit.begin("audit")
        visit.end("last")
    assert framework.keeps_order(begin, connection.last_read_at)
    # Starlette 0.40 streams in a task group, which raises a group.
    assert begin.detail["exception"] in {"RuntimeError", "ExceptionGroup"}
    assert visit.begun() == ["audit", "last"]

"""G2: the fixtures of the pytest plugin, with Starlette's test client."""

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from postlude import NoScopeError, defer
from postlude.testing import failing_calls


@pytest.fixture
def app(application, events):
    """An application with an endpoint per status, and one whose call fails."""

    async def mail(to):
        events.append(f"mail to {to}")

    async def endpoint(request):
        defer(mail, "ada").named("mail")
        defer(events.append, "audit").always()
        events.append("answer")
        return PlainTextResponse("ok", request.path_params["status"])

    async def failing(request):
        defer(int, "no number").named("parse")
        return PlainTextResponse("ok")

    return application(
        Route("/fails", failing),
        Route("/{status:int}", endpoint),
    )


def test_capture_collects_without_running(app, client, events, postlude_capture):
    """Calls are collected, can be asserted on, and run when the test says (G2)."""
    client(app).get("/200")
    assert events == ["answer", "last byte"]
    postlude_capture.assert_deferred("mail", "ada", times=1)
    postlude_capture.assert_deferred(events.append, "audit")
    with pytest.raises(AssertionError, match="'grace'"):
        postlude_capture.assert_deferred("mail", "grace")
    postlude_capture.run()
    assert events == ["answer", "last byte", "mail to ada", "audit"]


def test_capture_judges_by_the_answer(app, client, postlude_capture):
    """What a refused request drops is not among the captured calls (G2, C1)."""
    client(app).get("/409")
    postlude_capture.assert_not_deferred("mail")
    assert len(postlude_capture.calls) == 1


@pytest.mark.usefixtures("postlude_inline")
def test_inline_runs_where_it_is_deferred(app, client, events):
    """`inline` runs calls at once, rules or not (G2)."""
    client(app).get("/409")
    assert events == ["mail to ada", "audit", "answer", "last byte"]


@pytest.mark.usefixtures("postlude_inline")
def test_inline_lets_exceptions_through(app, client):
    """With `inline` the exception of a call is the endpoint's (G2)."""
    with pytest.raises(ValueError, match="no number"):
        client(app).get("/fails")


def test_a_failing_call_fails_the_test(app, client):
    """What a call raises reaches the test, with the place that deferred it (G2)."""
    with pytest.raises(ValueError, match="no number") as failure, failing_calls():
        client(app).get("/fails")
    assert any("test_testing_kit.py" in note for note in failure.value.__notes__)


def test_an_expected_failure_is_none(app, client, postlude_failures):
    """A failure that was expected does not fail the test (G2)."""
    client(app).get("/fails")
    assert postlude_failures.expect(ValueError, "parse").state == "failed"
    assert postlude_failures.calls == []


@pytest.mark.usefixtures("postlude_strict")
def test_strict_mode_finds_the_missing_middleware(events, client):
    """In strict mode `defer` in an application without Postlude is an error (A5)."""

    async def endpoint(request):
        defer(events.append, "call")
        return PlainTextResponse("ok")

    with pytest.raises(NoScopeError, match="middleware is not installed"):
        client(Starlette(routes=[Route("/", endpoint)])).get("/")
    assert events == ["last byte"]

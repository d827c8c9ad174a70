import pytest
from flask import Response, abort, redirect, stream_with_context
from werkzeug.exceptions import InternalServerError

from postlude import defer, failure_store


class OutOfStockError(Exception):
    """What an endpoint raises."""


@pytest.fixture
def calls():
    """The handles of what was deferred, by name."""
    return {}


@pytest.fixture
def add_endpoint(app, events, calls):
    """Add an endpoint that defers a plain call and one that always runs, then acts."""

    def add_endpoint(act):
        @app.get("/")
        def endpoint():
            calls["plain"] = defer(events.append, "plain")
            calls["always"] = defer(events.append, "always").always()
            return act()

    return add_endpoint


def fail():
    """Raise, as an endpoint does."""
    raise OutOfStockError


@pytest.mark.parametrize("status", [400, 404, 409, 500, 503])
def test_abort_drops_plain_calls(status, add_endpoint, client, events, calls):
    """After `abort` a plain call is dropped, an always call runs (C1)."""
    add_endpoint(lambda: abort(status))
    assert client.get("/").status_code == status
    assert events == ["always"]
    assert (calls["plain"].state, calls["plain"].reason) == ("dropped", "outcome")
    outcome = calls["always"].outcome
    assert (outcome.ok, outcome.status, outcome.exception) == (False, status, None)


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_a_redirect_is_a_success(status, add_endpoint, client, events):
    """After a redirect plain calls run (C1)."""
    add_endpoint(lambda: redirect("/elsewhere", status))
    assert client.get("/").status_code == status
    assert events == ["plain", "always"]


@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.parametrize("testing", [True, False])
def test_a_handled_exception_is_judged_by_its_answer(
    testing, status, add_endpoint, app, events, calls
):
    """What an error handler answers decides, not that there was an error (C1)."""
    app.testing = testing

    @app.errorhandler(OutOfStockError)
    def handle(error):
        defer(events.append, "handler").always()
        return "handled", status

    add_endpoint(fail)
    assert app.test_client().get("/").text == "handled"
    plain = ["plain"] if status == 200 else []
    assert events == [*plain, "always", "handler"]
    assert calls["always"].outcome.exception is None


def test_an_unhandled_exception_is_a_failure(add_endpoint, client, events, calls):
    """Flask turns an exception into a 500: it is the outcome's all the same (C1)."""
    add_endpoint(fail)
    assert client.get("/").status_code == 500
    assert events == ["always"]
    assert calls["plain"].reason == "outcome"
    outcome = calls["always"].outcome
    assert (outcome.ok, outcome.status) == (False, 500)
    assert isinstance(outcome.exception, OutOfStockError)


@pytest.mark.parametrize("key", [500, InternalServerError])
def test_the_handler_of_the_500_may_defer(key, add_endpoint, app, client, events):
    """The handler of unhandled exceptions defers; all that always runs does (A1)."""

    @app.errorhandler(key)
    def error_page(error):
        defer(
            events.append, f"report {type(error.original_exception).__name__}"
        ).always()
        return "sorry", 500

    add_endpoint(fail)
    assert client.get("/").text == "sorry"
    assert events == ["always", "report OutOfStockError"]


@pytest.mark.parametrize("option", ["TESTING", "PROPAGATE_EXCEPTIONS"])
def test_the_client_raises_what_the_endpoint_raised(
    option, add_endpoint, app, client, events, calls
):
    """An exception that Flask lets through to the client comes after the calls (G1)."""
    app.config[option] = True
    add_endpoint(fail)
    with pytest.raises(OutOfStockError) as raised:
        client.get("/")
    assert events == ["always"]
    assert calls["always"].outcome.exception is raised.value


def test_a_body_that_breaks_is_a_failure(add_endpoint, client, events, calls):
    """A stream that raises in the middle fails its unit, whatever its status (C1)."""

    def body():
        yield "begun"
        raise OutOfStockError

    add_endpoint(lambda: Response(stream_with_context(body())))
    with pytest.raises(OutOfStockError) as raised:
        client.get("/", buffered=True)
    assert events == ["always"]
    assert calls["always"].outcome.exception is raised.value


def test_an_error_of_a_hook_is_a_failure(add_endpoint, app, client, events, calls):
    """What `after_request` raises turns the answer into a 500 (C1)."""
    app.after_request(lambda response: fail())
    add_endpoint(lambda: "ok")
    assert client.get("/").status_code == 500
    assert events == ["always"]
    assert isinstance(calls["always"].outcome.exception, OutOfStockError)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_failing_call_leaves_the_answer_alone(kind, app, client, events, reported):
    """What a call raises is logged; the answer and later calls are untouched (D2)."""
    error = OutOfStockError()

    def broken():
        raise error

    async def broken_async():
        raise error

    @app.get("/")
    def endpoint():
        defer({"sync": broken, "async": broken_async}[kind])
        defer(events.append, "next")
        return "ok"

    assert client.get("/").text == "ok"
    assert events == ["next"]
    assert reported() == [error]


def test_the_record_names_the_request(app, client, reported):
    """A failed call's record says which request and route it belonged to (E1)."""

    @app.get("/orders/<int:number>")
    def endpoint(number):
        defer(fail)
        return "ok"

    client.get("/orders/7", headers={"X-Request-Id": "abc"})
    record = list(failure_store().list())[-1]
    assert len(reported()) == 1
    assert record.unit == {
        "method": "GET",
        "path": "/orders/7",
        "route": "/orders/<int:number>",
        "status": 200,
        "request_id": "abc",
    }

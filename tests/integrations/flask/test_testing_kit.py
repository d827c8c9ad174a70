"""G2: the fixtures of the pytest plugin, with Flask's test client."""

import pytest
from flask import Flask, abort, current_app

from postlude import NoScopeError, defer
from postlude.testing import failing_calls


@pytest.fixture(autouse=True)
def shop(app, events):
    """Order books, and refuse everything else."""

    async def mail(to):
        events.append(f"mail to {to} from {current_app.name}")

    @app.post("/<item>")
    def order(item):
        defer(mail, "ada").named("mail")
        defer(events.append, "audit").always()
        events.append("answer")
        if item != "book":
            abort(404)
        return "ok"

    @app.get("/broken")
    def broken():
        defer(int, "no number").named("parse")
        return "ok"


def test_capture_collects_without_running(client, events, postlude_capture):
    """Calls are collected, can be asserted on, and run in their context (G2, D4)."""
    client.post("/book")
    assert events == ["answer"]
    postlude_capture.assert_deferred("mail", "ada", times=1)
    postlude_capture.run()
    assert events == ["answer", "mail to ada from shop", "audit"]


def test_capture_judges_by_the_answer(client, postlude_capture):
    """What a refused request drops is not among the captured calls (G2, C1)."""
    client.post("/car")
    postlude_capture.assert_not_deferred("mail")
    assert len(postlude_capture.calls) == 1


@pytest.mark.usefixtures("postlude_inline")
def test_inline_runs_where_it_is_deferred(client, events):
    """`inline` runs calls at once, in the request's own context (G2)."""
    client.post("/car")
    assert events == ["mail to ada from shop", "audit", "answer"]


@pytest.mark.usefixtures("postlude_inline")
def test_inline_lets_exceptions_through(app, client):
    """With `inline` the exception of a call is the view's (G2)."""
    app.testing = True
    with pytest.raises(ValueError, match="no number"):
        client.get("/broken")


def test_a_failing_call_fails_the_test(client):
    """What a call raises reaches the test, with the place that deferred it (G2)."""
    with pytest.raises(ValueError, match="no number") as failure, failing_calls():
        client.get("/broken")
    assert any("test_testing_kit.py" in note for note in failure.value.__notes__)


def test_an_expected_failure_is_none(client, postlude_failures):
    """A failure that was expected does not fail the test (G2)."""
    client.get("/broken")
    assert postlude_failures.expect(ValueError, "parse").state == "failed"


@pytest.mark.usefixtures("postlude_strict")
def test_strict_mode_finds_the_missing_extension():
    """In strict mode `defer` in an application without Postlude is an error (A5)."""
    bare = Flask("bare")
    bare.testing = True
    bare.add_url_rule("/", "endpoint", lambda: defer(print, "never").name)
    with pytest.raises(NoScopeError, match="middleware is not installed"):
        bare.test_client().get("/")

"""G2: the fixtures of the pytest plugin, with FastAPI's test client."""

import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException

from postlude import NoScopeError, defer


@pytest.fixture
def shop(app, events):
    """An application that orders books, and refuses everything else."""

    async def mail(to, *, subject):
        events.append(f"{subject} to {to}")

    @app.post("/{item}")
    def order(item: str, tasks: BackgroundTasks):
        tasks.add_task(events.append, "task")
        defer(mail, "ada", subject=item).named("mail")
        defer(events.append, "audit").always()
        if item != "book":
            raise HTTPException(404)

    @app.get("/broken")
    async def broken():
        defer(int, "no number").named("parse")

    return app


def test_capture_collects_without_running(shop, client, events, postlude_capture):
    """Deferred calls wait for the test; FastAPI's own tasks run (G2)."""
    client(shop).post("/book")
    assert events == ["last byte", "task"]
    postlude_capture.assert_deferred("mail", "ada", subject="book", times=1)
    postlude_capture.run()
    assert events == ["last byte", "task", "book to ada", "audit"]


def test_capture_judges_by_the_answer(shop, client, postlude_capture):
    """What a refused request drops is not among the captured calls (G2, C1)."""
    client(shop).post("/car")
    postlude_capture.assert_not_deferred("mail")
    assert len(postlude_capture.calls) == 1


def test_capture_sees_every_request(shop, client, postlude_capture):
    """Several requests are collected in the order of their calls (G2)."""
    with client(shop) as running:
        for _ in range(3):
            running.post("/book")
    postlude_capture.assert_deferred("mail", times=3)


@pytest.mark.usefixtures("postlude_inline")
def test_inline_runs_where_it_is_deferred(shop, client, events):
    """`inline` runs calls at once, async ones too (G2)."""
    client(shop).post("/book")
    assert events == ["book to ada", "audit", "last byte", "task"]


@pytest.mark.usefixtures("postlude_inline")
def test_inline_lets_exceptions_through(shop, client):
    """With `inline` the exception of a call is the endpoint's (G2)."""
    with pytest.raises(ValueError, match="no number"):
        client(shop).get("/broken")


def test_an_expected_failure_is_none(shop, client, postlude_failures):
    """A failure that was expected does not fail the test (G2)."""
    client(shop).get("/broken")
    assert postlude_failures.expect(ValueError, "parse").state == "failed"


@pytest.mark.usefixtures("postlude_strict")
def test_strict_mode_finds_the_missing_middleware(client):
    """In strict mode `defer` in an application without Postlude is an error (A5)."""
    bare = FastAPI()

    @bare.get("/")
    def endpoint():
        defer(print, "never")

    with pytest.raises(NoScopeError, match="middleware is not installed"):
        client(bare).get("/")

"""Point of use beside FastAPI's own `BackgroundTasks`: neither hurts the other."""

from typing import Annotated

import pytest
from fastapi import BackgroundTasks, Depends, HTTPException
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

from postlude import defer


@pytest.fixture
def add_orders(app, events):
    """Add an endpoint with a background task and a deferred call."""

    def add_orders(task, call):
        @app.get("/sync")
        def in_thread(tasks: BackgroundTasks):
            defer(call)
            tasks.add_task(task)

        @app.get("/async")
        async def on_loop(tasks: BackgroundTasks):
            tasks.add_task(task)
            defer(call)

        return app

    return add_orders


def tell(events, what, error=None):
    """Return a sync and an async function that note, then raise if they should."""

    def in_thread():
        events.append(what)
        if error is not None:
            raise error

    async def on_loop():
        in_thread()

    return {"sync": in_thread, "async": on_loop}


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])
both_tasks = pytest.mark.parametrize("task", ["sync", "async"])
both_calls = pytest.mark.parametrize("call", ["sync", "async"])


@both_kinds
@both_tasks
@both_calls
def test_both_run(call, task, kind, add_orders, client, events):
    """A background task and a deferred call of one request both run, once (A1, B1)."""
    app = add_orders(tell(events, "task")[task], tell(events, "call")[call])
    client(app).get(f"/{kind}")
    assert events[0] == "last byte"
    assert sorted(events[1:]) == ["call", "task"]


@both_kinds
@both_tasks
@pytest.mark.parametrize("client_raises", [True, False])
def test_a_failing_task_takes_no_call_with_it(
    client_raises, task, kind, add_orders, client, events
):
    """A deferred call runs although a background task of its request fails (D2)."""
    error = LookupError("no such order")
    failing = tell(events, "task", error)[task]
    app = add_orders(failing, tell(events, "call")["sync"])
    running = client(app, raise_server_exceptions=client_raises)
    if client_raises:
        with pytest.raises(LookupError):
            running.get(f"/{kind}")
    else:
        assert running.get(f"/{kind}").status_code == 200
    assert events[0] == "last byte"
    assert sorted(events[1:]) == ["call", "task"]


@both_kinds
@both_calls
def test_a_failing_call_takes_no_task_with_it(
    call, kind, add_orders, client, events, reported
):
    """A background task runs although a deferred call of its request fails (D2)."""
    error = LookupError("no such order")
    failing = tell(events, "call", error)[call]
    client(add_orders(tell(events, "task")["sync"], failing)).get(f"/{kind}")
    assert sorted(events) == ["call", "last byte", "task"]
    assert reported() == [error]


@both_tasks
def test_a_task_may_defer(task, app, client, events):
    """What a background task defers is late, and runs (A6)."""

    def work():
        events.append("task")
        defer(events.append, "call of the task")

    async def work_async():
        work()

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks):
        tasks.add_task({"sync": work, "async": work_async}[task])

    client(app).get("/")
    assert events == ["last byte", "task", "call of the task"]


def test_a_task_of_the_response_itself(app, client, events):
    """A task that the endpoint hands to its response runs beside calls too (A1)."""

    @app.get("/")
    async def endpoint():
        defer(events.append, "call")
        return JSONResponse({}, background=BackgroundTask(events.append, "task"))

    client(app).get("/")
    assert sorted(events) == ["call", "last byte", "task"]


def test_calls_survive_where_tasks_are_dropped(app, client, events):
    """After `HTTPException` FastAPI drops its tasks; an always call runs (C1)."""

    def audit(tasks: BackgroundTasks):
        tasks.add_task(events.append, "task")
        defer(events.append, "call").always()

    @app.get("/")
    async def endpoint(audited: Annotated[None, Depends(audit)]):
        raise HTTPException(404)

    client(app).get("/")
    assert events == ["last byte", "call"]

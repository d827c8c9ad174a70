import io
import re

import pytest
from django.core.exceptions import PermissionDenied
from django.http import (
    FileResponse,
    Http404,
    HttpResponse,
    HttpResponseRedirect,
)
from django.test import Client

from postlude import DeferScope, configure, current_scope, defer


class OutOfStockError(Exception):
    """What a view raises."""


async def note(events, what):
    """Note, as an async call."""
    events.append(what)


def views(act):
    """Return a sync and an async view that do the same."""

    def in_thread(request):
        return act()

    async def on_loop(request):
        return act()

    return {"sync": in_thread, "async": on_loop}


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
def test_calls_run_once_after_the_response(kind, site, get, events):
    """Under WSGI, ASGI and the test clients calls run once, in order (A1, B1, G1)."""

    def act():
        defer(events.append, "mail")
        defer(note, events, "metrics")
        defer(lambda: note(events, "lambda"))
        events.append("answer")
        return HttpResponse("ok")

    site(views(act)[kind])
    assert get() == (200, b"ok")
    assert events == ["answer", *get.sent, "mail", "metrics", "lambda"]


@both_kinds
def test_calls_of_calls_run_too(kind, site, get, events):
    """What a running call defers is run in the same drain (A7)."""

    def first():
        defer(note, events, "second")
        defer(lambda: defer(events.append, "third"))

    def act():
        defer(first)
        return HttpResponse("ok")

    site(views(act)[kind])
    get()
    assert events == [*get.sent, "second", "third"]


@both_kinds
@pytest.mark.parametrize("status", [200, 204, 304, 400, 404, 500])
def test_the_answer_decides(status, kind, site, get, events):
    """Plain calls run below 400, always calls in any case (C1)."""

    def act():
        defer(events.append, "plain")
        defer(events.append, "always").always()
        return HttpResponse(status=status)

    site(views(act)[kind])
    assert get()[0] == status
    assert events == [*get.sent, *(["plain"] if status < 400 else []), "always"]


@both_kinds
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_redirect_is_a_success(method, kind, site, get, events):
    """After a redirect plain calls run (C1)."""

    def act():
        defer(events.append, "plain")
        return HttpResponseRedirect("/elsewhere")

    site(views(act)[kind])
    assert get(method=method)[0] == 302
    assert events == [*get.sent, "plain"]


@both_kinds
@pytest.mark.parametrize(("error", "status"), [(Http404, 404), (PermissionDenied, 403)])
def test_exceptions_that_django_answers(error, status, kind, site, get, events):
    """After `Http404` and its like plain calls are dropped, always calls run (C1)."""
    calls = []

    def act():
        calls.append(defer(events.append, "plain"))
        defer(events.append, "always").always()
        raise error

    site(views(act)[kind])
    assert get()[0] == status
    assert events == [*get.sent, "always"]
    assert (calls[0].state, calls[0].reason) == ("dropped", "outcome")
    assert (calls[0].outcome.status, calls[0].outcome.exception) == (status, None)


@both_kinds
def test_an_unhandled_exception_is_a_failure(kind, site, get, events):
    """Django turns an exception into a 500: it is the outcome's all the same (C1)."""
    error = OutOfStockError()
    calls = []

    def act():
        calls.append(defer(events.append, "plain"))
        defer(events.append, "always").always()
        raise error

    site(views(act)[kind])
    assert get()[0] == 500
    assert events == [*get.sent, "always"]
    outcome = calls[0].outcome
    assert (outcome.ok, outcome.status) == (False, 500)
    assert outcome.exception is error


@both_kinds
def test_a_failing_call_leaves_the_answer_alone(kind, site, get, events, reported):
    """What a call raises is logged; the answer and later calls are untouched (D2)."""
    error = OutOfStockError()

    def fail():
        raise error

    async def fail_async():
        raise error

    def act():
        defer(fail)
        defer(fail_async)
        defer(events.append, "next")
        return HttpResponse("ok")

    site(views(act)[kind])
    assert get() == (200, b"ok")
    assert events == [*get.sent, "next"]
    assert reported() == [error, error]


@both_kinds
def test_a_block_in_a_view(kind, site, get, events):
    """A block in a view is a unit of its own that ends within the view (B6, A8)."""

    def in_thread(request):
        defer(events.append, "outer")
        with DeferScope():
            defer(events.append, "sync")
            defer(note, events, "async")
        events.append("answer")
        return HttpResponse("ok")

    async def on_loop(request):
        defer(events.append, "outer")
        async with DeferScope():
            defer(events.append, "sync")
            defer(note, events, "async")
        events.append("answer")
        return HttpResponse("ok")

    site({"sync": in_thread, "async": on_loop}[kind])
    get()
    assert events == ["sync", "async", "answer", *get.sent, "outer"]


@both_kinds
def test_no_unit_is_left_behind(kind, site, get):
    """After a request its unit collects no more for whoever comes next (A8)."""
    units = []

    def act():
        units.append(current_scope())
        return HttpResponse("ok")

    site(views(act)[kind])
    get()
    get()
    assert current_scope() is None
    assert None not in units
    assert units[0] is not units[1]


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
@both_kinds
def test_calls_follow_a_file(kind, site, get, events):
    """Calls run after the last part of a `FileResponse` (B1)."""
    file = io.BytesIO(b"x" * 300_000)

    def act():
        defer(events.append, "call")
        return FileResponse(file, content_type="text/plain")

    site(views(act)[kind])
    assert get() == (200, b"x" * 300_000)
    assert events == [*get.sent, "call"]
    assert file.closed


@pytest.mark.parametrize("own", [None, "db;dur=5"])
def test_the_header_server_timing(own, site):
    """With the setting a response tells its time, beside what the view says (E4)."""

    def view(request):
        defer(list)
        headers = {} if own is None else {"Server-Timing": own}
        return HttpResponse("ok", headers=headers)

    configure(server_timing=True)
    site(view)
    value = Client().get("/").headers["Server-Timing"]
    ours = r'app;dur=\d+\.\d, deferred;desc="1 calls"'
    assert re.fullmatch(ours if own is None else f"{own}, {ours}", value)

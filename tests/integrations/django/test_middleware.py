"""Point of the pattern: middleware that logs activity and tracks metrics (A1)."""

import pytest
from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.signals import request_finished
from django.http import Http404, HttpResponse
from django.utils.decorators import sync_and_async_middleware
from django.utils.deprecation import MiddlewareMixin

from postlude import defer

NOTED = []


@pytest.fixture(autouse=True)
def noted(events):
    """Have the middleware of this file note into `events`, though Django makes them."""
    NOTED.append(events)
    yield
    NOTED.clear()


def note(what):
    """Defer a note that is made however the request ends."""
    defer(NOTED[0].append, what).always()


class CallableMiddleware:
    """A middleware class as Django's documentation writes them."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        """Serve a request."""
        note("class before")
        response = self.get_response(request)
        note(f"class {response.status_code}")
        return response


class HookMiddleware(MiddlewareMixin):
    """A middleware class of the older style, with a method per occasion."""

    def process_request(self, request):
        """Begin."""
        note("hooks before")

    def process_view(self, request, view, args, kwargs):
        """Go on to the view."""
        note("hooks view")

    def process_response(self, request, response):
        """End."""
        note(f"hooks {response.status_code}")
        return response


def function_middleware(get_response):
    """Make a middleware that is a function."""

    def middleware(request):
        note("function before")
        response = get_response(request)
        note(f"function {response.status_code}")
        return response

    return middleware


class AsyncMiddleware:
    """A middleware class that is asynchronous only."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request):
        """Serve a request."""
        note("async before")
        response = await self.get_response(request)
        note(f"async {response.status_code}")
        return response


@sync_and_async_middleware
def both_middleware(get_response):
    """Make a middleware that is sync or async, as what it wraps is."""

    async def on_loop(request):
        note("both before")
        response = await get_response(request)
        note(f"both {response.status_code}")
        return response

    def in_thread(request):
        note("both before")
        response = get_response(request)
        note(f"both {response.status_code}")
        return response

    return on_loop if iscoroutinefunction(get_response) else in_thread


MIDDLEWARE = {
    "class": CallableMiddleware,
    "hooks": HookMiddleware,
    "function": function_middleware,
    "async": AsyncMiddleware,
    "both": both_middleware,
}


def named(*names):
    """Return the dotted names that Django's settings take."""
    return [f"{__name__}.{MIDDLEWARE[name].__name__}" for name in names]


def views(act):
    """Return a sync and an async view that do the same."""

    def in_thread(request):
        return act()

    async def on_loop(request):
        return act()

    return {"sync": in_thread, "async": on_loop}


def answer():
    """Defer, and answer."""
    note("view")
    return HttpResponse("ok")


def fail():
    """Defer, and fail."""
    note("view")
    raise LookupError("no such order")


def calls(*names, status=200):
    """Return what these middleware, outermost first, and the view note."""
    before, after = [], []
    for name in names:
        before.append(f"{name} before")
        after.insert(0, f"{name} {status}")
    if "hooks" in names:
        before.append("hooks view")
    return [*before, "view", *after]


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
@pytest.mark.parametrize("name", MIDDLEWARE)
def test_every_kind_of_middleware_may_defer(name, kind, site, get, events):
    """Middleware defers before and after the view, under every handler (A1)."""
    site(views(answer)[kind], *named(name))
    assert get() == (200, b"ok")
    assert events == [*get.sent, *calls(name)]


@both_kinds
def test_stacked_middleware(kind, site, get, events):
    """A stack of all kinds loses no call, and keeps the order (A1, D1)."""
    site(views(answer)[kind], *named(*MIDDLEWARE))
    get()
    assert events == [*get.sent, *calls(*MIDDLEWARE)]


@both_kinds
def test_middleware_sees_errors_too(kind, site, get, events):
    """What middleware defers after a view that failed runs after the 500 (A1, C1)."""
    site(views(fail)[kind], *named("class", "function"))
    assert get()[0] == 500
    assert events == [*get.sent, *calls("class", "function", status=500)]


def test_middleware_that_answers_itself(site, get, events):
    """Middleware that refuses without asking the view is judged by its answer (C1)."""
    site(views(answer)["sync"], *named("class"), f"{__name__}.refuse")
    assert get()[0] == 403
    assert events == [*get.sent, "class before", "refused", "class 403"]


def refuse(get_response):
    """Make a middleware that answers every request."""

    def middleware(request):
        defer(NOTED[0].append, "dropped")
        note("refused")
        return HttpResponse(status=403)

    return middleware


class Forgiving(MiddlewareMixin):
    """Answers for a view that failed."""

    def process_exception(self, request, exception):
        """Answer instead."""
        note(f"handled {exception}")
        return HttpResponse("sorry", status=200)


@both_kinds
@pytest.mark.parametrize("place", ["inside", "outside"])
def test_an_exception_that_middleware_answers(place, kind, site, get, events):
    """A view's exception that another middleware turns into a 200 is none (C1)."""
    postlude = "postlude.integrations.django.PostludeMiddleware"
    forgiving = f"{__name__}.Forgiving"
    order = [postlude, forgiving] if place == "inside" else [forgiving, postlude]
    plain = []

    def act():
        plain.append(defer(events.append, "plain"))
        return fail()

    site(views(act)[kind], MIDDLEWARE=order)
    assert get() == (200, b"sorry")
    assert events == [*get.sent, "plain", "view", "handled no such order"]
    assert plain[0].outcome.exception is None


@both_kinds
def test_the_handlers_of_the_url_configuration(kind, site, get, events):
    """`handler404` and `handler500` defer like views (A1)."""

    def missing(request, exception):
        note("404")
        return HttpResponse("missing", status=404)

    def broken(request):
        note("500")
        return HttpResponse("broken", status=500)

    def act():
        raise error

    pages = {"handler404": missing, "handler500": broken}
    site(views(act)[kind], error_pages=pages)
    error = Http404()
    assert get() == (404, b"missing")
    error = LookupError()
    assert get() == (500, b"broken")
    assert events == [*get.sent, "404", *get.sent, "500"]


def test_receivers_of_the_last_signal_may_defer(site, get, events):
    """`request_finished` is sent within the unit (A1)."""

    def receive(**_):
        note("finished")

    site(views(answer)["sync"])
    request_finished.connect(receive)
    try:
        get()
    finally:
        request_finished.disconnect(receive)
    assert events == [*get.sent, "view", "finished"]

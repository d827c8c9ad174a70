"""B3 and C2 in requests: `ATOMIC_REQUESTS`, blocks in views, and both kinds of view."""

from contextlib import suppress

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from books.models import Book
from django.db import connections, transaction
from django.http import Http404, HttpResponse, StreamingHttpResponse

import postlude
from postlude import defer
from postlude.integrations.django import PostludeMiddleware
from postlude.transactions import _around
from postlude.transactions import django as gates


@pytest.fixture(autouse=True)
def empty():
    """Leave no books behind."""
    yield
    Book.objects.all().delete()


@pytest.fixture
def atomic_requests(monkeypatch):
    """Have every view in a transaction on both databases."""
    for alias in ("default", "memory"):
        monkeypatch.setitem(connections.settings[alias], "ATOMIC_REQUESTS", True)


class Calls(list):
    """Defers calls that note into `events`, and keeps them."""

    def __init__(self, events):
        super().__init__()
        self._events = events

    def __call__(self, name):
        """Defer one, and with it one that runs in every case."""
        self.append(defer(self._events.append, name))
        defer(self._events.append, f"{name} always").always()

    @property
    def ended(self):
        """How they ended."""
        return [(call.state, call.reason) for call in self]


@pytest.fixture
def calls(events):
    """Calls that note."""
    return Calls(events)


DONE = "done", None
ROLLED_BACK = "dropped", "rollback"
OUTCOME = "dropped", "outcome"


class NoError(Exception):
    """What a view raises."""


def test_the_middleware_installs_the_gates(monkeypatch):
    """Django's transactions belong to the framework: nothing else to do (B3)."""
    monkeypatch.setattr(_around, "probes", ())
    PostludeMiddleware(lambda request: None)
    PostludeMiddleware(lambda request: None)
    assert _around.probes == (gates._gates,)


def test_a_view_that_commits(atomic_requests, site, get, events, calls):
    """The commit comes first, the response second, then the call (B1, B3)."""

    def view(_request):
        Book.objects.create(title="a")
        transaction.on_commit(lambda: events.append("commit"))
        calls("mail")
        return HttpResponse("ok")

    site(view)
    assert get() == (200, b"ok")
    assert events == ["commit", *get.sent, "mail", "mail always"]
    assert calls[0].outcome.committed is True


def test_a_view_that_fails(atomic_requests, site, get, events, calls):
    """Its transaction is rolled back, and that is the reason (C2)."""

    def view(_request):
        calls("mail")
        raise NoError

    site(view)
    assert get()[0] == 500
    assert calls.ended == [ROLLED_BACK]
    assert events == [*get.sent, "mail always"]


def test_a_rollback_under_an_answer_of_200(atomic_requests, site, get, events, calls):
    """The mail for an order that was never saved is not sent (C2)."""

    def view(_request):
        Book.objects.create(title="a")
        calls("mail")
        transaction.set_rollback(True)
        return HttpResponse("ok")

    site(view)
    assert get() == (200, b"ok")
    assert calls.ended == [ROLLED_BACK]
    assert calls[0].rolled_back == "default"
    assert events == [*get.sent, "mail always"]
    assert not Book.objects.exists()


def test_either_database_counts(atomic_requests, site, get, calls):
    """The call waits for all that are open (A5)."""

    def view(_request):
        calls("mail")
        transaction.set_rollback(True, using="memory")
        return HttpResponse("ok")

    site(view)
    get()
    assert calls[0].rolled_back == "memory"


@pytest.mark.parametrize("status", [404, 500])
def test_an_error_that_is_answered_commits(status, atomic_requests, site, get, calls):
    """Django commits then, and the plain rule of the outcome applies (C1)."""

    def view(_request):
        Book.objects.create(title="a")
        calls("mail")
        return HttpResponse("no", status=status)

    site(view)
    assert get() == (status, b"no")
    assert calls.ended == [OUTCOME]
    assert Book.objects.exists()


def test_an_error_that_is_raised_rolls_back(atomic_requests, site, get, calls):
    """`Http404` is an exception like any other to the transaction (C2)."""

    def view(_request):
        calls("mail")
        raise Http404

    site(view)
    assert get()[0] == 404
    assert calls.ended == [ROLLED_BACK]


def test_savepoints_in_a_view(atomic_requests, site, get, events, calls):
    """A rolled back one drops its own calls (AC5)."""

    def view(_request):
        with suppress(NoError), transaction.atomic():
            calls("lost")
            raise NoError
        with transaction.atomic():
            calls("kept")
        return HttpResponse("ok")

    site(view)
    get()
    assert calls.ended == [ROLLED_BACK, DONE]
    assert events == [*get.sent, "lost always", "kept", "kept always"]


def test_middleware_is_outside(atomic_requests, site, get, calls):
    """Only the view is in the transaction (B3)."""

    def outside(get_response):
        def middleware(request):
            calls("before")
            response = get_response(request)
            calls("after")
            return response

        return middleware

    def view(_request):
        calls("view")
        transaction.set_rollback(True)
        return HttpResponse("ok")

    MIDDLEWARE.append(outside)
    try:
        site(view, f"{__name__}.middleware")
        get()
    finally:
        MIDDLEWARE.clear()
    assert calls.ended == [DONE, ROLLED_BACK, DONE]


MIDDLEWARE = []


def middleware(get_response):
    """Make the middleware of the test: Django takes its name only."""
    return MIDDLEWARE[-1](get_response)


def test_non_atomic_requests(atomic_requests, site, get, calls):
    """A view may do without (B3)."""

    @transaction.non_atomic_requests("default")
    @transaction.non_atomic_requests("memory")
    def view(_request):
        calls("free")
        with transaction.atomic():
            calls("lost")
            transaction.set_rollback(True)
        return HttpResponse("ok")

    site(view)
    get()
    assert calls[0]._committed is None
    assert calls.ended == [DONE, ROLLED_BACK]


def test_an_async_view(site, get, events, calls):
    """Its blocks are in threads (B3)."""

    @sync_to_async
    def order(name, fails):
        with transaction.atomic():
            Book.objects.create(title=name)
            calls(name)
            if fails:
                raise NoError

    async def view(_request):
        with suppress(NoError):
            await order("lost", True)
        await order("kept", False)
        calls("free")
        return HttpResponse("ok")

    site(view)
    get()
    assert calls.ended == [ROLLED_BACK, DONE, DONE]
    names = ["lost always", "kept", "kept always", "free", "free always"]
    assert events == [*get.sent, *names]


@pytest.mark.parametrize("fails", [True, False])
def test_async_code_of_a_sync_view(fails, atomic_requests, site, get, calls):
    """What `async_to_sync` runs is inside the view's transaction (B3)."""

    async def service():
        await Book.objects.acreate(title="a")
        calls("mail")

    def view(_request):
        async_to_sync(service)()
        transaction.set_rollback(fails)
        return HttpResponse("ok")

    site(view)
    get()
    assert calls.ended == [ROLLED_BACK if fails else DONE]
    assert Book.objects.exists() is not fails


@pytest.mark.filterwarnings("ignore:StreamingHttpResponse must consume:Warning")
def test_a_streaming_response(atomic_requests, site, get, events, calls):
    """Its body is made after the commit, outside the transaction (B3)."""

    def body():
        calls("body")
        yield b"ok"

    def view(_request):
        calls("view")
        transaction.set_rollback(True)
        return StreamingHttpResponse(body())

    site(view)
    get()
    assert calls.ended == [ROLLED_BACK, DONE]
    assert events == [*get.sent, "view always", "body", "body always"]


def test_a_call_has_transactions_of_its_own(atomic_requests, site, get, events):
    """What it writes is committed, in autocommit or in a block of its own (S9, A7)."""

    def work():
        Book.objects.create(title="by itself")
        with transaction.atomic():
            Book.objects.create(title="in a block")
            defer(events.append, "kept")
        with suppress(NoError), transaction.atomic():
            Book.objects.create(title="lost")
            defer(events.append, "lost")
            raise NoError

    async def awork():
        await Book.objects.acreate(title="async")

    def view(_request):
        defer(work)
        defer(awork)
        return HttpResponse("ok")

    site(view)
    get()
    postlude.drain()
    titles = Book.objects.order_by("id").values_list("title", flat=True)
    assert list(titles) == ["by itself", "in a block", "async"]
    assert events == [*get.sent, "kept"]

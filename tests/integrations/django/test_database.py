"""D4: calls on a server have database connections of their own, and close them."""

import threading

import pytest
from asgiref.sync import sync_to_async
from books.models import Book
from django.db import connection, connections
from django.http import HttpResponse

from harness.wire import TIMEOUT
from postlude import defer

pytestmark = pytest.mark.parametrize(
    "get",
    [
        "wsgi",
        "asgi",
        pytest.param("wsgi-wrapped", marks=pytest.mark.wide),
        pytest.param("asgi-wrapped", marks=pytest.mark.wide),
    ],
    indirect=True,
)


@pytest.fixture(autouse=True)
def empty():
    """Leave no books behind."""
    yield
    Book.objects.all().delete()


class Used:
    """What used which connection, in which thread."""

    def __init__(self):
        self.wrappers = {}
        self.inner = {}
        self.threads = {}

    def note(self, who):
        """Use the database, and note with what."""
        Book.objects.create(title=who)
        self.wrappers[who] = connections["default"]
        self.inner[who] = connection.connection
        self.threads[who] = threading.current_thread()

    async def anote(self, who):
        """Use it through the asynchronous ORM, and note in the thread that works."""
        await Book.objects.acreate(title=who)
        await sync_to_async(self.note)(who)


@pytest.fixture
def used():
    """What used which connection."""
    return Used()


def views(act, aact):
    """Return a sync and an async view that do the same."""

    def in_thread(request):
        act()
        return HttpResponse("ok")

    async def on_loop(request):
        await aact()
        return HttpResponse("ok")

    return {"sync": in_thread, "async": on_loop}


@pytest.fixture
def serve(site, used):
    """Serve a view that uses the database, and defers what does."""

    def serve(kind, *calls):
        def act():
            used.note("request")
            for call in calls:
                defer(*call)

        async def aact():
            await used.anote("request")
            for call in calls:
                defer(*call)

        site(views(act, aact)[kind])

    return serve


both_kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@both_kinds
def test_sync_calls_use_connections_of_their_own(kind, serve, get, used):
    """A sync call has neither the connection of its request nor its thread (D4)."""
    serve(kind, (used.note, "call"))
    get()
    assert used.inner["call"] is not used.inner["request"]
    assert used.threads["call"] is not used.threads["request"]
    assert used.threads["call"].name.startswith("postlude-")


@both_kinds
def test_async_calls_use_connections_of_their_own(kind, serve, get, used):
    """The asynchronous ORM in a call does not wait for its request's thread (D4)."""
    serve(kind, (used.anote, "call"))
    get()
    assert used.inner["call"] is not used.inner["request"]
    assert used.threads["call"] is not used.threads["request"]
    assert Book.objects.filter(title="call").count() == 2


@both_kinds
def test_connections_are_closed_after_each_call(kind, serve, get, used):
    """With `CONN_MAX_AGE` of 0 no call leaves an open connection (D4)."""
    left = []

    def look(who):
        left.append(used.wrappers[who].connection)

    serve(
        kind,
        (used.note, "sync"),
        (look, "sync"),
        (used.anote, "async"),
        (look, "async"),
    )
    get()
    assert left == [None, None]


@both_kinds
def test_connections_are_closed_after_a_failing_call(kind, serve, get, used, reported):
    """A call that raises leaves no open connection either (D4, D2)."""
    left = []

    def fail(who):
        used.note(who)
        raise LookupError(who)

    async def afail(who):
        await used.anote(who)
        raise LookupError(who)

    def look(who):
        left.append(used.wrappers[who].connection)

    serve(kind, (fail, "sync"), (look, "sync"), (afail, "async"), (look, "async"))
    get()
    assert left == [None, None]
    assert [str(error) for error in reported()] == ["sync", "async"]


@both_kinds
def test_calls_see_what_their_request_has_written(kind, site, get, events):
    """What a request has committed, its calls read (D4)."""

    def read():
        events.append(Book.objects.get().title)

    async def aread():
        events.append((await Book.objects.aget()).title)

    def act():
        Book.objects.create(title="written")
        defer(read)
        defer(aread)

    async def aact():
        await Book.objects.acreate(title="written")
        defer(read)
        defer(aread)

    site(views(act, aact)[kind])
    get()
    assert events == [*get.sent, "written", "written"]


@both_kinds
def test_async_calls_leave_no_threads_behind(kind, serve, get, used):
    """The thread of an async call's database work ends with the call (D4)."""
    serve(kind, (used.anote, "call"))
    get()
    thread = used.threads["call"]
    thread.join(TIMEOUT)
    assert not thread.is_alive()

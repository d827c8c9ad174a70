"""D4: what a call holds of Django's, with the fix; and what it may hold."""

import asyncio
import warnings
from io import BytesIO

import pytest
from books.models import Book
from django.conf import settings as django_settings
from django.core import mail
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext, override_settings
from django.utils import functional
from django.utils.functional import SimpleLazyObject

from postlude import RequestBoundWarning, _inspector, _settings, configure, defer
from postlude.integrations.django import PostludeMiddleware

MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
APPS = ["books", "django.contrib.auth", "django.contrib.contenttypes"]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, fresh_settings):
    """Forget who was warned."""
    monkeypatch.setattr(_inspector, "_warned", set())


def take(it):
    """Take something."""


@pytest.fixture(params=["wsgi", "asgi"])
def post(request, site):
    """Send a request, under WSGI or ASGI; *held* says what its view defers with.

    Gives the end of each warning, from the place on.
    """

    def post(held, *args, method="post", **options):
        _inspector._warned.clear()

        def view(request):
            defer(take, held(request))
            return HttpResponse("ok")

        site(view, *MIDDLEWARE, INSTALLED_APPS=APPS)
        send = getattr(Client(), method)
        if request.param == "asgi":
            aclient = AsyncClient()

            def send(*args, **options):
                return asyncio.run(getattr(aclient, method)(*args, **options))

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            send("/", *args, **options)
        return [str(w.message) for w in caught if w.category is RequestBoundWarning]

    return post


def test_the_lazy_user(post):
    """`request.user` that nobody has looked at warns, and nobody looks at it (D4)."""
    users = []

    def user(request):
        users.append(request.user)
        return request.user

    (message,) = post(user, method="get")
    assert message == (
        f"The deferred call {__name__}:take holds a lazy object that nobody has looked "
        "at (its argument `it`). Usually it is request.user. In the call it would be "
        "loaded by a request that is over, and an async call cannot load it at all. "
        "Pass it.pk and load the user in the call."
    )
    (lazy,) = users
    assert type(lazy) is SimpleLazyObject
    assert object.__getattribute__(lazy, "_wrapped") is functional.empty


def test_a_lazy_object_that_breaks(post):
    """Looking at what a call holds never evaluates it (D4)."""

    def broken(request):
        def load():
            raise AssertionError(f"evaluated for {request}")

        return SimpleLazyObject(load)

    assert len(post(broken)) == 1


def test_a_lazy_object_that_is_loaded(post):
    """Once looked at it is what it stands for: a model instance (D4)."""

    def loaded(request):
        lazy = SimpleLazyObject(lambda: (request, Book(title="a"))[1])
        assert lazy.title == "a"
        return lazy

    assert post(loaded) == []


def test_a_lazy_object_of_the_application(post):
    """One that needs no request may be loaded anywhere, by a call too (D4)."""
    assert post(lambda _: SimpleLazyObject(lambda: Book(title="a"))) == []
    assert post(lambda _: django_settings) == []


def test_a_request_with_a_body(post):
    """Its body and its files end with it (D4)."""
    (message,) = post(lambda request: request, {"title": "a"})
    assert message == (
        f"The deferred call {__name__}:take holds the request (its argument `it`). Its "
        "body and its files end with it: in the call they are empty, closed or gone. "
        "Pass what the call needs: `request.path`."
    )


def test_a_request_with_files(post):
    """Files that were read are closed with the request (D4)."""

    def held(request):
        assert request.FILES
        return request

    file = BytesIO(b"a")
    file.name = "a.txt"
    assert len(post(held, {"file": file})) == 1


def test_a_request_that_keeps_all_it_has(post):
    """Without a body, or with one that was read, nothing of it ends (D4)."""

    def read(request):
        assert request.body
        return request

    def parsed(request):
        assert request.POST
        return request

    assert post(lambda request: request, method="get") == []
    assert post(read, data=b"{}", content_type="application/json") == []
    assert post(parsed, {"title": "a"}) == []


def test_an_upload(post):
    """The fix names it (D4)."""
    file = SimpleUploadedFile("a.txt", b"a")
    (message,) = post(lambda request: request.FILES["file"], {"file": file})
    assert "holds an upload (its argument `it`)" in message
    assert message.endswith(
        "Read it before the answer and pass the bytes: `it.read()`."
    )


def test_models_and_query_sets(post):
    """They load what they lack in the call, through its own connection (D4)."""
    with CaptureQueriesContext(connection) as queries:
        assert post(lambda _: Book(title="a")) == []
        assert post(lambda _: Book.from_db("default", ["id"], [1])) == []
        assert post(lambda _: Book.objects.filter(title="a")) == []
        assert post(lambda _: [Book(title="a"), Book.objects.all()]) == []
    assert len(queries) == 0


def test_connections(post):
    """A connection belongs to its thread; the proxy for it to everybody (D4)."""
    assert post(lambda _: connection) == []
    (message,) = post(lambda _: connections["default"])
    assert "holds a database connection" in message

    def cursor(_):
        with connection.cursor() as cursor:
            return cursor

    assert len(post(cursor)) == 1


@pytest.mark.parametrize(
    ("debug", "outbox", "inspects"),
    [(False, False, False), (True, False, True), (False, True, True)],
    ids=["production", "debug", "tests"],
)
def test_it_is_on_in_development(debug, outbox, inspects, monkeypatch):
    """`DEBUG`, or Django's test runner, says that this is no production (D4)."""
    monkeypatch.delitem(_settings.sys.modules, "postlude.pytest_plugin", raising=False)
    if not outbox:
        monkeypatch.delattr(mail, "outbox")
    with override_settings(DEBUG=debug):
        PostludeMiddleware(take)
    assert _settings.inspecting() is inspects


def test_the_setting_wins_over_debug(monkeypatch):
    """`POSTLUDE = {"INSPECTOR": False}` turns it off in every case (D4, D6)."""
    with override_settings(DEBUG=True, POSTLUDE={"INSPECTOR": False}):
        PostludeMiddleware(take)
    assert not _settings.inspecting()
    configure(inspector=True)
    assert _settings.inspecting()


def test_a_lazy_user_in_an_async_call_has_a_hint(site, caplog):
    """The log line of the failure says what to pass (E1)."""
    titles = []

    async def mail_to(user):
        titles.append(user.title)

    def view(request):
        lazy = SimpleLazyObject(lambda: (request, Book.objects.first())[1])
        with pytest.warns(RequestBoundWarning):
            defer(mail_to, lazy)
        return HttpResponse("ok")

    site(view)
    Client().get("/")
    (line,) = [r.getMessage() for r in caplog.records if r.name == "postlude"]
    assert "SynchronousOnlyOperation" in line
    assert line.endswith("Pass user.pk and load the user in the call.")
    assert titles == []

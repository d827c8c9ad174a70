"""G1: within Django's own test cases, calls see what the test has not committed."""

from asgiref.sync import sync_to_async
from books.models import Book
from django.http import HttpResponse
from django.test import TestCase, TransactionTestCase, override_settings
from django.urls import path

from postlude import defer

seen = []


def read(alias):
    """Note the titles there are, and add one."""
    seen.append([book.title for book in Book.objects.using(alias).order_by("id")])
    Book.objects.using(alias).create(title="by a sync call")


async def aread(alias):
    """Do the same through the asynchronous ORM."""
    books = Book.objects.using(alias).order_by("id")
    seen.append([book.title async for book in books])
    await Book.objects.using(alias).acreate(title="by an async call")


def view(request, alias):
    """Write, and defer what reads it."""
    Book.objects.using(alias).create(title="by the view")
    defer(read, alias)
    defer(aread, alias)
    return HttpResponse("ok")


async def aview(request, alias):
    """Write through the asynchronous ORM, and defer what reads it."""
    await Book.objects.using(alias).acreate(title="by the view")
    defer(read, alias)
    defer(aread, alias)
    return HttpResponse("ok")


urlpatterns = [path("sync/<alias>", view), path("async/<alias>", aview)]
TITLES = ["by the test", "by the view", "by a sync call", "by an async call"]

in_this_site = override_settings(
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["postlude.integrations.django.PostludeMiddleware"],
)


class Uncommitted:
    """What each kind of test case checks, in a file and in memory."""

    databases = frozenset({"default", "memory"})

    def setUp(self):
        """Forget what was seen."""
        seen.clear()

    def request(self, page, alias):
        """Write, and have a page written and its calls read."""
        Book.objects.using(alias).create(title=TITLES[0])
        self.client.get(f"/{page}/{alias}")
        self.check(alias)

    async def arequest(self, page, alias):
        """Do the same with the asynchronous client."""
        await Book.objects.using(alias).acreate(title=TITLES[0])
        await self.async_client.get(f"/{page}/{alias}")
        await sync_to_async(self.check)(alias)

    def check(self, alias):
        """Check that each call has seen all that was written before it."""
        assert seen == [TITLES[:2], TITLES[:3]]
        books = Book.objects.using(alias).order_by("id")
        assert [book.title for book in books] == TITLES

    def test_a_sync_view_and_a_file(self):
        """Calls of a sync view see the test's data, in a database file (G1)."""
        self.request("sync", "default")

    def test_a_sync_view_and_memory(self):
        """Calls of a sync view see the test's data, in memory (G1)."""
        self.request("sync", "memory")

    def test_an_async_view_and_a_file(self):
        """Calls of an async view see the test's data, in a database file (G1)."""
        self.request("async", "default")

    def test_an_async_view_and_memory(self):
        """Calls of an async view see the test's data, in memory (G1)."""
        self.request("async", "memory")

    async def test_the_async_client_and_a_file(self):
        """With `AsyncClient` calls see the test's data, in a database file (G1)."""
        await self.arequest("async", "default")

    async def test_the_async_client_and_memory(self):
        """With `AsyncClient` calls see the test's data, in memory (G1)."""
        await self.arequest("async", "memory")

    async def test_the_async_client_and_a_sync_view(self):
        """With `AsyncClient` calls of a sync view see the test's data (G1)."""
        await self.arequest("sync", "default")


@in_this_site
class InTestCase(Uncommitted, TestCase):
    """Each test is one transaction that is rolled back."""


@in_this_site
class InTransactionTestCase(Uncommitted, TransactionTestCase):
    """Each test commits, and its tables are emptied."""
